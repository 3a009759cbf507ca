"""How far comparisons of pairs can be trusted, and what a second call is worth beside single ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from policy.crosscheck import Agreement
from policy.evidence import Metric
from policy.paired import Difference
from scripts.evaluation.truth import METRICS, Case

_UTILITY = METRICS.index(Metric.UTILITY)


@dataclass
class Tries:
    """Of one candidate, over runs: how many paired intervals there were at the end, and how many had the true gain
    in utility; how many sequences ever had not, how many checks ever disagreed; and the widths of the paired
    intervals, and in the same runs of those from single calls, of which `single_right` had the truth.
    """

    intervals: int = 0
    right: int = 0
    single_right: int = 0
    sequences: int = 0
    alarms: int = 0
    paired_widths: list[float] = field(default_factory=list)
    single_widths: list[float] = field(default_factory=list)


@dataclass
class Pairing:
    """What was found in so many runs, and how many pairs each had."""

    runs: int = 0
    pairs: list[int] = field(default_factory=list)
    candidates: dict[str, Tries] = field(default_factory=dict)


def pairing(case: Case, seeds: Sequence[int], count: int, every: int, on_run: Callable[[], object]) -> Pairing:
    """Plays the first `count` decisions of each seed; the truth is the mean gain in these very decisions."""
    found = Pairing()
    for seed in seeds:
        wrong: set[str] = set()
        alarmed: set[str] = set()
        for look in case.play(seed, count, every):
            results = look.evaluation.results()
            gains = {name: float((mean - look.live)[_UTILITY]) for name, mean in look.truth.items()}
            for each in results.paired.candidates:
                sequence = _utility(each.differences).sequence
                if not sequence.low <= gains[each.id] <= sequence.high:
                    wrong.add(each.id)
                if each.agreement is Agreement.DISAGREE:
                    alarmed.add(each.id)
        for each in results.paired.candidates:
            tries = found.candidates.setdefault(each.id, Tries())
            interval = _utility(each.differences).estimate.interval
            single = results.candidate(each.id).estimates[Metric.UTILITY].adr.difference.interval
            tries.sequences += each.id in wrong
            tries.alarms += each.id in alarmed
            if math.isinf(interval.width):
                continue  # Too few pairs tell of it.
            tries.intervals += 1
            tries.right += interval.low <= gains[each.id] <= interval.high
            tries.single_right += single.low <= gains[each.id] <= single.high
            tries.paired_widths.append(interval.width)
            tries.single_widths.append(single.width)
        found.runs += 1
        found.pairs.append(results.paired.pairs)
        on_run()
    return found


def _utility(differences: Sequence[Difference]) -> Difference:
    return next(each for each in differences if each.metric is Metric.UTILITY)
