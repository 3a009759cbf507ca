"""Pairs give what a candidate truly gains, do not touch the off-policy estimates, and notice wrong ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from evaluation_logs import COSTS, MODELS, Record, bits, close, log, means_of, play, router, told, with_choice

from policy.candidates import CandidateSpec
from policy.choices import Second
from policy.confidence import ConfidenceSequence
from policy.crosscheck import FALSE_ALARMS, Agreement
from policy.domain import FloatArray
from policy.evaluation import Evaluation
from policy.evidence import Metric
from policy.log import ReportRecord
from policy.paired import CandidatePairs, Difference, Paired

SHARE = 0.5
MIXED = CandidateSpec("mixed", policy="uniform")


def with_second(
    record: Record, generator: np.random.Generator, means: FloatArray, share: float = SHARE, **other: float
) -> Record:
    """The record with an offer of a second call, and what came of it if there was one; `means` are (models,)."""
    chosen = MODELS.index(record.decision.choice.model)
    pool = tuple(0.0 if each == chosen else 0.5 for each in range(len(MODELS)))
    called = generator.uniform() < share
    index = int(generator.choice(len(MODELS), p=pool))
    offer = Second(share, pool, float(COSTS.max()), MODELS[index] if called else "")
    found = with_choice(record, second=offer)
    if not called:
        return found
    reward = float(generator.uniform() < other.get(MODELS[index], float(means[index])))
    return replace(found, reports=(*found.reports, second_told(found, reward)))


def second_told(record: Record, reward: float, **rest: object) -> ReportRecord:
    """What is told of the second call after the decision's own."""
    model = record.decision.choice.second_model
    cost = float(COSTS[MODELS.index(model)])
    return replace(told(record.decision, reward, cost, served=model), second=True, **rest)  # type: ignore[arg-type]


def second_log(seed: int, count: int, share: float = SHARE, **other: float) -> tuple[list[Record], FloatArray]:
    """A log with second calls, and the true gains in utility of each model alone, (decisions, models)."""
    of = log(seed, count)
    generator = np.random.default_rng([seed, 1])
    records = [
        with_second(each, generator, means, share, **other)
        for each, means in zip(of.records, of.means, strict=True)
    ]
    utilities = of.utilities()
    propensities = np.array([[each.probability for each in of.decision.choice.candidates] for of in records])
    return records, utilities - (utilities * propensities).sum(axis=1, keepdims=True)


def found_of(records: Sequence[Record], *specs: CandidateSpec) -> Paired:
    return play(Evaluation(router(), specs), records).results().paired


def of(paired: Paired, name: str) -> CandidatePairs:
    return next(each for each in paired.candidates if each.id == name)


def utility(candidate: CandidatePairs) -> Difference:
    return next(each for each in candidate.differences if each.metric is Metric.UTILITY)


def test_intervals_and_sequences_have_the_true_gain_as_often_as_they_say_and_nothing_contradicts() -> None:
    """Of 40 runs with intervals of 95% fewer than 33 are right for a candidate in one of 4,000 cases, and that a
    sequence is ever wrong, or a check disagrees, is rarer than that it is wrong at the end.
    """
    right = dict.fromkeys(MODELS, 0)
    wrong = 0
    for seed in range(40):
        records, gains = second_log(seed, 200)
        found = found_of(records)
        assert found.disagreeing == ()
        for index, model in enumerate(MODELS):
            candidate = of(found, f"fixed:{model}")
            true = float(gains[:, index].mean())
            interval, sequence = utility(candidate).estimate.interval, utility(candidate).sequence
            right[model] += interval.low <= true <= interval.high
            wrong += not sequence.low <= true <= sequence.high
    assert min(right.values()) >= 33
    assert wrong <= 12


def test_the_propensities_have_no_part_in_what_pairs_say() -> None:
    """Neither the candidates' gains nor the models' differences change when all propensities are wrong."""
    records, _ = second_log(7, 300)
    other = [
        with_choice(
            each,
            probability=1.0 / 3.0,
            candidates=tuple(replace(of, probability=1.0 / 3.0) for of in each.decision.choice.candidates),
        )
        for each in records
    ]
    found, without = found_of(records), found_of(other)
    assert [each.differences for each in found.models] == [each.differences for each in without.models]
    for model in MODELS:
        assert of(found, f"fixed:{model}").differences == of(without, f"fixed:{model}").differences


def test_second_calls_are_no_events_of_the_off_policy_estimates() -> None:
    records, _ = second_log(3, 150)
    alone = [Record(each.decision, each.reports[:1]) for each in records]
    with_them = play(Evaluation(router(), [MIXED]), records).results()
    without = play(Evaluation(router(), [MIXED]), alone).results()
    assert repr(with_them.candidates) == repr(without.candidates)
    assert (with_them.settled, with_them.revised) == (150, 0)
    assert with_them.paired.pairs == sum(len(each.reports) == 2 for each in records)
    assert (without.paired.pairs, without.paired.waiting) == (0, with_them.paired.pairs)


def deterministic(seed: int, count: int) -> list[Record]:
    """Easy requests are served well by the cheap model alone and hard ones by the dear alone. The live policy
    sends them there, and logs that it had drawn among all alike.
    """
    generator = np.random.default_rng(seed)
    found = []
    for number, record in enumerate(log(seed, count).records):
        best = number % 2 * 2
        means = np.eye(len(MODELS))[best]
        candidates = tuple(replace(each, probability=1.0 / 3.0) for each in record.decision.choice.candidates)
        made = with_choice(record, model=MODELS[best], probability=1.0 / 3.0, candidates=candidates)
        own = replace(made, reports=(told(made.decision, 1.0, float(COSTS[best])),))
        found.append(with_second(own, generator, means))
    return found


def test_propensities_that_are_not_what_is_logged_are_noticed() -> None:
    """By single calls the cheap model is better than what is done; by pairs it is half as good, as it is."""
    found = found_of(deterministic(11, 600))
    cheap = of(found, "fixed:cheap")
    assert cheap.agreement is Agreement.DISAGREE
    assert "fixed:cheap" in found.disagreeing
    quality = next(each for each in cheap.checks if each.metric is Metric.QUALITY)
    assert quality.off_policy.value > 0.1
    assert cheap.differences[0].estimate.value == pytest.approx(-0.5, abs=0.1)
    assert quality.gap.high < 0.0


def test_they_are_said_to_agree_once_the_gap_is_known_to_be_small() -> None:
    records, _ = second_log(12, 500)
    early, late = found_of(records[:20]), found_of(records)
    for model in MODELS:
        assert of(early, f"fixed:{model}").agreement is Agreement.TOO_FEW
        assert of(late, f"fixed:{model}").agreement is Agreement.AGREE


def test_rewards_of_second_calls_by_other_standards_are_noticed() -> None:
    records, _ = second_log(5, 800, dear=0.0)
    assert "fixed:dear" in found_of(records).disagreeing


def test_a_check_is_wrong_as_rarely_as_it_says_at_most() -> None:
    """Each of its sequences is asked at a level that leaves both, for each metric, their part of the alarms."""
    asked: list[float | None] = []
    now = ConfidenceSequence.now

    def noted(self: ConfidenceSequence, level: float | None = None) -> object:
        asked.append(level)
        return now(self, level)

    records, _ = second_log(1, 60)
    evaluation = play(Evaluation(router()), records)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ConfidenceSequence, "now", noted)
        evaluation.results()
    levels = {round(1.0 - each, 9) for each in asked if each is not None}
    assert levels == {round(FALSE_ALARMS / 6.0, 9)}


def test_killing_it_anywhere_changes_no_number() -> None:
    """Also with pairs waiting, and batches half full; the reports come some decisions late."""
    records, _ = second_log(2, 330)

    def played(cuts: Sequence[int]) -> Evaluation:
        evaluation = Evaluation(router(), [MIXED])
        for number in range(len(records) + 9):
            if number in cuts:
                evaluation = Evaluation.restore(router(), [MIXED], evaluation.state())
            if number < len(records):
                evaluation.on_decision(records[number].decision)
            for delay, position in ((3, 0), (9, 1)):
                late = number - delay
                if 0 <= late < len(records) and len(records[late].reports) > position:
                    report = records[late].reports[position]
                    evaluation.on_report(replace(report, seq=10_000_000 + number), records[late].decision)
        return evaluation

    whole = played(())
    assert whole.results().paired.pairs > 100
    for cuts in ((0, 1, 40), (100, 101, 300, 338)):
        stopped = played(cuts)
        assert repr(stopped.results()) == repr(whole.results())
        assert bits(stopped.state()) == bits(whole.state())


def test_another_share_and_another_live_policy_begin_anew() -> None:
    first, _ = second_log(4, 80)
    later, _ = second_log(4, 160)
    generator = np.random.default_rng(0)
    means = means_of(np.zeros(1))[0]
    other = [with_second(each, generator, means, share=0.25) for each in log(4, 160).records[80:]]
    called = sum(bool(each.decision.choice.second_model) for each in other)
    found = found_of([*first, *other])
    assert (found.called, found.pairs) == (called, called)
    assert of(found, "fixed:dear").differences[0].pairs == called
    evaluation = play(Evaluation(router()), later)
    evaluation.restart(seq=1_000_000, promoted=False)
    assert evaluation.results().paired == Paired()


def only(records: Sequence[Record], count: int = 1) -> list[Record]:
    """The first records with a second call."""
    return [each for each in records if each.decision.choice.second_model][:count]


def test_a_second_call_of_which_nothing_is_told_is_no_pair() -> None:
    (record,) = only(second_log(6, 30)[0])
    evaluation = play(Evaluation(router()), [Record(record.decision, record.reports[:1])])
    assert evaluation.results().paired.waiting == 1
    close(evaluation, record)
    found = evaluation.results().paired
    assert (found.called, found.pairs, found.untold, found.waiting) == (1, 0, 1, 0)


def test_a_pair_in_which_another_model_stood_in_is_dropped() -> None:
    first, second = only(second_log(6, 60)[0], 2)
    own, theirs = first.reports
    stand_in = replace(own, subject="elsewhere", served_model="elsewhere")
    evaluation = play(Evaluation(router()), [replace(first, reports=(stand_in, theirs)), second])
    close(evaluation, first)
    found = evaluation.results().paired
    assert (found.pairs, found.dropped) == (1, 1)


def test_where_no_other_model_could_be_called_the_one_call_stands_for_both() -> None:
    """Of a candidate that has this model there is no difference; of another nothing is known."""
    made = [each for each in log(8, 400).records if each.decision.choice.model == "dear"]
    certain = Second(SHARE, (0.0, 0.0, 1.0), 0.012, "dear")
    found = found_of([with_choice(each, second=certain) for each in made])
    assert (found.called, found.pairs, found.models) == (0, 0, ())
    dear, cheap = of(found, "fixed:dear"), of(found, "fixed:cheap")
    assert [each.pairs for each in dear.differences] == [len(made)] * 3
    assert [each.estimate.value for each in dear.differences] == [0.0] * 3
    assert (dear.moves, dear.unsupported_mean) == (0.0, 0.0)
    assert (cheap.unsupported_mean, cheap.agreement) == (1.0, Agreement.UNSUPPORTED)


def test_a_candidate_that_hardly_ever_does_otherwise_has_no_interval_for_one_time() -> None:
    records, _ = second_log(9, 60, share=0.2)
    found = found_of(records)
    assert 0 < of(found, "fixed:dear").moves < 20
    assert utility(of(found, "fixed:dear")).estimate.interval.width == np.inf
    assert utility(of(found, "fixed:dear")).sequence.width < np.inf
