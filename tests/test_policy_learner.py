"""The learner: what each record of the log changes, and that it goes on from a saved state as if never stopped."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from builders import (
    SECOND_US,
    choice,
    close,
    decision,
    model,
    models,
    query,
    random_history,
    report,
    router,
    teach,
    vector,
)

from policy.choices import Exclusion
from policy.circuit import BACK_OFF_US, FAILURES_TO_OPEN, Circuit
from policy.decide import decide
from policy.domain import LearnerKind, ModelError, Objective, RewardRule, Router
from policy.drift import FIRST_VARIANCE
from policy.join import Joined
from policy.learner import RouterLearner
from policy.log import Usage
from policy.view import ModelRecord

KINDS = list(LearnerKind)
A, B = "a#1", "b#2"


def learner_of(*names: str, **spec: Any) -> RouterLearner:
    return RouterLearner(router(models(*(names or ("a", "b"))), **spec))


def record(learner: RouterLearner, key: str) -> ModelRecord:
    return learner.view(0).models[key]


def quality(learner: RouterLearner, key: str) -> float:
    return float(learner.view(0).quality.predict(vector().astype(np.float64), [key])[0])


def debt(learner: RouterLearner) -> float:
    """What the pacer owes, in budgets."""
    meta = json.loads(bytes(np.load(io.BytesIO(learner.state()))["meta"]))
    return float(meta["pacing"]["pacer"]["debt"])


def excluded(learner: RouterLearner, name: str, seconds: int) -> Exclusion | None:
    """Whether a decision at this time would leave the model out."""
    made = decide(learner.view(0), learner.router, query(), "d", seconds * SECOND_US)
    return next(each.exclusion for each in made.candidates if each.model == name)


@pytest.mark.parametrize("kind", KINDS)
def test_rewards_are_learned_of_the_model_that_earned_them(kind: LearnerKind) -> None:
    learner = learner_of(learner=kind)
    for number in range(40):
        teach(learner, "a", 1000 + 2 * number, reward=0.25)
    assert quality(learner, A) == pytest.approx(0.25, abs=0.1)
    assert quality(learner, B) == pytest.approx(1.0)
    assert record(learner, A).rewards == learner.view(0).router.rewards == 40
    assert record(learner, A).reward_sum == 10.0
    assert record(learner, B) == ModelRecord()


def test_a_late_report_changes_nothing_at_all() -> None:
    learner = learner_of(budget=0.001)
    made = teach(learner, "a", reward=0.5)
    before = learner.fingerprint()
    told = report(made, learner.router, reward=0.0, usage=Usage(cost_usd=9.0), error=ModelError.TIMEOUT, late=True)
    learner.on_report(told, made)
    assert learner.fingerprint() == before


def test_a_deferred_decision_counts_only_once_it_is_activated() -> None:
    learner = learner_of(budget=0.001)
    made = decision("a", deferred=True)
    learner.on_decision(made)
    assert (learner.view(0).router.decisions, record(learner, A).decisions) == (0, 0)
    first = report(made, learner.router, activation=True)
    learner.on_report(first, made)
    learner.on_report(report(made, learner.router, [first], activation=True), made)
    assert (learner.view(0).router.decisions, record(learner, A).decisions) == (1, 1)


def test_a_deferred_decision_that_was_never_used_costs_nothing_when_it_closes() -> None:
    learner = learner_of(reward_rule=RewardRule(missing_reward=0.0))
    made = decision("a", deferred=True)
    learner.on_decision(made)
    close(learner, made)
    assert learner.view(0).router.spent_usd == 0.0
    assert record(learner, A) == ModelRecord()


def test_closing_charges_the_prediction_where_no_usage_came_and_nothing_where_it_did() -> None:
    learner = learner_of()
    silent = decision("a", 1000, cost_usd=0.5)
    learner.on_decision(silent)
    close(learner, silent)
    assert learner.view(0).router.spent_usd == 0.5
    told = decision("a", 2000, cost_usd=0.5)
    usage = report(told, learner.router, usage=Usage(cost_usd=0.125))
    learner.on_decision(told)
    learner.on_report(usage, told)
    close(learner, told, usage)
    assert learner.view(0).router.spent_usd == 0.625
    assert learner.view(0).router.charged == 2


@pytest.mark.parametrize(("missing_reward", "rewards"), [(None, 0), (0.25, 1)])
def test_closing_counts_a_missing_reward_and_learns_it_where_the_rule_says_so(
    missing_reward: float | None, rewards: int
) -> None:
    learner = learner_of(reward_rule=RewardRule(missing_reward=missing_reward))
    made = decision("a")
    learner.on_decision(made)
    close(learner, made)
    found = record(learner, A)
    assert (found.closed, found.missing, found.rewards) == (1, 1, rewards)
    assert found.reward_sum == (missing_reward or 0.0)


def test_closing_a_rewarded_decision_learns_nothing_more() -> None:
    learner = learner_of(reward_rule=RewardRule(missing_reward=0.0))
    made = decision("a")
    told = report(made, learner.router, reward=1.0)
    learner.on_decision(made)
    learner.on_report(told, made)
    close(learner, made, told)
    circuit = Circuit(worked=made.seq)
    variance = FIRST_VARIANCE * 10 / 11  # a reward of 1 was what was expected
    assert record(learner, A) == ModelRecord(
        decisions=1, rewards=1, reward_sum=1.0, closed=1, circuit=circuit, variance=variance
    )


def test_a_report_of_another_model_that_served_teaches_about_that_one() -> None:
    learner = learner_of()
    teach(learner, "a", reward=0.0, usage=Usage(cost_usd=0.5), latency_seconds=3.0, served_model="b")
    assert (record(learner, A).rewards, record(learner, A).decisions) == (0, 1)
    served = record(learner, B)
    assert (served.rewards, served.cost_sum_usd, served.latency_seconds) == (1, 0.5, 3.0)
    assert quality(learner, A) == 1.0


def test_a_call_served_by_a_model_that_is_not_ours_is_charged_and_teaches_nothing() -> None:
    learner = learner_of()
    teach(learner, "a", reward=0.0, usage=Usage(cost_usd=0.5), served_model="elsewhere")
    view = learner.view(0)
    assert (view.router.spent_usd, view.router.rewards) == (0.5, 0)


def test_the_latency_learned_is_the_mean_of_those_reported() -> None:
    learner = learner_of()
    for seq, seconds in enumerate((1.0, 2.0, 6.0)):
        teach(learner, "a", 1000 + 2 * seq, latency_seconds=seconds)
    assert record(learner, A).latency_seconds == pytest.approx(3.0)


def fail(learner: RouterLearner, seq: int, times: int, error: ModelError = ModelError.UNAVAILABLE) -> None:
    for number in range(times):
        teach(learner, "a", seq + number, error=error)


@pytest.mark.parametrize("error", [each for each in ModelError if each.is_outage])
def test_outages_in_a_row_open_the_circuit_for_a_while(error: ModelError) -> None:
    learner = learner_of()
    fail(learner, 1000, FAILURES_TO_OPEN, error)
    opened = 1000 + FAILURES_TO_OPEN
    assert excluded(learner, "a", opened) is Exclusion.UNHEALTHY
    assert excluded(learner, "b", opened) is None
    assert excluded(learner, "a", opened + BACK_OFF_US // SECOND_US) is None
    assert not record(learner, A).circuit.closed


def test_one_outage_or_bad_answers_do_not_open_the_circuit() -> None:
    learner = learner_of()
    fail(learner, 1000, 1)
    fail(learner, 1001, 20, ModelError.INVALID_OUTPUT)
    assert excluded(learner, "a", 1022) is None
    assert record(learner, A).errors == 21


def test_to_activate_a_decision_is_no_success_of_its_model() -> None:
    learner = learner_of()
    fail(learner, 1000, FAILURES_TO_OPEN)
    made = decision("a", 1010, deferred=True, choice=replace(choice("a"), snapshot=1009))
    learner.on_decision(made)
    learner.on_report(report(made, learner.router, activation=True), made)
    assert not record(learner, A).circuit.closed


def test_errors_are_no_rewards_unless_the_rule_says_so() -> None:
    silent, strict = learner_of(), learner_of(reward_rule=RewardRule(error_reward=0.0))
    for learner in (silent, strict):
        fail(learner, 1000, 3)
    assert (record(silent, A).rewards, record(strict, A).rewards) == (0, 3)


def test_another_budget_changes_the_price_of_money_at_once() -> None:
    of = router((model("a", 1, per_request=0.001), model("b", 2, per_request=0.01)), budget=0.002)
    learner, prices = RouterLearner(of), []
    for seq in range(1000, 1080, 2):
        teach(learner, "ab"[seq // 2 % 2], seq, reward=(0.2, 0.9)[seq // 2 % 2])
    for budget in (0.002, 1.0, 0.002):
        learner.on_registry(replace(of, spec=replace(of.spec, objective=Objective(budget))))
        prices.append(learner.view(0).pacer_price)
    assert prices[0] > 0.0 == prices[1]
    assert prices[2] == pytest.approx(prices[0], rel=0.1)


@pytest.mark.parametrize("kind", KINDS)
def test_models_removed_and_added_leave_the_others_as_they_were(kind: LearnerKind) -> None:
    learner = learner_of("a", "b", learner=kind)
    random_history(learner, seed=1, first=0, count=40)
    before = (quality(learner, A), record(learner, A))
    spec = learner.router.spec
    learner.on_registry(Router("support", spec, (learner.router.models[0], model("c", 9))))
    assert (quality(learner, A), record(learner, A)) == before
    assert learner.view(0).models.keys() == {A, "c#9"}
    assert quality(learner, "c#9") == pytest.approx(1.0)


def test_a_model_added_again_under_its_name_starts_anew_and_old_reports_do_not_reach_it() -> None:
    learner = learner_of()
    made = teach(learner, "a", 1000, reward=0.0)
    learner.on_registry(replace(learner.router, models=(model("a", 1500), learner.router.models[1])))
    learner.on_report(report(made, learner.router, seq=1600, reward=0.0, latency_seconds=9.0), made)
    close(learner, made)
    assert record(learner, "a#1500") == ModelRecord(joined_at=1)
    teach(learner, "a", 1700, reward=0.5)
    assert record(learner, "a#1500").rewards == 1


def test_a_deferred_decision_of_a_removed_model_does_not_count_for_its_successor() -> None:
    learner = learner_of()
    made = decision("a", 1000, deferred=True)
    learner.on_decision(made)
    learner.on_registry(replace(learner.router, models=(model("a", 1500), learner.router.models[1])))
    learner.on_report(report(made, learner.router, seq=1600, activation=True), made)
    assert record(learner, "a#1500").decisions == 0


def test_another_kind_of_learner_starts_from_nothing_and_learns() -> None:
    learner = learner_of()
    random_history(learner, seed=1, first=0, count=40)
    spec = replace(learner.router.spec, learner=LearnerKind.VOWPAL_WABBIT)
    learner.on_registry(replace(learner.router, spec=spec))
    assert quality(learner, A) == pytest.approx(1.0)
    assert record(learner, A).decisions > 1
    assert record(learner, A).tried == 0
    for seq in range(3000, 3040, 4):
        teach(learner, "a", seq, reward=0.0)
    assert quality(learner, A) < 1.0


def test_a_view_stays_while_the_learner_goes_on() -> None:
    learner = learner_of(budget=0.001)
    random_history(learner, seed=1, first=0, count=20)
    view = learner.view(5)
    x = vector().astype(np.float64)
    before = (view.quality.predict(x, [A, B]).tolist(), view.pacer_price, replace(view.router), dict(view.models))
    random_history(learner, seed=1, first=20, count=60)
    after = (view.quality.predict(x, [A, B]).tolist(), view.pacer_price, view.router, dict(view.models))
    assert after == before
    assert learner.view(5).models != view.models


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("saved_after", [0, 1, 37])
def test_a_restored_learner_goes_on_to_the_same_state_as_one_never_stopped(
    kind: LearnerKind, saved_after: int
) -> None:
    of = router((model("org/a:v1@x", 1, output_price=3.0), model("b", 2)), budget=0.002, learner=kind)
    whole = RouterLearner(of)
    random_history(whole, seed=3, first=0, count=saved_after)
    restored = RouterLearner.restore(of, whole.state())
    assert restored.fingerprint() == whole.fingerprint()
    for learner in (whole, restored):
        random_history(learner, seed=3, first=saved_after, count=60)
        learner.on_registry(replace(of, models=(of.models[1], model("c", 3))))
        random_history(learner, seed=3, first=saved_after + 60, count=20)
    assert restored.fingerprint() == whole.fingerprint()
    choices = [decide(each.view(1), each.router, query(), "d", 0) for each in (whole, restored)]
    assert choices[0] == choices[1]
    assert RouterLearner.restore(whole.router, whole.state()).fingerprint() == whole.fingerprint()


def test_learners_that_learned_otherwise_have_other_fingerprints() -> None:
    one, other = learner_of(), learner_of()
    teach(one, "a", reward=0.5)
    teach(other, "a", reward=0.5000001)
    assert one.fingerprint() != other.fingerprint()


def test_a_missing_reward_teaches_of_the_model_that_served() -> None:
    learner = learner_of(reward_rule=RewardRule(missing_reward=0.25))
    made = decision("a")
    learner.on_decision(made)
    learner.on_close(made, Joined(active=True, served_model="b"))
    records = learner.view(0).models
    assert {key.partition("#")[0]: each.rewards for key, each in records.items()} == {"a": 0, "b": 1}


def test_what_was_decided_without_a_budget_is_not_owed_to_one_that_came_later() -> None:
    learner = learner_of()
    before = decision("a", 1000)
    learner.on_decision(before)
    learner.on_registry(replace(learner.router, spec=replace(learner.router.spec, objective=Objective(0.001))))
    learner.on_decision(decision("a", 1002))
    owed = debt(learner)
    learner.on_report(report(before, learner.router, usage=Usage(cost_usd=0.5)), before)
    assert debt(learner) == owed
