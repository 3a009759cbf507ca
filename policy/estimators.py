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
from enum import IntEnum
from statistics import NormalDist

import numpy as np

from policy.array_state import ArrayState
from policy.domain import FloatArray, InvalidFieldError, require_number
from policy.evidence import Events, Interval, LeftOut, Metric, running_total

LEVEL = 0.95
WEIGHT_LEVELS = (10.0, 100.0, 1000.0)
# Over how many events "lately" goes. From 50 to 200 it makes no difference on the logs that it was tried on.
_MEMORY = 100
# The central limit theorem says nothing of fewer decisions of the candidate's own, nor where the variance rests on
# fewer: then it is not known itself.
_EFFECTIVE_MIN = 20.0


class _Sum(IntEnum):
    """The sums kept of each metric: w is the weight, y the observed value, d and l are the doubly robust
    values of the candidate and of the live policy, g is d - l, h is what the event counts in ADR.
    """

    COUNT = 0
    W = 1
    WW = 2
    Y = 3
    YY = 4
    WY = 5
    WYY = 6
    WWY = 7
    WWYY = 8
    D = 9
    DD = 10
    L = 11
    LL = 12
    GG = 13
    H = 14
    HH = 15
    HD = 16
    HHD = 17
    HHDD = 18
    HL = 19
    HHL = 20
    HHLL = 21
    HHGG = 22
    MISSING = 23


class _Total(IntEnum):
    """The sums kept of all events. After these come, for each of WEIGHT_LEVELS, how many weights are above,
    and then their sums.
    """

    COUNT = 0
    W = 1
    WW = 2
    UNSUPPORTED = 3
    UNSUPPORTED_EVENTS = 4
    HW = 5
    HHWW = 6
    HHHHWWWW = 7


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
        self._sums: FloatArray = np.zeros((len(self.metrics), len(_Sum)))
        self._totals: FloatArray = np.zeros(len(_Total) + 2 * len(WEIGHT_LEVELS))
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
        terms = _metric_terms(events, weights, counted)
        total = running_total(self._sums.reshape(-1), terms.reshape(len(events), -1))
        self._sums = total.reshape(self._sums.shape)
        self._totals = running_total(self._totals, _total_terms(events, weights, counted))
        self._weight_max = max(self._weight_max, float(weights.max()))

    def leave_out(self, reason: LeftOut, count: int = 1) -> None:
        """Notes decisions that are no events."""
        self._left_out[reason] += count

    def _counted(self, weight_max: FloatArray) -> FloatArray:
        """What each event counts in ADR, by the events before it alone: (events,) to (events,).

        By the first only the first itself. An event whose largest weight is not known tells the next nothing.
        """
        spread, seen = self._spread, round(self._totals[_Total.COUNT])
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
        own = _effective(totals[_Total.HW], totals[_Total.HHWW])
        # Of a candidate that shares its calls evenly the first can be large, and the variance a few heavy events'.
        few = min(own, _effective(totals[_Total.HHWW], totals[_Total.HHHHWWWW])) < _EFFECTIVE_MIN
        return MetricEstimates(
            metric=metric,
            events=round(sums[_Sum.COUNT]),
            missing=round(sums[_Sum.MISSING]),
            effective_sample_size=_effective(sums[_Sum.W], sums[_Sum.WW]),
            ips=_ips(sums, deviations),
            snips=_snips(sums, deviations),
            dr=_doubly_robust(sums, deviations),
            adr=_adaptive(sums, math.inf if few else deviations),
        )

    def support(self) -> Support:
        """How well the candidate's decisions are covered. Means and shares are 0 while there are no events."""
        totals = self._totals.tolist()
        levels = len(WEIGHT_LEVELS)
        above, sums_above = totals[len(_Total) : len(_Total) + levels], totals[len(_Total) + levels :]
        count, weight = totals[_Total.COUNT], totals[_Total.W]
        return Support(
            events=round(count),
            effective_sample_size=_effective(totals[_Total.HW], totals[_Total.HHWW]),
            weight_mean=weight / max(1.0, count),
            weight_max=self._weight_max,
            tail_events=tuple(round(each) for each in above),
            tail_share=tuple(each / weight if weight else 0.0 for each in sums_above),
            unsupported_share=totals[_Total.UNSUPPORTED_EVENTS] / max(1.0, count),
            unsupported_mean=totals[_Total.UNSUPPORTED] / max(1.0, count),
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


def _metric_terms(events: Events, weights: FloatArray, counted: FloatArray) -> FloatArray:
    """What each event adds to the sums of each metric: (events, metrics, sums)."""
    present = ~np.isnan(events.observed)
    w, h, y = weights[:, None], counted[:, None], np.where(present, events.observed, 0.0)
    wy = w * y
    residual = y - events.predicted
    candidate = events.baseline + w * residual
    live = events.live_baseline + residual
    # The difference by itself: subtracting two sums would lose what is small in it.
    gap = events.baseline - events.live_baseline + (w - 1.0) * residual
    hd, hl, hg = h * candidate, h * live, h * gap
    terms: FloatArray = np.empty((*y.shape, len(_Sum)))
    columns: dict[_Sum, FloatArray | float] = {
        _Sum.COUNT: 1.0,
        _Sum.W: w,
        _Sum.WW: w * w,
        _Sum.Y: y,
        _Sum.YY: y * y,
        _Sum.WY: wy,
        _Sum.WYY: wy * y,
        _Sum.WWY: w * wy,
        _Sum.WWYY: wy * wy,
        _Sum.D: candidate,
        _Sum.DD: candidate * candidate,
        _Sum.L: live,
        _Sum.LL: live * live,
        _Sum.GG: gap * gap,
        _Sum.H: h,
        _Sum.HH: h * h,
        _Sum.HD: hd,
        _Sum.HHD: h * hd,
        _Sum.HHDD: hd * hd,
        _Sum.HL: hl,
        _Sum.HHL: h * hl,
        _Sum.HHLL: hl * hl,
        _Sum.HHGG: hg * hg,
        _Sum.MISSING: 0.0,
    }
    for column, values in columns.items():
        terms[..., column] = values
    terms[~present] = 0.0
    terms[~present, _Sum.MISSING] = 1.0
    return terms


def _total_terms(events: Events, weights: FloatArray, counted: FloatArray) -> FloatArray:
    """What each event adds to the totals: (events, totals)."""
    above = weights[:, None] > np.array(WEIGHT_LEVELS)
    unsupported = events.unsupported
    hw = counted * weights
    squares = hw * hw
    columns = (
        *(np.ones(len(events)), weights, weights * weights, unsupported, unsupported > 0.0),
        *(hw, squares, squares * squares),
    )
    return np.concatenate([np.stack(columns, axis=1), above, above * weights[:, None]], axis=1)


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
    return _mean(sums[_Sum.COUNT], sums[_Sum.Y], sums[_Sum.YY], deviations)


def _ips(sums: Sequence[float], deviations: float) -> Comparison:
    """The mean of w y (Horvitz & Thompson 1952), and of (w - 1) y."""
    count = sums[_Sum.COUNT]
    gap_squares = sums[_Sum.WWYY] - 2.0 * sums[_Sum.WYY] + sums[_Sum.YY]
    return Comparison(
        candidate=_mean(count, sums[_Sum.WY], sums[_Sum.WWYY], deviations),
        live=_live(sums, deviations),
        difference=_mean(count, sums[_Sum.WY] - sums[_Sum.Y], gap_squares, deviations),
    )


def _snips(sums: Sequence[float], deviations: float) -> Comparison:
    """sum w y / sum w (Swaminathan & Joachims 2015), with the variance of a ratio by the delta method.

    An event moves the estimate v by w (y - v) / mean w, and the live mean m by y - m. The squares of the
    first, of the second, and of what they differ by are summed by multiplying out.
    """
    count, weight = sums[_Sum.COUNT], sums[_Sum.W]
    live = _live(sums, deviations)
    if not sums[_Sum.WW]:  # Weights may be so small that their squares are 0.
        nothing = Estimate(math.nan, Interval())
        return Comparison(nothing, live, nothing)
    value, mean, weight_mean = sums[_Sum.WY] / weight, live.value, weight / count
    squares = sums[_Sum.WWYY] - 2.0 * value * sums[_Sum.WWY] + value * value * sums[_Sum.WW]
    squares = squares / weight_mean / weight_mean
    crossed = sums[_Sum.WYY] - (value + mean) * sums[_Sum.WY] + value * mean * weight
    crossed /= weight_mean
    live_squares = sums[_Sum.YY] - count * mean * mean
    return Comparison(
        candidate=_estimate(value, squares, count, deviations),
        live=live,
        difference=_estimate(value - mean, squares - 2.0 * crossed + live_squares, count, deviations),
    )


def _doubly_robust(sums: Sequence[float], deviations: float) -> Comparison:
    """The mean of baseline + w (y - predicted) (Dudik, Langford & Li 2011); the live policy's has weights of 1."""
    count = sums[_Sum.COUNT]
    return Comparison(
        candidate=_mean(count, sums[_Sum.D], sums[_Sum.DD], deviations),
        live=_mean(count, sums[_Sum.L], sums[_Sum.LL], deviations),
        difference=_mean(count, sums[_Sum.D] - sums[_Sum.L], sums[_Sum.GG], deviations),
    )


def _adaptive(sums: Sequence[float], deviations: float) -> Comparison:
    """sum h d / sum h (Hadad et al. 2021), the variance from h (d - value); infinite deviations: no interval."""
    return Comparison(
        candidate=_weighted(sums, sums[_Sum.HD], sums[_Sum.HHD], sums[_Sum.HHDD], deviations),
        live=_weighted(sums, sums[_Sum.HL], sums[_Sum.HHL], sums[_Sum.HHLL], deviations),
        difference=_weighted(
            sums, sums[_Sum.HD] - sums[_Sum.HL], sums[_Sum.HHD] - sums[_Sum.HHL], sums[_Sum.HHGG], deviations
        ),
    )


def _weighted(sums: Sequence[float], total: float, doubly: float, squares: float, deviations: float) -> Estimate:
    """A mean of values x from the sums of h x, of h^2 x and of (h x)^2."""
    count, weight = sums[_Sum.COUNT], sums[_Sum.H]
    if not count:
        return Estimate(math.nan, Interval())
    value = total / weight
    moved = squares - 2.0 * value * doubly + value * value * sums[_Sum.HH]
    # As _estimate takes it: the squares of what each event moves the value by, times the number of events.
    return _estimate(value, moved * (count / weight) ** 2, count, deviations)
