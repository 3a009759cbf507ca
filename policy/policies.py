"""The policies: the learned one, and the baselines it is compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from policy.domain import Exploration, FloatArray, InvalidFieldError, require_model_id
from policy.exploration import gap_weight, inverse_gap_weighting


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a policy chooses by, for one query. Arrays are (models,).

    For planning `scores` and `costs_usd` may be (queries, models), each row excluding the same models.
    `scores` are utilities with the pacer's price in them; -inf marks an excluded model. `money` is
    the price of money in utility per USD, `unit_usd` what a usual request may cost.
    """

    ids: tuple[str, ...]
    scores: FloatArray
    costs_usd: FloatArray
    costs_known: FloatArray
    rewards: FloatArray
    money: float
    unit_usd: float
    rewards_total: int
    exploration: Exploration


class Policy(Protocol):
    """Gives the probability of each model; they sum to 1, and an excluded model has 0."""

    def __call__(self, outlook: Outlook) -> FloatArray: ...


def learned(outlook: Outlook) -> FloatArray:
    """Inverse gap weighting on the scores, with a burn-in of models that little is known of."""
    exploration = outlook.exploration
    gamma = gap_weight(outlook.rewards_total, exploration.strength)
    usual = inverse_gap_weighting(outlook.scores, gamma, exploration.max_utility_loss)
    trial = burn_in(outlook)
    if trial is None:
        return usual
    return np.asarray(usual * (1.0 - trial.sum(axis=-1, keepdims=True)) + trial)


_BURN_IN_PROBABILITY_MAX = 0.5
_BURN_IN_BUDGET_SHARE = 0.05
_CHEAP = 0.05
_UNKNOWN_COST_PROBABILITY = 0.2


def burn_in(outlook: Outlook) -> FloatArray | None:
    """Extra probability for models with fewer rewards than the burn-in, the cheap ones first.

    Only for a model that would be the best if it were perfect, and with an expected cost of at most
    5 % of a usual request: a model 500 times as dear as that is tried once in 10,000 requests, not
    ten times in a row. A model of unknown cost is tried in a fifth of the requests until it is known.
    None where there is nothing to try.
    """
    few = outlook.rewards < outlook.exploration.burn_in_rewards
    if not few.any() and outlook.costs_known.all():
        return None
    possible = outlook.scores > -np.inf
    unknown = possible & ~outlook.costs_known.astype(bool)
    if unknown.any():
        whole = 1.0 if (unknown == possible).all() else _UNKNOWN_COST_PROBABILITY
        return np.asarray(whole * unknown / unknown.sum(axis=-1, keepdims=True))
    best = outlook.scores.max(axis=-1, keepdims=True)
    wanted = possible & few & (1.0 - outlook.money * outlook.costs_usd > best)
    if not wanted.any():
        return None
    relative = np.maximum(outlook.costs_usd / outlook.unit_usd, _CHEAP)
    trial = wanted / relative
    trial *= _BURN_IN_PROBABILITY_MAX / np.maximum(trial.sum(axis=-1, keepdims=True), 1e-300)
    spend = np.maximum((trial * relative).sum(axis=-1, keepdims=True), 1e-300)
    return np.asarray(trial * np.minimum(1.0, _BURN_IN_BUDGET_SHARE / spend))


def greedy(outlook: Outlook) -> FloatArray:
    """The best score, always."""
    return _only(outlook, outlook.scores)


def uniform(outlook: Outlook) -> FloatArray:
    """Every eligible model alike."""
    possible = np.isfinite(outlook.scores)
    return np.asarray(possible / possible.sum())


def cheapest(outlook: Outlook) -> FloatArray:
    """The model with the lowest predicted cost, always."""
    return _only(outlook, np.where(np.isfinite(outlook.scores), -outlook.costs_usd, -np.inf))


@dataclass(frozen=True, slots=True)
class Fixed:
    """One model always; where it is excluded, the best score."""

    model: str

    def __call__(self, outlook: Outlook) -> FloatArray:
        if self.model in outlook.ids:
            index = outlook.ids.index(self.model)
            if np.isfinite(outlook.scores[index]):
                return np.asarray(np.arange(len(outlook.ids)) == index, dtype=np.float64)
        return greedy(outlook)


def _only(outlook: Outlook, values: FloatArray) -> FloatArray:
    return np.asarray(np.arange(len(outlook.ids)) == values.argmax(), dtype=np.float64)


_NAMED: dict[str, Policy] = {
    "learned": learned,
    "greedy": greedy,
    "uniform": uniform,
    "cheapest": cheapest,
}


def parse_policy(name: str) -> Policy:
    """The policy of this name. Raises InvalidFieldError."""
    if name.startswith("fixed:"):
        require_model_id("policy", name.removeprefix("fixed:"))
        return Fixed(name.removeprefix("fixed:"))
    if name not in _NAMED:
        raise InvalidFieldError(
            "policy",
            f"must be one of {', '.join(_NAMED)} or fixed:MODEL, not {name[:80]!r}",
        )
    return _NAMED[name]
