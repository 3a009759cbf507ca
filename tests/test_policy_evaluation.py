"""An evaluation gives each candidate's true value, in its intervals, whatever stops, comes late or is missing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from builders import model
from evaluation_logs import (
    COSTS,
    MODELS,
    VALUE_USD,
    Log,
    Record,
    bits,
    close,
    log,
    means_of,
    play,
    router,
    told,
    with_choice,
)
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from policy.candidates import CandidateSpec, Rule, Threshold
from policy.confidence import Contrast
from policy.domain import IMPORTED, Candidate, InvalidFieldError, LearnerKind, ModelError, RewardJoin, RewardRule
from policy.evaluation import EVENTS_IN_A_BATCH, Evaluation, EvaluationSettings, OrderError
from policy.evidence import LeftOut, Metric
from policy.league import DIFFERENCES, Results
from policy.settlement import Limits
from policy.verdict import Outcome, Refusal, Requirements

UTILITY_ALONE = Requirements(
    quality_loss_max=None, cost_factor_max=None, latency_factor_max=None, error_increase_max=None
)
SETTINGS = EvaluationSettings(requirements=UTILITY_ALONE)
RULED = CandidateSpec("ruled", policy="fixed:cheap", rules=(Rule("topic", "dear", equals="math"),))
THRESHOLD = CandidateSpec("threshold", threshold=Threshold("dear", "cheap", 0.1))
VOWPAL = CandidateSpec("vowpal", learner=LearnerKind.VOWPAL_WABBIT)


def played(of: Log | list[Record], *specs: CandidateSpec, settings: EvaluationSettings = SETTINGS) -> Results:
    records = of.records if isinstance(of, Log) else of
    return play(Evaluation(router(), specs, settings), records).results()


def value(results: Results, name: str, metric: Metric = Metric.QUALITY) -> float:
    return results.candidate(name).value(metric)


def drawn(of: Log, name: str) -> list[Record]:
    return [each for each in of.records if each.decision.choice.model == name]


def test_a_fixed_model_is_worth_what_the_weighted_outcomes_of_its_calls_come_to() -> None:
    of = log(1, 700)
    results = played(of)
    weighted = [each.reports[0].reward / each.decision.choice.probability for each in drawn(of, "middle")]  # type: ignore[operator]
    quality = results.candidate("fixed:middle").estimates[Metric.QUALITY]
    assert quality.ips.candidate.value == pytest.approx(sum(weighted) / 700)
    assert quality.ips.live.value == pytest.approx(np.mean([each.reports[0].reward for each in of.records]))  # type: ignore[arg-type]
    assert value(results, "fixed:dear", Metric.COST_USD) == pytest.approx(0.012)
    assert value(results, "cheapest", Metric.COST_USD) == pytest.approx(0.001)
    assert value(results, "dearest", Metric.COST_USD) == pytest.approx(0.012)
    assert value(results, "uniform", Metric.COST_USD) == pytest.approx(COSTS.mean())
    assert (results.decisions, results.settled, results.pending) == (700, 700, 0)


def test_the_table_has_the_best_first_and_leaves_out_an_incumbent_that_nobody_named() -> None:
    of = log(2, 600)
    utilities = [each.value(Metric.UTILITY) for each in played(of).table()]
    assert utilities == sorted(utilities, reverse=True)
    assert "incumbent" not in [each.id for each in played(of).table()]
    named = [Record(replace(each.decision, incumbent_model="middle"), each.reports) for each in of.records]
    results = played(named)
    assert "incumbent" in [each.id for each in results.table()]
    assert value(results, "incumbent") == value(results, "fixed:middle")


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
    quality = value(results, "fixed:dear")
    assert value(results, "fixed:dear", Metric.UTILITY) == pytest.approx(quality - 10.0 * 0.012)


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


def test_an_outcome_before_its_answer_is_an_error_and_so_is_a_second_answer() -> None:
    first, second = log(13, 2).records
    evaluation = Evaluation(router(), [THRESHOLD])
    with pytest.raises(OrderError, match="before it was answered"):
        evaluation.on_report(first.reports[0], first.decision)
    with pytest.raises(OrderError, match="before it was answered"):
        close(evaluation, first)
    evaluation.on_decision(second.decision)
    for decision in (second.decision, first.decision):
        with pytest.raises(OrderError, match="answered before"):
            evaluation.on_decision(decision)
    with pytest.raises(OrderError, match="after it"):
        evaluation.on_report(replace(second.reports[0], seq=second.decision.seq), second.decision)


def test_an_answer_cannot_be_written_to() -> None:
    evaluation = Evaluation(router())
    evaluation.on_decision(log(14, 1).records[0].decision)
    pending = next(iter(evaluation._pending.values()))
    with pytest.raises(ValueError, match="read-only"):
        pending.answers[0, 0] = 0.0


def test_what_was_decided_before_the_evaluation_began_is_not_an_error_and_not_entered() -> None:
    early, late = log(15, 2).records
    evaluation = Evaluation(router(), from_seq=early.decision.seq)
    evaluation.on_report(early.reports[0], early.decision)
    play(evaluation, [late])
    assert evaluation.results().settled == 1


def test_names_that_stand_twice_or_pretend_to_be_a_comparator_are_refused() -> None:
    for specs in (
        [THRESHOLD, replace(THRESHOLD, policy="learned")],
        [CandidateSpec("uniform", policy="cheapest")],
        [CandidateSpec("fixed:new", policy="cheapest")],
    ):
        with pytest.raises(InvalidFieldError, match="stands twice"):
            Evaluation(router(), specs)
    same = CandidateSpec("uniform", policy="uniform")
    assert not play(Evaluation(router(), [same]), []).results().candidate("uniform").comparator


def test_pending_decisions_are_bounded_and_what_is_given_up_is_counted() -> None:
    records = log(16, 50).records
    evaluation = Evaluation(router(), settings=replace(SETTINGS, pending_max=20))
    for record in records:
        evaluation.on_decision(record.decision)
    for record in records:
        evaluation.on_report(record.reports[0], record.decision)
    results = evaluation.results()
    assert (results.evicted, results.settled, results.pending) == (30, 20, 0)


def test_a_model_that_joins_gets_its_comparator_and_one_that_leaves_loses_it() -> None:
    of = router()
    evaluation = Evaluation(replace(of, models=of.models[:2]), settings=SETTINGS)
    evaluation.on_registry(of)
    play(evaluation, log(17, 20).records)
    assert evaluation.results().candidate("fixed:dear").support.events == 20
    gone = replace(of, models=(*of.models[1:], model("new", 9)))
    evaluation.on_registry(gone)
    names = [each.id for each in evaluation.results().candidates]
    assert "fixed:cheap" not in names
    assert "fixed:new" in names


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


@pytest.mark.parametrize("field", ["cost_max_usd", "latency_max_seconds", "utility_loss_max"])
def test_limits_have_to_be_above_zero(field: str) -> None:
    with pytest.raises(InvalidFieldError, match=field):
        Limits(**{field: 0.0})


def delayed(evaluation: Evaluation, records: Sequence[Record], first: int, last: int, delay: int) -> None:
    """Steps from `first` to before `last`: a decision each, and the report on the one `delay` before."""
    for number in range(first, last):
        evaluation.on_decision(records[number].decision)
        if number >= delay:
            late = records[number - delay]
            seq = records[number].decision.seq + 1
            evaluation.on_report(replace(late.reports[0], seq=seq), late.decision)


def learned(state: bytes) -> dict[str, bytes]:
    """Vowpal Wabbit writes the same model down in more than one way, so it is told by what it answers."""
    return {name: each for name, each in bits(state).items() if "workspace" not in name}


@settings(max_examples=2, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(seed=st.integers(0, 1 << 30), cuts=st.lists(st.integers(0, 280), max_size=3), delay=st.integers(0, 40))
def test_killing_it_anywhere_changes_no_number(seed: int, cuts: list[int], delay: int) -> None:
    """Also with decisions pending, a batch half full, and learners of both kinds."""
    records = log(seed, 280).records
    specs = [RULED, THRESHOLD, VOWPAL]
    through = Evaluation(router(), specs, SETTINGS)
    delayed(through, records, 0, len(records), delay)
    stopped = Evaluation(router(), specs, SETTINGS)
    at = 0
    for cut in sorted(cuts):
        delayed(stopped, records, at, cut, delay)
        stopped.results()  # Asking changes nothing.
        stopped, at = Evaluation.restore(router(), specs, stopped.state(), SETTINGS), cut
    delayed(stopped, records, at, len(records), delay)
    assert stopped.results() == through.results()
    assert learned(stopped.state()) == learned(through.state())


def test_the_state_of_other_candidates_or_of_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    state = Evaluation(router(), [RULED]).state()
    with pytest.raises(ValueError, match="other candidates"):
        Evaluation.restore(router(), [], state)
    monkeypatch.setattr("policy.evaluation.STATE_VERSION", 99)
    with pytest.raises(ValueError, match="version"):
        Evaluation.restore(router(), [RULED], state)


def test_the_state_does_not_grow_with_the_log() -> None:
    records = log(20, 6 * EVENTS_IN_A_BATCH).records
    evaluation = Evaluation(router(), [RULED], SETTINGS)
    sizes = []
    for first in range(0, len(records), 2 * EVENTS_IN_A_BATCH):
        play(evaluation, records[first : first + 2 * EVENTS_IN_A_BATCH])
        sizes.append(len(evaluation.state()))
    assert max(sizes) - min(sizes) < 200


RUNS, COUNT = 300, 200


def truths(of: Log) -> dict[str, float]:
    """The mean utility that each candidate's answers have over this log's requests."""
    utilities = of.utilities()
    hard = np.array([each.decision.numeric["difficulty"] > 0 for each in of.records])
    found = {f"fixed:{name}": float(utilities[:, column].mean()) for column, name in enumerate(MODELS)}
    found["uniform"] = float(utilities.mean())
    found["ruled"] = float(np.where(hard, utilities[:, 2], utilities[:, 0]).mean())
    return found


def live_truth(of: Log) -> float:
    shares = [[each.probability for each in record.decision.choice.candidates] for record in of.records]
    return float((np.array(shares) * of.utilities()).sum(axis=1).mean())


def test_intervals_and_sequences_have_the_truth_as_often_as_they_say() -> None:
    """300 seeded runs. Of 300 intervals at 95 % fewer than 270 are right once in 10,000, and of the sequences,
    which are right at all times at once, more than 30 wrong even more rarely: in all a false alarm in 1,000.
    """
    x = np.linspace(-1.0, 1.0, 20_001)
    population = means_of(x) - COSTS / VALUE_USD
    means = {f"fixed:{name}": float(population[:, column].mean()) for column, name in enumerate(MODELS)}
    means["uniform"] = float(population.mean())
    means["ruled"] = float(np.where(x > 0, population[:, 2], population[:, 0]).mean())
    right, wrong = dict.fromkeys(means, 0), dict.fromkeys(means, 0)
    for seed in range(RUNS):
        of = log(seed, COUNT)
        results = played(of, RULED)
        truth, live = truths(of), live_truth(of)
        for name, mean in means.items():
            found = results.candidate(name)
            interval = found.estimates[Metric.UTILITY].dr.candidate.interval
            right[name] += interval.low <= mean <= interval.high
            sequence = found.sequences[Contrast(Metric.UTILITY)]
            wrong[name] += not sequence.low <= truth[name] - live <= sequence.high
    print("intervals right", right, "sequences wrong", wrong)
    assert min(right.values()) >= 270
    assert max(wrong.values()) <= 30


def test_a_worse_candidate_does_not_pass_the_gate_and_a_better_one_does() -> None:
    """20 runs of 1,200 decisions, the gate asked at four times. The worse one may pass with probability 0.025 a
    run: more than 4 in 20 come by chance once in 10,000. The better one, by 0.1, has to pass in half of them.
    """
    passed = {"fixed:cheap": 0, "fixed:dear": 0}
    for seed in range(20):
        evaluation = Evaluation(router(value=1.0), settings=SETTINGS)
        records = log(1000 + seed, 1200, least=0.15).records
        ever = dict.fromkeys(passed, False)
        for first in range(0, len(records), 300):
            play(evaluation, records[first : first + 300])
            results = evaluation.results()
            for name in passed:
                ever[name] |= results.candidate(name).verdict.outcome is Outcome.PASSED
        for name, each in ever.items():
            passed[name] += each
    print(passed)
    assert passed["fixed:cheap"] <= 4
    assert passed["fixed:dear"] >= 10


def test_two_candidates_are_told_apart_by_their_differences_to_the_live_policy() -> None:
    results = played(log(21, 3000))
    assert results.better(Metric.QUALITY, "fixed:dear", "fixed:cheap") is True
    assert results.better(Metric.QUALITY, "fixed:cheap", "fixed:dear") is False
    assert results.better(Metric.QUALITY, "fixed:dear", "fixed:dear") is None
    with pytest.raises(KeyError):
        results.candidate("nobody")
    assert set(DIFFERENCES) <= set(results.candidate("uniform").sequences)


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
