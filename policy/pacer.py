"""The pacer: finds the price of money at which the policy spends its budget."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np

from policy.domain import Features, FloatArray
from policy.shares import PRICE_HIGH

_PLAN_MEMORY_DECISIONS = 500.0
_MEMORY_OUTCOMES = 500.0
_DEBT_MEMORY_DECISIONS = 2000.0
_DEBT_HORIZON_DECISIONS = 500.0
_DEBT_MAX, _SPREADS_MAX = 0.04 * _DEBT_HORIZON_DECISIONS, math.sqrt(_DEBT_HORIZON_DECISIONS)
_TARGET_MIN = 0.5
_RATIO_LOW, _RATIO_HIGH = 0.5, 2.0
_BIAS_LOW, _BIAS_HIGH = 0.8, 1.25
_OUTLIER = 50.0
_UNPLANNED_MAX = 2.0
_RAISED = 1.05
_MEAN_EVERY = 32

Solve = Callable[[float, float], tuple[float, float, float]]
"""The price of money, in utility per budget, at which the mean spend of a request meets a target, and the mean and
mean square of it at that price, in budgets; given the target and the last price.
"""


@dataclass
class Pacer:
    """Prices money so that the average spend meets the budget. All amounts are in budgets a request.

    Model-predictive: at each plan the price is solved for, on recent queries and under the policy's
    own distribution, instead of being stepped towards. Three corrections close the loop: how real
    costs compare with predicted ones, how decisions compare with the plan (which sees queries that
    were learned from already, and takes them for better known than new ones), and a debt that
    repays past over- or underspending slowly and within bounds. The bounds leave room for what
    chance does: where a few dear calls make up the spend, `spread` is large, and a debt cut off
    after each of them would never be repaid. They also leave room for one call of the dearest model,
    which may cost hundreds of budgets before `spread` has heard of it. Decisions in flight are owed at
    their prediction until real usage arrives. With `repays` off there is no debt: what was spent is
    then in the budget already, which is what is left of a period's.
    """

    price: float = 0.0
    debt: float = 0.0
    realised: float = 1.0
    predicted: float = 1.0
    spread: float = 0.0
    dearest: float = 0.0
    planned: float = 0.0
    expected_sum: float = 100.0
    planned_sum: float = 100.0
    repays: bool = True
    unplanned: float = 0.0
    patience: float = _UNPLANNED_MAX

    def commit(self, predicted: float, expected: float) -> None:
        """A decision was made at this predicted cost, `expected` over all that could have been drawn."""
        self.unplanned += expected - self.planned
        if self.planned > 0:
            keep = 1.0 - 1.0 / _PLAN_MEMORY_DECISIONS
            self.expected_sum = keep * self.expected_sum + min(expected, _OUTLIER)
            self.planned_sum = keep * self.planned_sum + self.planned
        keep = 1.0 - 1.0 / _DEBT_MEMORY_DECISIONS
        self._owe(keep * self.debt + predicted - 1.0)

    @property
    def due(self) -> bool:
        """Whether the decisions since the last plan were to spend some budgets more than it said.

        Where models are of about the same worth at the price of money, a little more that is learned moves
        many queries at once to a model that costs a hundred times as much. Where it is not the price that
        spends, but incumbents, sessions or requests that allow nothing cheaper, no plan helps: after each that
        was of no use, twice as much is waited for, until all goes by plan again.
        """
        return self.unplanned > self.patience

    def settle(self, predicted: float, real: float) -> None:
        """The real cost of a committed decision has become known."""
        self._owe(self.debt + real - predicted)
        if predicted > 0:
            keep = 1.0 - 1.0 / _MEMORY_OUTCOMES
            self.realised = keep * self.realised + min(real, _OUTLIER * predicted)
            self.predicted = keep * self.predicted + predicted

    def charge(self, real: float) -> None:
        """A further call of a settled decision has cost this. Where such calls are usual they are planned for."""
        self._owe(self.debt + real)
        self.realised += min(real, _OUTLIER)

    def rescale(self, factor: float) -> None:
        """The budget has become `factor` times what it was: the amounts stay the same in USD."""
        self.price = min(self.price * factor, PRICE_HIGH)
        for name in ("debt", "realised", "predicted", "expected_sum", "planned_sum", "planned", "unplanned"):
            setattr(self, name, getattr(self, name) / factor)

    def _owe(self, debt: float) -> None:
        if not self.repays:
            self.debt = 0.0
            return
        limit = _DEBT_MAX + max(self.spread * _SPREADS_MAX, self.dearest)
        self.debt = min(limit, max(-limit, debt))

    @property
    def realised_over_predicted(self) -> float:
        """How real costs compare with predicted ones, within bounds."""
        return min(_RATIO_HIGH, max(_RATIO_LOW, self.realised / self.predicted))

    @property
    def target(self) -> float:
        """The predicted spend to plan for."""
        ratio = self.realised_over_predicted
        ratio *= min(_BIAS_HIGH, max(_BIAS_LOW, self.expected_sum / self.planned_sum))
        return max(_TARGET_MIN, 1.0 - self.debt / _DEBT_HORIZON_DECISIONS) / ratio

    def plan(self, solve: Solve, dearest: float) -> None:
        """Solves for the price. `dearest` is the mean cost of a call of the dearest model."""
        self.dearest = dearest
        before = self.price
        self.price, mean, square = solve(self.target, before)
        if self.due and self.price <= _RAISED * before:
            self.patience *= 2.0
        elif self.unplanned <= _UNPLANNED_MAX:
            self.patience = _UNPLANNED_MAX
        self.unplanned = 0.0
        self.planned, self.spread = mean, math.sqrt(max(0.0, square - mean * mean))

    def state(self) -> dict[str, float]:
        """Everything: the fields by name."""
        return asdict(self)


class ContextWindow:
    """The most recent queries, for planning.

    Axes of `features`: (queries, features); of `input_tokens`: (queries,).
    """

    def __init__(self, features: int, size: int = 256) -> None:
        self.features: FloatArray = np.zeros((size, features))
        self.input_tokens: FloatArray = np.zeros(size)
        self.added = 0
        self._mean: tuple[int, FloatArray] | None = None

    def add(self, features: FloatArray | Features, input_tokens: float) -> None:
        """Puts one query in the place of the oldest."""
        row = self.added % len(self.features)
        self.features[row], self.input_tokens[row] = features, input_tokens
        self.added += 1

    def mean_features(self) -> FloatArray:
        """The mean of the queries' features (features,), as of one of the last 32 queries.

        Before the first, nothing but the intercept's 1.
        """
        if not self.added:
            blank = np.zeros(self.features.shape[1])
            blank[-1] = 1.0
            return blank
        if self._mean is None or self.added - self._mean[0] >= _MEAN_EVERY:
            self._mean = self.added, self.features[: len(self)].mean(axis=0)
        return self._mean[1]

    def __len__(self) -> int:
        return min(self.added, len(self.features))
