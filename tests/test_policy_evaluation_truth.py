"""Where the truth is known: intervals have it, a worse candidate does not pass, a better one does."""

from __future__ import annotations

import numpy as np
import pytest
from evaluation_logs import (
    COSTS,
    MODELS,
    RULED,
    SETTINGS,
    VALUE_USD,
    Log,
    log,
    means_of,
    play,
    played,
    router,
)

from policy.confidence import Contrast
from policy.evaluation import Evaluation
from policy.evidence import Metric
from policy.league import DIFFERENCES
from policy.verdict import Outcome

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
