"""The ceiling: a linear learner that saw every outcome of the first part, its price tuned on the second."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from policy.domain import FloatArray

_STRENGTHS = (1.0, 3.0, 5.0, 10.0, 15.0, 20.0, 30.0, 50.0, 100.0, 300.0)
_FOLDS = 5
_COST_SHARE_MIN = 0.1
_STEPS = 60


@dataclass(frozen=True)
class Scores:
    """What is predicted of the measured rounds. Axes: (rounds, models); costs in USD."""

    quality: FloatArray
    cost_usd: FloatArray


@dataclass(frozen=True)
class Seen:
    """The first part with all its outcomes. Axes: `x` (rounds, features), the others (rounds, models)."""

    x: FloatArray
    quality: FloatArray
    cost_usd: FloatArray


def fit_scores(seen: Seen, at: FloatArray, seen_lengths: FloatArray, lengths: FloatArray) -> Scores:
    """Ridge for each model's quality, and another for its cost per query, at `at` (measured rounds, features).

    Features end in the constant 1, which is not shrunk. The lengths of the prompts, (rounds,), are a
    further feature of the cost. Each of the two ridges has its own strength, chosen by 5-fold
    cross-validation over all models. Costs are predicted as shares of the model's mean, and are at
    least a tenth of it.
    """
    mean_cost = np.maximum(seen.cost_usd.mean(axis=0), 1e-12)
    shares = seen.cost_usd / mean_cost
    scale = max(float(seen_lengths.std()), 1e-12)
    longer, longer_at = (
        np.column_stack([(each - seen_lengths.mean()) / scale, x])
        for each, x in ((seen_lengths, seen.x), (lengths, at))
    )
    predicted = ridge(longer, shares, best_strength(longer, shares), longer_at)
    return Scores(
        quality=ridge(seen.x, seen.quality, best_strength(seen.x, seen.quality), at),
        cost_usd=np.maximum(predicted, _COST_SHARE_MIN) * mean_cost,
    )


def ridge(x: FloatArray, targets: FloatArray, strength: float, at: FloatArray) -> FloatArray:
    """Predictions at `at` (rows, features) of a ridge on x (rows, features) and targets (rows, models)."""
    means = targets.mean(axis=0)
    penalty = np.full(x.shape[1], strength)
    penalty[-1] = 1e-6
    weights = np.linalg.solve(x.T @ x + np.diag(penalty), x.T @ (targets - means))
    return np.asarray(at @ weights + means)


def best_strength(x: FloatArray, targets: FloatArray) -> float:
    """The strength with the least squared error over five folds, taken by turns in the rows' order."""
    fold = np.arange(len(x)) % _FOLDS
    errors = []
    for strength in _STRENGTHS:
        missed = [
            targets[fold == each] - ridge(x[fold != each], targets[fold != each], strength, x[fold == each])
            for each in range(_FOLDS)
        ]
        errors.append(sum(float((part * part).sum()) for part in missed))
    return _STRENGTHS[int(np.argmin(errors))]


def choose_within(scores: Scores, cost_usd: FloatArray, budget_usd: float) -> list[int]:
    """Each round's model, at the lowest price of money whose real spend is within the budget.

    `cost_usd` (rounds, models) are the real costs: the price is tuned on the measured part's own
    spend. Where every price overspends, it is the cheapest choice by prediction.
    """
    rows = np.arange(len(cost_usd))

    def at(price: float) -> tuple[np.ndarray[tuple[int], np.dtype[np.intp]], float]:
        chosen = (scores.quality - price * scores.cost_usd / budget_usd).argmax(axis=1)
        return chosen, float(cost_usd[rows, chosen].mean())

    chosen, spent = at(0.0)
    if spent > budget_usd:
        chosen = at(_bisect(lambda price: at(price)[1] <= budget_usd))[0]
    return [int(each) for each in chosen]


def _bisect(enough: Callable[[float], bool]) -> float:
    """About the least price for which it is enough, by bisection of its logarithm."""
    low, high = 1e-9, 1e6
    for _ in range(_STEPS):
        middle = float(np.sqrt(low * high))
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
