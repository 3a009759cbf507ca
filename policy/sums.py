"""What is summed up of events, from which all estimates are made."""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from policy.domain import FloatArray
from policy.evidence import Events

WEIGHT_LEVELS = (10.0, 100.0, 1000.0)


class Sum(IntEnum):
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


class Total(IntEnum):
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


def metric_terms(events: Events, weights: FloatArray, counted: FloatArray) -> FloatArray:
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
    terms: FloatArray = np.empty((*y.shape, len(Sum)))
    columns: dict[Sum, FloatArray | float] = {
        Sum.COUNT: 1.0,
        Sum.W: w,
        Sum.WW: w * w,
        Sum.Y: y,
        Sum.YY: y * y,
        Sum.WY: wy,
        Sum.WYY: wy * y,
        Sum.WWY: w * wy,
        Sum.WWYY: wy * wy,
        Sum.D: candidate,
        Sum.DD: candidate * candidate,
        Sum.L: live,
        Sum.LL: live * live,
        Sum.GG: gap * gap,
        Sum.H: h,
        Sum.HH: h * h,
        Sum.HD: hd,
        Sum.HHD: h * hd,
        Sum.HHDD: hd * hd,
        Sum.HL: hl,
        Sum.HHL: h * hl,
        Sum.HHLL: hl * hl,
        Sum.HHGG: hg * hg,
        Sum.MISSING: 0.0,
    }
    for column, values in columns.items():
        terms[..., column] = values
    terms[~present] = 0.0
    terms[~present, Sum.MISSING] = 1.0
    return terms


def total_terms(events: Events, weights: FloatArray, counted: FloatArray) -> FloatArray:
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
