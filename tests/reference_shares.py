"""The learned policy's distribution for many queries at once, in NumPy: written apart from `policy.shares`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from policy.domain import Exploration, FloatArray
from policy.exploration import gap_weight
from policy.shares import (
    BURN_IN_BUDGET_SHARE,
    BURN_IN_PROBABILITY_MAX,
    CHEAP,
    RETRIAL_BUDGET_SHARE,
    TRIAL_BUDGET_SHARE,
    TRIAL_PROBABILITY,
    UNKNOWN_COST_PROBABILITY,
)

_Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Outlooks:
    """As `policies.Outlook`, for many queries under whatever price of money; no model is excluded.

    Axes: `quality`, `costs_usd` (models, queries), since what is added up over some models for many queries is
    added up in whole rows; the other columns (models,).
    """

    quality: FloatArray
    costs_usd: FloatArray
    costs_known: _Mask
    rewards: Sequence[int]
    tried: Sequence[int]
    fallen: FloatArray
    retrial: FloatArray
    doubts: FloatArray
    unit_usd: float
    rewards_total: int
    loss_max: float
    exploration: Exploration


@dataclass(frozen=True, slots=True)
class _Scored:
    """The scores under one price of money, `best` and `first`, the place of the best (queries,), and how far
    behind it each model is, `gap` (models, queries).
    """

    scores: FloatArray
    money: float
    best: FloatArray
    first: npt.NDArray[np.intp]
    gap: FloatArray


class LearnedShares:
    """The probabilities that `policies.learned` gives each query, for one price of money after another."""

    def __init__(self, outlooks: Outlooks) -> None:
        self._outlooks = outlooks
        exploration = outlooks.exploration
        self._gamma = gap_weight(outlooks.rewards_total, exploration.strength)
        self._queries = np.arange(outlooks.quality.shape[1])
        rewards, tried = np.array(outlooks.rewards), np.array(outlooks.tried)
        self._burning = rewards < exploration.burn_in_rewards
        few = ~self._burning & (tried < exploration.trial_rewards) & outlooks.costs_known
        self._trial_chance = self._chance(few, TRIAL_PROBABILITY, TRIAL_BUDGET_SHARE)
        self._retrial_chance = self._chance(outlooks.fallen > 0, outlooks.retrial[:, None], RETRIAL_BUDGET_SHARE)
        self._few, self._fallen, self._doubts = few[:, None], outlooks.fallen[:, None], outlooks.doubts[:, None]

    def _chance(self, which: _Mask, probability: FloatArray | float, budget_share: float) -> FloatArray | None:
        """How probable it is at most to be tried, were a model the only one to be: (models, queries). None where
        there is none of `which` (models,).
        """
        eagerness = min(1.0, self._outlooks.exploration.strength)
        if not which.any() or not eagerness:
            return None
        affordable = budget_share * self._outlooks.unit_usd / np.maximum(self._outlooks.costs_usd, 1e-300)
        return np.asarray(eagerness * np.minimum(probability, affordable))

    def __call__(self, money: float) -> FloatArray:
        """(models, queries)"""
        scores = self._outlooks.quality - money * self._outlooks.costs_usd
        best = scores.max(axis=0)
        scored = _Scored(scores, money, best, scores.argmax(axis=0), best - scores)
        shares = self._inverse_gap_weighting(scored)
        for extra in (self._retrials(scored), self._trials(scored), self._burn_in(scored)):
            if extra is not None:
                shares = shares * (1.0 - extra.sum(axis=0)) + extra
        return self._limited(shares, scored)

    def _inverse_gap_weighting(self, scored: _Scored) -> FloatArray:
        firsts = scored.first, self._queries
        if np.isinf(self._gamma):
            others = np.zeros_like(scored.scores)
        else:
            with np.errstate(over="ignore"):  # Next to no exploration, of what is far worse, is none.
                others = 1.0 / (len(scored.scores) + self._gamma * scored.gap)
            others[firsts] = 0.0
        others[firsts] = 1.0 - others.sum(axis=0)
        return others

    def _retrials(self, scored: _Scored) -> FloatArray | None:
        if self._retrial_chance is None:
            return None
        wanted = (self._fallen > 0) & (scored.scores + self._fallen > scored.best) & (scored.gap > 0)
        return np.asarray(wanted * self._retrial_chance / np.maximum(wanted.sum(axis=0), 1))

    def _trials(self, scored: _Scored) -> FloatArray | None:
        if self._trial_chance is None:
            return None
        perfect = 1.0 - scored.money * self._outlooks.costs_usd
        wanted = self._few & (scored.gap > 0) & (perfect > scored.best)
        return np.asarray(wanted * self._trial_chance / np.maximum(wanted.sum(axis=0), 1))

    def _burn_in(self, scored: _Scored) -> FloatArray | None:
        costs, unknown = self._outlooks.costs_usd, ~self._outlooks.costs_known
        if unknown.any():
            whole = 1.0 if unknown.all() else UNKNOWN_COST_PROBABILITY
            return np.asarray(np.tile((whole * unknown / unknown.sum())[:, None], (1, costs.shape[1])))
        if not self._burning.any() and not self._doubts.any():
            return None
        hopeful = self._burning[:, None] & (1.0 - scored.money * costs > scored.best)
        wanted = hopeful | ((scored.gap > 0) & (scored.gap < self._doubts))
        instead = costs[scored.first, self._queries] * (self._doubts > 0)
        inverse = wanted / np.maximum((costs - instead) / self._outlooks.unit_usd, CHEAP)
        inverses = np.maximum(inverse.sum(axis=0), 1e-300)
        count = np.maximum(wanted.sum(axis=0), 1)
        mass = np.minimum(BURN_IN_PROBABILITY_MAX, BURN_IN_BUDGET_SHARE * inverses / count)
        return np.asarray(mass * inverse / inverses)

    def _limited(self, shares: FloatArray, scored: _Scored) -> FloatArray:
        loss_max = self._outlooks.loss_max
        loss = (shares * scored.gap).sum(axis=0)
        if loss.max() <= loss_max:
            return shares
        scale = np.minimum(1.0, loss_max / np.maximum(loss, 1e-300))
        result = np.asarray(shares * scale)
        result[scored.first, self._queries] += 1.0 - scale
        return result
