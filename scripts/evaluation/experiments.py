"""The experiments: coverage, gate, power and ranking."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from policy.confidence import Contrast
from policy.domain import FloatArray
from policy.evidence import Metric
from policy.league import CandidateResult, Results
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
    interval = result.estimates[Metric.UTILITY].adr.candidate.interval
    return interval.low <= float(truth[_UTILITY]) <= interval.high


@dataclass(frozen=True, slots=True)
class Race:
    """One run over the whole file. Decisions are those after which something was first decided, None if never.

    `told_apart` is by quality, of a pair of candidates. `gains` are by how much each candidate is truly better
    than the live policy in utility, `passed` when it passed the gate. `taus` are of each group of candidates.
    """

    told_apart: int | None
    gains: dict[str, float]
    passed: dict[str, int]
    taus: tuple[float, ...]
    propensity_medians: tuple[float, ...]

    def nearest(self, gain: float) -> str:
        """The candidate whose gain is nearest to this."""
        return min(self.gains, key=lambda name: abs(self.gains[name] - gain))


def race(case: Case, seed: int, every: int, groups: Sequence[Sequence[str]], pair: tuple[str, str]) -> Race:
    """Plays the whole file. `groups` are of candidates whose order by utility is compared with the true one."""
    told_apart: int | None = None
    passed: dict[str, int] = {}
    for look in case.play(seed, len(case.rounds), every):
        results = look.evaluation.results()
        if told_apart is None and results.better(Metric.QUALITY, *pair) is not None:
            told_apart = look.decisions
        for each in results.table():
            if each.verdict.outcome is Outcome.PASSED:
                passed.setdefault(each.id, look.decisions)
    true = {name: float(mean[_UTILITY]) for name, mean in look.truth.items()}
    gains = {name: worth - float(look.live[_UTILITY]) for name, worth in true.items()}
    medians = tuple(float(each) for each in np.median(look.propensities, axis=0))
    return Race(told_apart, gains, passed, tuple(_tau(results, true, group) for group in groups), medians)


def _tau(results: Results, true: Mapping[str, float], group: Sequence[str]) -> float:
    estimated = [results.candidate(name).value(Metric.UTILITY) for name in group]
    return kendall_tau([true[name] for name in group], estimated)
