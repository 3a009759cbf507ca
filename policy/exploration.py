"""How much is explored after so many rewards, and the draw from a distribution over models."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

from policy.domain import Exploration
from policy.quick import quick

_GAMMA = 400.0
_DRAW = blake2b(digest_size=8, person=b"pointsman.draw")


def gap_weight(rewards: int, strength: float) -> float:
    """The gamma of inverse gap weighting after so many rewards: it grows with their square root.

    `strength` 0 gives infinity, which is no exploration.
    """
    return math.inf if strength == 0 else _GAMMA * math.sqrt(rewards + 1.0) / strength


@quick
@dataclass(frozen=True, slots=True)
class Rules:
    """How much is explored: `gamma` of inverse gap weighting, the share of usual trials and retrials, for how many
    rewards a model is burnt in and on trial, and the most utility that exploring may give up on average.
    """

    gamma: float
    eagerness: float
    burn_in_rewards: float
    trial_rewards: float
    loss_max: float

    @classmethod
    def of(cls, exploration: Exploration, rewards_total: int, loss_max: float) -> Rules:
        """Those of a router that has learned so many rewards, where a decision may give up so much utility."""
        return cls(
            gap_weight(rewards_total, exploration.strength),
            min(1.0, exploration.strength),
            exploration.burn_in_rewards,
            exploration.trial_rewards,
            loss_max,
        )

    @property
    def numbers(self) -> tuple[float, float, float, float, float]:
        """As compiled code takes them."""
        return self.gamma, self.eagerness, self.burn_in_rewards, self.trial_rewards, self.loss_max


def unit_draw(decision_id: str) -> float:
    """A number in [0, 1) that belongs to the decision: uniform over ids, the same for the same id."""
    hashed = _DRAW.copy()
    hashed.update(decision_id.encode())
    return (int.from_bytes(hashed.digest(), "big") >> 11) * 2.0**-53


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
