"""Estimates what a candidate policy would earn and spend, from the decisions of the live one.

Inverse propensity scoring (IPS; Horvitz & Thompson 1952), its self-normalised form (SNIPS; Swaminathan &
Joachims 2015), the doubly robust estimate (DR; Dudik, Langford & Li 2011), and DR with weights that stabilise its
variance (ADR; Hadad, Hirshberg, Zhan, Wager & Athey 2021, "Confidence intervals for policy evaluation in adaptive
experiments"), each for the candidate, for the live policy on the same events, and for the difference, which is
paired: what both owe to the events cancels. Only sums are kept, so memory is constant.

Why ADR. A policy that learns draws a model less and less often once it is known to be worse. One late draw with
a probability of 0.0005 then outweighs all that was learned while it was drawn with 0.05: the value is that
draw's, and the central limit theorem says nothing of it. ADR counts an event by the inverse root of how large
the weights have lately been, which is known before the event. Its value is the mean over the events so counted:
the same mean as DR's where the candidate is worth the same at all times, and otherwise nearer to the times that
say most of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from policy.array_state import ArrayState
from policy.domain import FloatArray, InvalidFieldError, require_number
from policy.evidence import Events, Interval, LeftOut, Metric, running_total
from policy.sums import WEIGHT_LEVELS, Sum, Total, metric_terms, total_terms

LEVEL = 0.95
# Over how many events "lately" goes. From 50 to 200 it makes no difference on the logs that it was tried on.
_MEMORY = 100
# The central limit theorem says nothing of fewer decisions of the candidate's own, nor where the variance rests on
# fewer: then it is not known itself.
_EFFECTIVE_MIN = 20.0


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value and its interval, which holds at one time chosen beforehand, by the central limit theorem."""

    value: float
    interval: Interval


@dataclass(frozen=True, slots=True)
class Comparison:
    """One method's estimates of a metric's mean: of the candidate, of the live policy, and of their difference."""

    candidate: Estimate
    live: Estimate
    difference: Estimate


@dataclass(frozen=True, slots=True)
class MetricEstimates:
    """All that the events say of one metric, in its own unit.

    `adr` has no interval where the events are worth fewer than 20 decisions of the candidate's own, or the squared
    weights fewer than 20: where (sum w^2)^2 / sum w^4 is less.
    Where a candidate's probability is on models that the live policy never draws, IPS counts them as 0,
    SNIPS as the others, and DR as predicted.
    """

    metric: Metric
    events: int
    missing: int
    effective_sample_size: float
    ips: Comparison
    snips: Comparison
    dr: Comparison
    adr: Comparison


@dataclass(frozen=True, slots=True)
class Support:
    """How well the live policy's decisions cover the candidate's.

    `effective_sample_size` is (sum w)^2 / sum w^2 (Kish 1965), of the weights as ADR counts them. `weight_mean` is
    near 1 less `unsupported_mean` if the propensities are right. `tail_events` and `tail_share` are, for each
    of WEIGHT_LEVELS, how many weights are above it and their share of the sum of all weights.
    `unsupported_share` is the share of events in which the candidate has any probability on models that could
    not have been drawn, and `unsupported_mean` the mean of that probability.
    """

    events: int
    effective_sample_size: float
    weight_mean: float
    weight_max: float
    tail_events: tuple[int, ...]
    tail_share: tuple[float, ...]
    unsupported_share: float
    unsupported_mean: float
    left_out: Mapping[LeftOut, int]


class Estimators:
    """Takes events, one or many at a time to the same bits, and gives estimates at any time."""

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self.metrics = tuple(metrics)
        self._sums: FloatArray = np.zeros((len(self.metrics), len(Sum)))
        self._totals: FloatArray = np.zeros(len(Total) + 2 * len(WEIGHT_LEVELS))
        self._weight_max = 0.0
        # The mean of the largest weight that events could lately have had.
        self._spread = 0.0
        self._left_out = dict.fromkeys(LeftOut, 0)

    def add(self, events: Events) -> None:
        """Takes events; a metric that is missing in one is left out of that metric only.

        Batches of some thousands are fastest. Raises InvalidFieldError if the metrics are others.
        """
        if events.metrics != self.metrics:
            raise InvalidFieldError("events.metrics", f"must be {', '.join(self.metrics)}")
        if not len(events):
            return
        weights, counted = events.weights, self._counted(events.weight_max)
        terms = metric_terms(events, weights, counted)
        total = running_total(self._sums.reshape(-1), terms.reshape(len(events), -1))
        self._sums = total.reshape(self._sums.shape)
        self._totals = running_total(self._totals, total_terms(events, weights, counted))
        self._weight_max = max(self._weight_max, float(weights.max()))

    def leave_out(self, reason: LeftOut, count: int = 1) -> None:
        """Notes decisions that are no events."""
        self._left_out[reason] += count

    def _counted(self, weight_max: FloatArray) -> FloatArray:
        """What each event counts in ADR, by the events before it alone: (events,) to (events,).

        By the first only the first itself. An event whose largest weight is not known tells the next nothing.
        """
        spread, seen = self._spread, round(self._totals[Total.COUNT])
        counted = []
        for largest in weight_max.tolist():
            if math.isfinite(largest):
                spread = spread or largest
            counted.append(max(1.0, spread) ** -0.5)
            seen += 1
            if math.isfinite(largest):
                spread += (largest - spread) / min(seen, _MEMORY)
        self._spread = spread
        return np.array(counted)

    def estimates(self, metric: Metric, level: float = LEVEL) -> MetricEstimates:
        """What the events say of a metric, with intervals of this level. Without events the values are nan.

        Raises InvalidFieldError unless the level is in (0, 1), and ValueError for a metric it does not have.
        """
        require_number("level", level, 0.0, 1.0 - 1e-12, above=True)
        sums = self._sums[self.metrics.index(metric)].tolist()
        deviations = NormalDist().inv_cdf((1.0 + level) / 2.0)
        totals = self._totals.tolist()
        own = _effective(totals[Total.HW], totals[Total.HHWW])
        # Of a candidate that shares its calls evenly the first can be large, and the variance a few heavy events'.
        few = min(own, _effective(totals[Total.HHWW], totals[Total.HHHHWWWW])) < _EFFECTIVE_MIN
        return MetricEstimates(
            metric=metric,
            events=round(sums[Sum.COUNT]),
            missing=round(sums[Sum.MISSING]),
            effective_sample_size=_effective(sums[Sum.W], sums[Sum.WW]),
            ips=_ips(sums, deviations),
            snips=_snips(sums, deviations),
            dr=_doubly_robust(sums, deviations),
            adr=_adaptive(sums, math.inf if few else deviations),
        )

    def support(self) -> Support:
        """How well the candidate's decisions are covered. Means and shares are 0 while there are no events."""
        totals = self._totals.tolist()
        levels = len(WEIGHT_LEVELS)
        above, sums_above = totals[len(Total) : len(Total) + levels], totals[len(Total) + levels :]
        count, weight = totals[Total.COUNT], totals[Total.W]
        return Support(
            events=round(count),
            effective_sample_size=_effective(totals[Total.HW], totals[Total.HHWW]),
            weight_mean=weight / max(1.0, count),
            weight_max=self._weight_max,
            tail_events=tuple(round(each) for each in above),
            tail_share=tuple(each / weight if weight else 0.0 for each in sums_above),
            unsupported_share=totals[Total.UNSUPPORTED_EVENTS] / max(1.0, count),
            unsupported_mean=totals[Total.UNSUPPORTED] / max(1.0, count),
            left_out=dict(self._left_out),
        )

    def state(self) -> ArrayState:
        """Everything, for `restore`."""
        return {
            "sums": self._sums.copy(),
            "totals": self._totals.copy(),
            "weight_max": np.array([self._weight_max]),
            "spread": np.array([self._spread]),
            "left_out": np.array([self._left_out[reason] for reason in LeftOut]),
        }

    def restore(self, state: ArrayState) -> None:
        """Takes back what `state` gave, of estimators of the same metrics."""
        self._sums = np.array(state["sums"], dtype=np.float64)
        self._totals = np.array(state["totals"], dtype=np.float64)
        self._weight_max = float(state["weight_max"][0])
        self._spread = float(state["spread"][0])
        self._left_out = dict(zip(LeftOut, state["left_out"].tolist(), strict=True))


def _effective(weight: float, weight_squared: float) -> float:
    return weight * weight / weight_squared if weight_squared else 0.0


def _mean(count: float, total: float, squares: float, deviations: float) -> Estimate:
    """A mean by the central limit theorem, from the sum of the values and that of their squares."""
    if not count:
        return Estimate(math.nan, Interval())
    value = total / count
    return _estimate(value, squares - total * value, count, deviations)


def _estimate(value: float, squares: float, count: float, deviations: float) -> Estimate:
    """A mean with the sum of the squared deviations from it. One event alone has no interval."""
    if count < 2.0 or math.isinf(deviations):
        return Estimate(value, Interval())
    # Rounding may leave the squares a little below 0 where all values are the same.
    margin = deviations * math.sqrt(max(0.0, squares) / (count - 1.0) / count)
    return Estimate(value, Interval(value - margin, value + margin))


def _live(sums: Sequence[float], deviations: float) -> Estimate:
    return _mean(sums[Sum.COUNT], sums[Sum.Y], sums[Sum.YY], deviations)


def _ips(sums: Sequence[float], deviations: float) -> Comparison:
    """The mean of w y (Horvitz & Thompson 1952), and of (w - 1) y."""
    count = sums[Sum.COUNT]
    gap_squares = sums[Sum.WWYY] - 2.0 * sums[Sum.WYY] + sums[Sum.YY]
    return Comparison(
        candidate=_mean(count, sums[Sum.WY], sums[Sum.WWYY], deviations),
        live=_live(sums, deviations),
        difference=_mean(count, sums[Sum.WY] - sums[Sum.Y], gap_squares, deviations),
    )


def _snips(sums: Sequence[float], deviations: float) -> Comparison:
    """sum w y / sum w (Swaminathan & Joachims 2015), with the variance of a ratio by the delta method.

    An event moves the estimate v by w (y - v) / mean w, and the live mean m by y - m. The squares of the
    first, of the second, and of what they differ by are summed by multiplying out.
    """
    count, weight = sums[Sum.COUNT], sums[Sum.W]
    live = _live(sums, deviations)
    if not sums[Sum.WW]:  # Weights may be so small that their squares are 0.
        nothing = Estimate(math.nan, Interval())
        return Comparison(nothing, live, nothing)
    value, mean, weight_mean = sums[Sum.WY] / weight, live.value, weight / count
    squares = sums[Sum.WWYY] - 2.0 * value * sums[Sum.WWY] + value * value * sums[Sum.WW]
    squares = squares / weight_mean / weight_mean
    crossed = sums[Sum.WYY] - (value + mean) * sums[Sum.WY] + value * mean * weight
    crossed /= weight_mean
    live_squares = sums[Sum.YY] - count * mean * mean
    return Comparison(
        candidate=_estimate(value, squares, count, deviations),
        live=live,
        difference=_estimate(value - mean, squares - 2.0 * crossed + live_squares, count, deviations),
    )


def _doubly_robust(sums: Sequence[float], deviations: float) -> Comparison:
    """The mean of baseline + w (y - predicted) (Dudik, Langford & Li 2011); the live policy's has weights of 1."""
    count = sums[Sum.COUNT]
    return Comparison(
        candidate=_mean(count, sums[Sum.D], sums[Sum.DD], deviations),
        live=_mean(count, sums[Sum.L], sums[Sum.LL], deviations),
        difference=_mean(count, sums[Sum.D] - sums[Sum.L], sums[Sum.GG], deviations),
    )


def _adaptive(sums: Sequence[float], deviations: float) -> Comparison:
    """sum h d / sum h (Hadad et al. 2021), the variance from h (d - value); infinite deviations: no interval."""
    return Comparison(
        candidate=_weighted(sums, sums[Sum.HD], sums[Sum.HHD], sums[Sum.HHDD], deviations),
        live=_weighted(sums, sums[Sum.HL], sums[Sum.HHL], sums[Sum.HHLL], deviations),
        difference=_weighted(
            sums, sums[Sum.HD] - sums[Sum.HL], sums[Sum.HHD] - sums[Sum.HHL], sums[Sum.HHGG], deviations
        ),
    )


def _weighted(sums: Sequence[float], total: float, doubly: float, squares: float, deviations: float) -> Estimate:
    """A mean of values x from the sums of h x, of h^2 x and of (h x)^2."""
    count, weight = sums[Sum.COUNT], sums[Sum.H]
    if not count:
        return Estimate(math.nan, Interval())
    value = total / weight
    moved = squares - 2.0 * value * doubly + value * value * sums[Sum.HH]
    # As _estimate takes it: the squares of what each event moves the value by, times the number of events.
    return _estimate(value, moved * (count / weight) ** 2, count, deviations)
