"""The policies: the learned one, and the baselines it is compared with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

from policy.policy_name import fixed_model, require_policy
from policy.quick import quick

if TYPE_CHECKING:
    from policy.exploration import Rules
    from policy.shares import Experience


@quick
@dataclass(frozen=True, slots=True)
class Outlook:
    """What a policy chooses by, for one query. Sequences are (models,).

    `scores` are utilities with the pacer's price in them; -inf marks an excluded model, and one at
    least is not. `experience` is what is known of each whatever the query. `money` is the price of money in
    utility per USD, `unit_usd` what a usual request may cost, `rules` how much is explored.
    """

    ids: tuple[str, ...]
    scores: Sequence[float]
    costs_usd: Sequence[float]
    experience: Experience
    money: float
    unit_usd: float
    rules: Rules

    def eligible(self, index: int) -> bool:
        """Whether the model may be chosen."""
        return self.scores[index] > -math.inf


class Policy(Protocol):
    """Gives the probability of each model; they sum to 1, and an excluded model has 0."""

    def __call__(self, outlook: Outlook) -> list[float]: ...


def learned(outlook: Outlook) -> list[float]:
    """Inverse gap weighting on the scores; burn-in of models that nothing is known of, trials of those that
    little is known of, retrials of fallen ones: see `policy.shares`.
    """
    from policy.shares import shares_of_one  # noqa: PLC0415 - a command that names policies compiles none

    scores, costs_usd = outlook.scores, outlook.costs_usd
    return shares_of_one(scores, costs_usd, outlook.experience, outlook.rules, outlook.money, outlook.unit_usd)


def greedy(outlook: Outlook) -> list[float]:
    """The best score, always."""
    return _only(outlook, outlook.scores.index(max(outlook.scores)))


def uniform(outlook: Outlook) -> list[float]:
    """Every eligible model alike."""
    possible = [outlook.eligible(index) for index in range(len(outlook.ids))]
    return [each / sum(possible) for each in possible]


def cheapest(outlook: Outlook) -> list[float]:
    """The model with the lowest predicted cost, always."""
    possible = [index for index in range(len(outlook.ids)) if outlook.eligible(index)]
    return _only(outlook, min(possible, key=outlook.costs_usd.__getitem__))


def dearest(outlook: Outlook) -> list[float]:
    """The model with the highest predicted cost, always."""
    possible = [index for index in range(len(outlook.ids)) if outlook.eligible(index)]
    return _only(outlook, max(possible, key=outlook.costs_usd.__getitem__))


@dataclass(frozen=True, slots=True)
class Fixed:
    """One model always; where it is excluded, the best score."""

    model: str

    def __call__(self, outlook: Outlook) -> list[float]:
        if self.model in outlook.ids:
            index = outlook.ids.index(self.model)
            if outlook.eligible(index):
                return _only(outlook, index)
        return greedy(outlook)


def _only(outlook: Outlook, chosen: int) -> list[float]:
    return [float(index == chosen) for index in range(len(outlook.ids))]


_NAMED: dict[str, Policy] = {
    "learned": learned,
    "greedy": greedy,
    "uniform": uniform,
    "cheapest": cheapest,
    "dearest": dearest,
}


@lru_cache(maxsize=1024)
def parse_policy(name: str) -> Policy:
    """The policy of this name. Raises InvalidFieldError."""
    require_policy(name)
    model = fixed_model(name)
    return _NAMED[name] if model is None else Fixed(model)
