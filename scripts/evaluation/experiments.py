"""The experiments: coverage, gate, power and ranking."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from policy.confidence import Contrast
from policy.domain import FloatArray
from policy.evidence import Metric
from policy.league import CandidateResult
from policy.verdict import Outcome
from scripts.evaluation.truth import METRICS, Case, kendall_tau

_UTILITY = METRICS.index(Metric.UTILITY)


@dataclass
class Coverage:
    """How many runs' intervals of each candidate had the truth at the end, and how many sequences ever had not."""

    runs: int = 0
    intervals: dict[str, int] = field(default_factory=dict)
    sequences: dict[str, int] = field(default_factory=dict)
    worse: int = 0
    worse_passed: int = 0


def coverage(case: Case, seeds: Sequence[int], count: int, every: int, on_run: Callable[[], object]) -> Coverage:
    """Plays the first `count` decisions of each seed; the truth is the mean over these very decisions.

    A run of a candidate counts as `worse` if its true utility is below the live policy's at the end.
    """
    found = Coverage()
    for seed in seeds:
        wrong: dict[str, bool] = {}
        passed: dict[str, bool] = {}
        for look in case.play(seed, count, every):
            results = look.evaluation.results()
            gaps = {name: float((mean - look.live)[_UTILITY]) for name, mean in look.truth.items()}
            for each in results.table():
                sequence = each.sequences[Contrast(Metric.UTILITY)]
                wrong[each.id] = wrong.get(each.id, False) or not sequence.low <= gaps[each.id] <= sequence.high
                passed[each.id] = passed.get(each.id, False) or each.verdict.outcome is Outcome.PASSED
        for each in results.table():
            found.intervals[each.id] = found.intervals.get(each.id, 0) + _has(each, look.truth[each.id])
            found.sequences[each.id] = found.sequences.get(each.id, 0) + wrong[each.id]
            if gaps[each.id] < 0.0:
                found.worse += 1
                found.worse_passed += passed[each.id]
        found.runs += 1
        on_run()
    return found


def _has(result: CandidateResult, truth: FloatArray) -> bool:
    interval = result.estimates[Metric.UTILITY].dr.candidate.interval
    return interval.low <= float(truth[_UTILITY]) <= interval.high


@dataclass(frozen=True, slots=True)
class Race:
    """One run over the whole file. Decisions are those after which something was first decided, None if never.

    `told_apart` is by quality, between the second dearest and the cheapest model; `passed` is the gate of the
    candidate that is truly best, `gap` by how much it is better than the live policy in utility.
    """

    told_apart: int | None
    passed: int | None
    best: str
    gap: float
    tau: float
    propensity_medians: tuple[float, ...]


def race(case: Case, seed: int, every: int, ranked: Sequence[str], pair: tuple[str, str]) -> Race:
    """Plays the whole file. `ranked` are the candidates whose order by utility is compared with the true one."""
    told_apart: int | None = None
    passed: dict[str, int] = {}
    for look in case.play(seed, len(case.rounds), every):
        results = look.evaluation.results()
        if told_apart is None and results.better(Metric.QUALITY, *pair) is not None:
            told_apart = look.decisions
        for each in results.table():
            if each.verdict.outcome is Outcome.PASSED:
                passed.setdefault(each.id, look.decisions)
    true = [float(look.truth[name][_UTILITY]) for name in ranked]
    estimated = [results.candidate(name).value(Metric.UTILITY) for name in ranked]
    best = ranked[int(np.argmax(true))]
    gap = max(true) - float(look.live[_UTILITY])
    medians = tuple(float(each) for each in np.median(look.propensities, axis=0))
    return Race(told_apart, passed.get(best), best, gap, kendall_tau(true, estimated), medians)
