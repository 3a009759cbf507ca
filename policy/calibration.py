"""The threshold at which a strong model gets a wanted share of the queries, as RouteLLM calibrates its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from policy.domain import FloatArray, InvalidFieldError, require_number

_DECIMALS = 6


@dataclass(frozen=True, slots=True)
class Calibrated:
    """A threshold: `share` of the queries have a predicted quality gap of `gap` or more. The others are means over
    all queries of what is predicted of the model that is called then.
    """

    gap: float
    share: float
    quality: float
    cost_usd: float


def calibrate(
    strong_quality: FloatArray,
    weak_quality: FloatArray,
    strong_usd: FloatArray,
    weak_usd: FloatArray,
    shares: Sequence[float],
) -> list[Calibrated]:
    """One threshold for each share in (0, 1), from the predictions of both models; all arrays are (queries,).

    The gap lies in the middle between the two queries that it parts; where many have the same, the share is the
    nearest that there is. Raises InvalidFieldError for another share, and without any query.
    """
    if not len(strong_quality):
        raise InvalidFieldError("decisions", "must be at least one in which both models could be chosen")
    gaps = strong_quality - weak_quality
    found = []
    for share in shares:
        require_number("share", share, 0.0, 1.0, above=True)
        gap = _gap(np.sort(gaps), share)
        strong = gaps >= gap
        quality = float(np.where(strong, strong_quality, weak_quality).mean())
        found.append(
            Calibrated(gap, float(strong.mean()), quality, float(np.where(strong, strong_usd, weak_usd).mean()))
        )
    return found


def _gap(ascending: FloatArray, share: float) -> float:
    """Of all the places between two different gaps, and before and after all of them, the one that parts best."""
    below = np.concatenate([ascending[:1] - 1e-3, ascending])
    above = np.concatenate([ascending, ascending[-1:] + 1e-3])
    places = np.round((below + above) / 2.0, _DECIMALS)
    shares = 1.0 - np.searchsorted(ascending, places, side="left") / len(ascending)
    return float(np.clip(places[np.argmin(np.abs(shares - share))], -1.0, 1.0))
