"""The cheapest spend that reaches a share of the dearest model's quality."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise


def spend_reaching(points: Sequence[tuple[float, float]], quality: float) -> float | None:
    """The least mean spend in USD at which a frontier reaches this quality, None if it does not.

    `points` are measured (spend in USD, quality). Between two of them that follow each other in
    spend, any point of the chord can be had by sending a share of the requests to each, so the
    frontier is taken as linear in USD there.
    """
    ordered = sorted(points)
    if ordered[0][1] >= quality:
        return ordered[0][0]
    for (low, below), (high, above) in pairwise(ordered):
        if above >= quality > below:
            return low + (high - low) * (quality - below) / (above - below)
    return None
