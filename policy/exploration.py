"""Turns scores into a distribution over models, and draws from it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from hashlib import blake2b

_GAMMA = 400.0


def gap_weight(rewards: int, strength: float) -> float:
    """The gamma of inverse gap weighting after so many rewards: it grows with their square root.

    `strength` 0 gives infinity, which is no exploration.
    """
    return math.inf if strength == 0 else _GAMMA * math.sqrt(rewards + 1.0) / strength


def inverse_gap_weighting(scores: Sequence[float], gamma: float) -> list[float]:
    """SquareCB's distribution (Foster and Rakhlin 2020): p = 1 / (K + gamma * gap), the best gets the rest.

    `scores` are in units of utility; -inf marks a model that cannot be chosen, and K counts the
    others. Plain floats: for a handful of models an array costs more than the sum.
    """
    best = max(scores)
    first = scores.index(best)
    result = [0.0] * len(scores)
    if math.isinf(gamma):
        result[first] = 1.0
        return result
    count = len(scores) - scores.count(-math.inf)
    total = 0.0
    for index, score in enumerate(scores):
        if index != first and score > -math.inf:
            probability = result[index] = 1.0 / (count + gamma * (best - score))
            total += probability
    result[first] = 1.0 - total
    return result


def limited(shares: Sequence[float], scores: Sequence[float], loss_max: float) -> list[float]:
    """The distribution with its expected loss of utility against the best score kept to `loss_max`.

    Where it would be more, all but the best are scaled down to meet it.
    """
    best = max(scores)
    loss = sum(share * (best - score) for share, score in zip(shares, scores, strict=True) if share)
    if loss <= loss_max:
        return list(shares)
    result = [loss_max / loss * share for share in shares]
    result[scores.index(best)] += 1.0 - loss_max / loss
    return result


def unit_draw(decision_id: str) -> float:
    """A number in [0, 1) that belongs to the decision: uniform over ids, the same for the same id."""
    digest = blake2b(decision_id.encode(), digest_size=8, person=b"pointsman.draw").digest()
    return (int.from_bytes(digest, "big") >> 11) * 2.0**-53


def draw(decision_id: str, probabilities: Sequence[float]) -> int:
    """The index drawn for this decision, by the number that belongs to it."""
    return picked(unit_draw(decision_id), probabilities)


def picked(threshold: float, probabilities: Sequence[float]) -> int:
    """The first index whose cumulated probability exceeds a threshold in [0, 1).

    Models of probability 0 are never picked, whatever rounding does to the sum.
    """
    cumulated = 0.0
    last = -1
    for index, probability in enumerate(probabilities):
        if probability <= 0.0:
            continue
        cumulated += probability
        last = index
        if threshold < cumulated:
            break
    return last
