"""How strongly the best is preferred after so many rewards, and the draw from a distribution over models."""

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
