"""Holds what single calls say of a candidate, weighed by propensities, against what pairs of calls say of it.

Both are about what the candidate gains over the live policy in the decisions that offered a second call: whether
one was offered has nothing to do with what was drawn. So their difference, the gap, has a mean of 0, unless
propensities are not what they are logged as, or the two calls are not rewarded alike. Each has a confidence
sequence, right at all times at once and for any number of events: where the two do not meet, one of them is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from policy.array_state import ArrayState, part_of, prefixed
from policy.confidence import Bounds, ConfidenceSequence, Contrast
from policy.estimators import Estimate, Estimators
from policy.evidence import Events, Interval, Metric
from policy.pairs import PAIRED
from policy.settlement import METRICS

FALSE_ALARMS = 0.01
"""With what probability it is ever said of a candidate that the two contradict, when they do not."""

_LEVEL = 1.0 - FALSE_ALARMS / (2 * len(PAIRED))
_UNSUPPORTED_MAX = 0.01


class Agreement(StrEnum):
    """Whether the pairs and the single calls say the same.

    UNSUPPORTED: the candidate would choose models that are not drawn, or not called second, so that one of the two
    says nothing of it. TOO_FEW: the gap may still be more than half of what lies between the metric's bounds.
    AGREE says no more than that they do not contradict one another; how far apart they may be says the gap.
    """

    TOO_FEW = "too_few"
    UNSUPPORTED = "unsupported"
    AGREE = "agree"
    DISAGREE = "disagree"


@dataclass(frozen=True, slots=True)
class Check:
    """Of one metric. `off_policy` is what single calls say of the difference to the live policy, in the decisions
    that offered a second call, with an interval for one time. `gap` is the paired difference less that, at all
    times at once.
    """

    metric: Metric
    off_policy: Estimate
    gap: Interval
    agreement: Agreement


class SingleCalls:
    """What single calls say of a candidate in the decisions that offered a second call."""

    def __init__(self, bounds: Mapping[Metric, Bounds], level: float) -> None:
        self._bounds, self._level = bounds, level
        self._estimators = Estimators(METRICS)
        self._sequences = {
            metric: ConfidenceSequence(Contrast(metric), bounds[metric], level, keeps_narrowest=False)
            for metric in PAIRED
        }

    def add(self, events: Events) -> None:
        """Takes events of such decisions."""
        self._estimators.add(events)
        for sequence in self._sequences.values():
            sequence.add(events)

    def check(self, metric: Metric, paired: ConfidenceSequence, unsupported_mean: float) -> Check:
        """Holds it against the sequence of the paired difference."""
        ours, theirs = self._sequences[metric].now(_LEVEL), paired.now(_LEVEL)
        gap = Interval(theirs.low - ours.high, theirs.high - ours.low)
        much = (self._bounds[metric].high - self._bounds[metric].low) / 2.0
        support = self._estimators.support()
        off_policy = self._estimators.estimates(metric, self._level).adr.difference
        if not gap.low <= 0.0 <= gap.high:
            agreement = Agreement.DISAGREE
        elif max(support.unsupported_mean, unsupported_mean) > _UNSUPPORTED_MAX:
            agreement = Agreement.UNSUPPORTED
        elif max(-gap.low, gap.high) > much:
            agreement = Agreement.TOO_FEW
        else:
            agreement = Agreement.AGREE
        return Check(metric, off_policy, gap, agreement)

    def state(self) -> ArrayState:
        """Everything, for `restore`."""
        found = prefixed("estimators", self._estimators.state())
        for metric, sequence in self._sequences.items():
            found |= prefixed(f"{metric}", sequence.state())
        return found

    def restore(self, state: ArrayState) -> None:
        """Takes back what `state` gave."""
        self._estimators.restore(part_of(state, "estimators"))
        for metric, sequence in self._sequences.items():
            sequence.restore(part_of(state, f"{metric}"))
