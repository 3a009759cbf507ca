"""What the learned policy would do on many queries at once, for the pacer's plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from policy.domain import Exploration, FloatArray
from policy.exploration import gap_weight
from policy.pacer import SpendAt
from policy.policies import (
    BURN_IN_BUDGET_SHARE,
    BURN_IN_PROBABILITY_MAX,
    CHEAP,
    RETRIAL_BUDGET_SHARE,
    TRIAL_BUDGET_SHARE,
    TRIAL_PROBABILITY,
    UNKNOWN_COST_PROBABILITY,
)


@dataclass(frozen=True)
class Outlooks:
    """As `policies.Outlook`, for many queries under whatever price of money; no model is excluded.

    Axes: `quality`, `costs_usd` (queries, models); the other columns (models,).
    """

    quality: FloatArray
    costs_usd: FloatArray
    costs_known: npt.NDArray[np.bool_]
    rewards: Sequence[int]
    tried: Sequence[int]
    fallen: FloatArray
    retrial: FloatArray
    doubts: FloatArray
    unit_usd: float
    rewards_total: int
    loss_max: float
    exploration: Exploration


def learned_shares(outlooks: Outlooks, money: float) -> FloatArray:
    """The probabilities that `policies.learned` gives each query: (queries, models)."""
    scores = outlooks.quality - money * outlooks.costs_usd
    shares = _inverse_gap_weighting(scores, gap_weight(outlooks.rewards_total, outlooks.exploration.strength))
    extras = _retrials(outlooks, scores), _trials(outlooks, scores, money), _burn_in(outlooks, scores, money)
    for extra in extras:
        if extra is not None:
            shares = shares * (1.0 - extra.sum(axis=1, keepdims=True)) + extra
    return _limited(shares, scores, outlooks.loss_max)


def spend_curve(outlooks: Outlooks, value_usd: float) -> SpendAt:
    """What the queries cost in budgets, which are `outlooks.unit_usd`, where quality is worth `value_usd`."""
    relative = outlooks.costs_usd / outlooks.unit_usd
    squares, rows = relative * relative, len(relative)

    def spend_at(price: float) -> tuple[float, float]:
        shares = learned_shares(outlooks, price / outlooks.unit_usd + 1.0 / value_usd)
        return float((shares * relative).sum()) / rows, float((shares * squares).sum()) / rows

    return spend_at


def _retrials(outlooks: Outlooks, scores: FloatArray) -> FloatArray | None:
    eagerness = min(1.0, outlooks.exploration.strength)
    if not outlooks.fallen.any() or not eagerness:
        return None
    best = scores.max(axis=1, keepdims=True)
    wanted = (outlooks.fallen > 0) & (scores + outlooks.fallen > best) & (best > scores)
    affordable = RETRIAL_BUDGET_SHARE * outlooks.unit_usd / np.maximum(outlooks.costs_usd, 1e-300)
    count = np.maximum(wanted.sum(axis=1, keepdims=True), 1)
    return np.asarray(eagerness * wanted * np.minimum(outlooks.retrial, affordable) / count)


def _trials(outlooks: Outlooks, scores: FloatArray, money: float) -> FloatArray | None:
    exploration, rewards, tried = outlooks.exploration, np.asarray(outlooks.rewards), np.asarray(outlooks.tried)
    few = (rewards >= exploration.burn_in_rewards) & (tried < exploration.trial_rewards) & outlooks.costs_known
    eagerness = min(1.0, exploration.strength)
    if not few.any() or not eagerness:
        return None
    best = scores.max(axis=1, keepdims=True)
    wanted = few & (scores < best) & (1.0 - money * outlooks.costs_usd > best)
    affordable = TRIAL_BUDGET_SHARE * outlooks.unit_usd / np.maximum(outlooks.costs_usd, 1e-300)
    count = np.maximum(wanted.sum(axis=1, keepdims=True), 1)
    return np.asarray(eagerness * wanted * np.minimum(TRIAL_PROBABILITY, affordable) / count)


def _inverse_gap_weighting(scores: FloatArray, gamma: float) -> FloatArray:
    best = scores.max(axis=1, keepdims=True)
    gap = best - scores
    others = np.zeros_like(scores) if np.isinf(gamma) else 1.0 / (scores.shape[1] + gamma * gap)
    firsts = np.arange(len(scores)), scores.argmax(axis=1)
    others[firsts] = 0.0
    others[firsts] = 1.0 - others.sum(axis=1)
    return np.asarray(others)


def _limited(shares: FloatArray, scores: FloatArray, loss_max: float) -> FloatArray:
    loss = (shares * (scores.max(axis=1, keepdims=True) - scores)).sum(axis=1, keepdims=True)
    scale = np.minimum(1.0, loss_max / np.maximum(loss, 1e-300))
    result = np.asarray(shares * scale)
    result[np.arange(len(scores)), scores.argmax(axis=1)] += 1.0 - scale[:, 0]
    return result


def _burn_in(outlooks: Outlooks, scores: FloatArray, money: float) -> FloatArray | None:
    few = np.asarray(outlooks.rewards) < outlooks.exploration.burn_in_rewards
    unknown = ~outlooks.costs_known
    if not few.any() and not outlooks.doubts.any() and not unknown.any():
        return None
    if unknown.any():
        whole = 1.0 if unknown.all() else UNKNOWN_COST_PROBABILITY
        return np.asarray(np.tile(whole * unknown / unknown.sum(), (len(scores), 1)))
    best = scores.max(axis=1, keepdims=True)
    behind, costs = best - scores, outlooks.costs_usd
    wanted = (few & (1.0 - money * costs > best)) | ((behind > 0) & (behind < outlooks.doubts))
    instead = np.take_along_axis(costs, scores.argmax(axis=1)[:, None], axis=1) * (outlooks.doubts > 0)
    inverse = wanted / np.maximum((costs - instead) / outlooks.unit_usd, CHEAP)
    inverses = np.maximum(inverse.sum(axis=1, keepdims=True), 1e-300)
    count = np.maximum(wanted.sum(axis=1, keepdims=True), 1)
    mass = np.minimum(BURN_IN_PROBABILITY_MAX, BURN_IN_BUDGET_SHARE * inverses / count)
    return np.asarray(mass * inverse / inverses)
