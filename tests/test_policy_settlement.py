"""What a decision comes to: its utility, what is left out of it, and what an imported one says."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
from builders import model
from evaluation_logs import (
    MODELS,
    SETTINGS,
    VALUE_USD,
    Record,
    close,
    log,
    play,
    played,
    router,
    told,
    value,
    with_choice,
)
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from policy.candidates import CandidateSpec
from policy.choices import IMPORTED, Candidate
from policy.domain import InvalidFieldError, LearnerKind, ModelError, RewardJoin, RewardRule
from policy.evaluation import Evaluation, EvaluationSettings
from policy.evidence import LeftOut, Metric
from policy.settlement import Limits
from policy.verdict import Outcome, Refusal


def test_utility_takes_off_the_cost_at_what_quality_is_worth() -> None:
    results = played(log(3, 300))
    for name in MODELS:
        quality, cost = (value(results, f"fixed:{name}", each) for each in (Metric.QUALITY, Metric.COST_USD))
        assert value(results, f"fixed:{name}", Metric.UTILITY) == pytest.approx(quality - cost / VALUE_USD)


def test_with_only_a_budget_money_is_worth_what_was_logged_with_each_decision() -> None:
    records = [
        with_choice(each, price_of_money=10.0 * (number % 3)) for number, each in enumerate(log(4, 300).records)
    ]
    evaluation = play(Evaluation(router(value=None, budget=0.004), settings=SETTINGS), records)
    results = evaluation.results()
    # By DR, in which every decision counts the same, whatever its price of money.
    quality, utility = (
        results.candidate("fixed:dear").estimates[each].dr.candidate.value
        for each in (Metric.QUALITY, Metric.UTILITY)
    )
    assert utility == pytest.approx(quality - 10.0 * 0.012)


def test_a_price_of_money_beyond_all_measure_is_kept_to_what_the_limits_allow() -> None:
    """The dearest model costs 0.012, the declared most, so that utility is never below -2."""
    records = [with_choice(each, price_of_money=1e6) for each in log(4, 100).records]
    settings = replace(SETTINGS, limits=Limits(utility_loss_max=2.0))
    results = play(Evaluation(router(value=None, budget=0.004), settings=settings), records).results()
    quality = value(results, "fixed:dear")
    assert value(results, "fixed:dear", Metric.UTILITY) == pytest.approx(quality - 2.0)
    assert results.candidate("fixed:dear").clipped[Metric.UTILITY] == 0


def test_latency_takes_from_utility_where_it_has_a_price() -> None:
    made = log(5, 100).records
    records = [Record(each.decision, (replace(each.reports[0], latency_seconds=2.0),)) for each in made]
    results = play(Evaluation(router(latency_price=0.001), settings=SETTINGS), records).results()
    live = results.candidate("uniform").estimates
    expected = live[Metric.QUALITY].ips.live.value - live[Metric.COST_USD].ips.live.value / VALUE_USD - 2 * 0.02
    assert live[Metric.UTILITY].ips.live.value == pytest.approx(expected)
    assert live[Metric.LATENCY_SECONDS].ips.live.value == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"exploit_only": True}, LeftOut.EXPLOIT_ONLY),
        ({"sticky": True}, LeftOut.STICKY),
        ({"probability": math.nan}, LeftOut.NO_PROPENSITY),
    ],
)
def test_decisions_without_a_draw_of_their_own_are_left_out_and_counted(
    changes: dict[str, object], reason: LeftOut
) -> None:
    records = log(6, 40).records
    for number in range(10):
        if "exploit_only" in changes:
            decision = replace(records[number].decision, exploit_only=True)
            records[number] = Record(decision, records[number].reports)
        else:
            records[number] = with_choice(records[number], **changes)
    support = played(records).candidate("uniform").support
    assert (support.events, support.left_out[reason]) == (30, 10)


def test_shadow_decisions_have_their_true_propensity_so_that_other_models_are_refused() -> None:
    records = []
    for each in log(7, 300).records:
        candidates = tuple(
            replace(of, probability=float(of.model == each.decision.choice.model))
            for of in each.decision.choice.candidates
        )
        records.append(with_choice(each, candidates=candidates, probability=1.0, proposed_model="dear"))
    results = played(records)
    assert results.shadow == 300
    verdict = results.candidate("uniform").verdict
    assert (verdict.outcome, verdict.refusal) == (Outcome.REFUSED, Refusal.UNSUPPORTED)


def test_a_decision_that_another_model_served_is_left_out_unless_the_drawn_one_is_known_to_have_failed() -> None:
    records = log(8, 12).records
    evaluation = Evaluation(router(), settings=SETTINGS)
    for number, record in enumerate(records):
        decision = record.decision
        other = next(each for each in MODELS if each != decision.choice.model)
        failed = told(decision, error=ModelError.TIMEOUT)
        served = told(decision, 1.0, 0.001, seq=decision.seq + 2, served=other)
        reports = (failed, served) if number < 5 else (served,)
        play(evaluation, [Record(decision, reports)])
        close(evaluation, Record(decision, reports))
    found = evaluation.results().candidate("uniform")
    assert found.support.left_out[LeftOut.SERVED_BY_FALLBACK] == 12
    assert found.estimates[Metric.ERROR].ips.live.value == 1.0
    assert (found.estimates[Metric.ERROR].events, found.estimates[Metric.QUALITY].events) == (5, 0)


def test_a_window_that_closes_without_usage_costs_what_was_predicted_and_without_reward_says_only_that() -> None:
    first, second, third = log(9, 3).records
    evaluation = Evaluation(router(), settings=SETTINGS)
    rewarded = Record(first.decision, (told(first.decision, 0.5),))
    silent = Record(second.decision, (told(second.decision, None, 0.009),))
    asked_ahead = Record(replace(third.decision, deferred=True), ())
    play(evaluation, [rewarded, silent, asked_ahead])
    assert evaluation.results().pending == 3
    for each in (rewarded, silent, asked_ahead):
        close(evaluation, each)
    results = evaluation.results()
    estimates = results.candidate("uniform").estimates
    predicted = next(
        each.cost_usd for each in first.decision.choice.candidates if each.model == first.decision.choice.model
    )
    assert estimates[Metric.COST_USD].ips.live.value == pytest.approx((predicted + 0.009) / 2)
    assert (estimates[Metric.QUALITY].events, estimates[Metric.QUALITY].missing) == (1, 1)
    assert results.candidate("uniform").support.left_out[LeftOut.NO_REWARD] == 1
    assert (results.abandoned, results.pending) == (1, 0)


def test_a_missing_reward_is_the_rules_where_it_has_one() -> None:
    record = Record(log(10, 1).records[0].decision, ())
    rule = RewardRule(missing_reward=0.25)
    evaluation = play(Evaluation(router(reward_rule=rule), settings=SETTINGS), [record])
    close(evaluation, record)
    assert evaluation.results().candidate("uniform").estimates[Metric.QUALITY].ips.live.value == 0.25


def test_the_first_reward_settles_and_a_revision_after_it_is_counted_but_not_entered() -> None:
    record = log(11, 1).records[0]
    decision = record.decision
    evaluation = play(Evaluation(router(), settings=SETTINGS), [Record(decision, (told(decision, 0.2, 0.001),))])
    assert evaluation.results().settled == 1
    revised = told(decision, 0.9, seq=decision.seq + 5, replaces_reward=0.2)
    evaluation.on_report(revised, decision)
    results = evaluation.results()
    assert results.revised == 1
    assert results.candidate("uniform").estimates[Metric.QUALITY].ips.live.value == pytest.approx(0.2)


@pytest.mark.parametrize("join", [RewardJoin.LAST, RewardJoin.MEAN, RewardJoin.WEIGHTED])
def test_by_other_rules_the_reward_is_what_it_has_become_when_the_window_closes(join: RewardJoin) -> None:
    decision = log(12, 1).records[0].decision
    reports = (
        told(decision, 0.2, 0.001),
        told(decision, 0.6, seq=decision.seq + 5, replaces_reward=0.2),
    )
    of = router(reward_rule=RewardRule(join=join))
    evaluation = play(Evaluation(of, settings=SETTINGS), [Record(decision, reports)])
    assert evaluation.results().settled == 0
    close(evaluation, Record(decision, reports))
    assert evaluation.results().candidate("uniform").estimates[Metric.QUALITY].ips.live.value == pytest.approx(0.6)


def test_propensities_that_are_not_known_of_models_that_were_not_drawn_leave_the_weighted_outcomes() -> None:
    of = log(18, 400)
    records = [
        with_choice(
            each,
            candidates=tuple(
                of_one if of_one.model == each.decision.choice.model else replace(of_one, probability=math.nan)
                for of_one in each.decision.choice.candidates
            ),
        )
        for each in of.records
    ]
    full, partly = (played(each).candidate("fixed:middle").estimates[Metric.QUALITY] for each in (of, records))
    assert partly.ips == full.ips
    assert partly.dr.candidate.value == pytest.approx(full.ips.candidate.value)


def test_values_beyond_what_was_declared_are_clipped_in_the_sequences_and_counted() -> None:
    results = played(log(19, 50), settings=EvaluationSettings(limits=Limits(cost_max_usd=0.002)))
    found = results.candidate("uniform")
    assert found.clipped[Metric.COST_USD] > 0
    assert found.clipped[Metric.QUALITY] == 0
    assert found.estimates[Metric.COST_USD].ips.live.value > 0.002


def test_the_bounds_are_declared_from_prices_or_else_from_the_objective() -> None:
    priced = replace(router(), models=(model("a", 1, input_price=1.0, output_price=10.0),))
    assert Limits().bounds(priced)[Metric.COST_USD].high == pytest.approx((8192 + 40960) * 1e-6)
    bare = (model("a", 1),)
    assert Limits().bounds(replace(router(), models=bare))[Metric.COST_USD].high == VALUE_USD
    budgeted = replace(router(value=None, budget=0.002), models=bare)
    assert Limits().bounds(budgeted)[Metric.COST_USD].high == pytest.approx(0.1)
    assert Limits(cost_max_usd=3.0).bounds(budgeted)[Metric.COST_USD].high == 3.0


PRICES = st.sampled_from([0.0, 5e-324, 1e-320, 1e-300, 1e-15, 1e-12, 1.0, 1e6]) | st.floats(0.0, 1e6)
WORTHS = st.none() | st.sampled_from([1e-12, 1e-6, 1.0, 1e12])


@hypothesis_settings(deadline=None, max_examples=40)
@given(
    prices=st.tuples(PRICES, PRICES, PRICES),
    worth=WORTHS,
    budget=WORTHS,
    latency_price=st.sampled_from([0.0, 5e-324, 1.0, 1e12]),
    cost=st.sampled_from([0.0, 5e-324, 1e-300, 1e-3, 1e12]),
    money=st.sampled_from([0.0, 5e-324, 20.0, 1e300]),
)
@example(prices=(5e-324, 0.0, 0.0), worth=None, budget=None, latency_price=0.0, cost=0.001, money=20.0)
def test_whatever_a_router_declares_is_evaluated_and_taken_back(
    prices: tuple[float, float, float],
    worth: float | None,
    budget: float | None,
    latency_price: float,
    cost: float,
    money: float,
) -> None:
    input_price, output_price, per_request = prices
    declared = replace(
        router(value=worth, budget=budget, latency_price=latency_price),
        models=tuple(
            model(name, uid, input_price=input_price, output_price=output_price, per_request=per_request)
            for uid, name in enumerate(MODELS, start=1)
        ),
    )
    evaluation = Evaluation(declared)
    for each in log(29, 10).records:
        decision = with_choice(each, price_of_money=money).decision
        play(evaluation, [Record(decision, (told(decision, 1.0, cost),))])
    again = Evaluation.restore(declared, [], evaluation.state())
    assert repr(again.results()) == repr(evaluation.results())


@pytest.mark.parametrize("field", ["cost_max_usd", "latency_max_seconds", "utility_loss_max"])
def test_limits_have_to_be_above_zero(field: str) -> None:
    with pytest.raises(InvalidFieldError, match=field):
        Limits(**{field: 0.0})


def test_an_imported_decision_is_settled_by_its_one_report_and_costs_a_learning_candidate_nothing() -> None:
    """It has no window that could close; without a reward it says only what it cost."""
    records = [with_choice(each, policy=IMPORTED) for each in log(21, 60).records]
    records[0] = Record(records[0].decision, (replace(records[0].reports[0], reward=None, learned_reward=None),))
    evaluation = Evaluation(router(), [CandidateSpec("own", learner=LearnerKind.VOWPAL_WABBIT)], SETTINGS)
    for each in records:
        evaluation.on_decision(each.decision)
        for report in each.reports:
            evaluation.on_report(report, each.decision)
    results = evaluation.results()
    assert (results.settled, results.pending) == (60, 0)
    assert results.candidate("own").support.left_out[LeftOut.NO_REWARD] == 1
    assert results.candidate("uniform").estimates[Metric.COST_USD].events == 60


def unpredicted(record: Record, keep: Sequence[str] = MODELS) -> Record:
    """The record as an import makes it of a row with these candidates: nothing was predicted."""
    told_of = [each for each in record.decision.choice.candidates if each.model in keep]
    candidates = tuple(Candidate(each.model, each.probability, 0.0, 0.0, 0.0, 0.0) for each in told_of)
    return with_choice(record, policy=IMPORTED, candidates=candidates)


def test_an_imported_decision_told_without_its_candidates_may_have_been_any_of_the_models() -> None:
    """Else each contender would choose the drawn model, and be weighed as if it alone did."""
    of = log(22, 4000)
    results = played([unpredicted(each, [each.decision.choice.model]) for each in of.records])
    for name, true in zip(MODELS, of.means.mean(axis=0), strict=True):
        found = results.candidate(f"fixed:{name}")
        assert found.value(Metric.QUALITY) == pytest.approx(true, abs=0.05)  # Three standard deviations.
        assert found.support.weight_mean == pytest.approx(1.0, abs=0.1)


def test_where_nothing_was_predicted_nothing_is_chosen_by_predictions() -> None:
    records = [unpredicted(each) for each in log(23, 50).records]
    evaluation = Evaluation(router(), settings=SETTINGS)
    for each in records:
        evaluation.on_decision(each.decision)
        answers = evaluation.answers(each.decision)
        as_it_was = {one.model: one.probability for one in each.decision.choice.candidates}
        assert answers["cheapest"] == answers["dearest"] == as_it_was
        assert answers["fixed:dear"] == {"cheap": 0.0, "middle": 0.0, "dear": 1.0}
        assert answers["uniform"]["cheap"] == pytest.approx(1 / 3)
