"""Turns scores into a distribution over models, and draws from it."""

from __future__ import annotations

from hashlib import blake2b

import numpy as np

from policy.domain import FloatArray

_GAMMA = 100.0


def gap_weight(rewards: int, strength: float) -> float:
    """The gamma of inverse gap weighting after so many rewards: it grows with their square root.

    `strength` 0 gives infinity, which is no exploration.
    """
    return np.inf if strength == 0 else _GAMMA * float(np.sqrt(rewards + 1.0)) / strength


def inverse_gap_weighting(scores: FloatArray, gamma: float, max_utility_loss: float = np.inf) -> FloatArray:
    """SquareCB's distribution (Foster and Rakhlin 2020): p = 1 / (K + gamma * gap), the best gets the rest.

    Axes of `scores`: (..., models), in units of utility; -inf marks a model that cannot be chosen,
    and K counts the others. Where the expected utility given up would exceed `max_utility_loss`,
    all but the best are scaled down to meet it.
    """
    best = scores.max(axis=-1, keepdims=True)
    possible = scores > -np.inf
    gap = np.where(possible, best - scores, 0.0)
    if np.isinf(gamma):
        others = np.zeros_like(scores)
    else:
        others = 1.0 / (possible.sum(axis=-1, keepdims=True) + gamma * gap)
        others[~possible] = 0.0
    rows, columns = others.reshape(-1, scores.shape[-1]), scores.argmax(axis=-1).reshape(-1)
    firsts = np.arange(len(rows)), columns
    rows[firsts] = 0.0
    loss = (others * gap).sum(axis=-1, keepdims=True)
    others *= np.minimum(1.0, max_utility_loss / np.maximum(loss, 1e-300))
    rows[firsts] = 1.0 - rows.sum(axis=-1)
    return others


def unit_draw(decision_id: str) -> float:
    """A number in [0, 1) that belongs to the decision: uniform over ids, the same for the same id."""
    digest = blake2b(decision_id.encode(), digest_size=8, person=b"pointsman.draw").digest()
    return (int.from_bytes(digest, "big") >> 11) * 2.0**-53


def draw(decision_id: str, probabilities: FloatArray) -> int:
    """The index drawn for this decision: the first whose cumulated probability exceeds the decision's number.

    Models of probability 0 are never drawn, whatever rounding does to the sum.
    """
    threshold = unit_draw(decision_id)
    cumulated = 0.0
    last = -1
    for index, probability in enumerate(probabilities.tolist()):
        if probability <= 0.0:
            continue
        cumulated += probability
        last = index
        if threshold < cumulated:
            break
    return last
