"""Ridge regression, one reward at a time: the linear Gaussian learner of quality."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from policy.domain import FloatArray
from policy.quality import ArrayState, Predictor, QualityLearner

_SLOPE_PRECISION = 20.0
_INTERCEPT_PRECISION = 1.0
_PENDING = 16


class RecursiveLeastSquares:
    """The exact ridge solution, updated with each example (Sherman and Morrison 1950).

    The inverse is kept as `base - v.T @ v`, with up to 16 rows in v before they are folded into the
    base: one matrix product instead of 16 rank-one updates of a matrix that does not fit the cache.
    Axes: features. The last feature is the intercept, which is shrunk less, towards `prior`.
    """

    def __init__(
        self,
        size: int,
        slope_precision: float,
        intercept_precision: float,
        prior: float,
    ) -> None:
        precision = np.full(size, slope_precision)
        precision[-1] = intercept_precision
        self.base: FloatArray = np.diag(1.0 / precision)
        self.pending: FloatArray = np.zeros((_PENDING, size))
        self.used = 0
        self.weights: FloatArray = np.zeros(size)
        self.weights[-1] = prior

    def predict(self, x: FloatArray) -> float:
        """The prediction for one example."""
        return float(self.weights @ x)

    def learn(self, x: FloatArray, target: float) -> None:
        """Learns one example."""
        gain = self._gain(x)
        scale = 1.0 + float(x @ gain)
        self.weights += gain * ((target - float(self.weights @ x)) / scale)
        self.pending[self.used] = gain / np.sqrt(scale)
        self.used += 1
        if self.used == _PENDING:
            self.base -= self.pending.T @ self.pending
            self.used = 0

    def revise(self, x: FloatArray, old: float, new: float) -> None:
        """Makes `new` the target of an example that was learned with `old`, whatever was learned since.

        The weights are P (L w0 + X' y), with the inverse P = (L + X' X)^-1, the prior's precision L and
        mean w0, the examples X and their targets y. P does not depend on y, so that one target more by
        d adds P x d. While all examples weigh the same, the result is what relearning would give; of an
        example that has been discounted since, d counts in full.
        """
        self.weights += self._gain(x) * (new - old)

    def _gain(self, x: FloatArray) -> FloatArray:
        """The inverse times x."""
        gain: FloatArray = self.base @ x
        if self.used:
            rows = self.pending[: self.used]
            gain -= (rows @ x) @ rows
        return gain

    def state(self) -> ArrayState:
        """Everything, for `restore`."""
        return {
            "base": self.base,
            "pending": self.pending,
            "used": np.array(self.used),
            "weights": self.weights,
        }

    def restore(self, state: ArrayState) -> None:
        """Takes back what `state` gave."""
        self.base, self.pending = state["base"].copy(), state["pending"].copy()
        self.used, self.weights = int(state["used"]), state["weights"].copy()


class LinearPredictor:
    """Predicts with fixed weights. Axes of `weights`: (models, features)."""

    def __init__(self, models: Sequence[str], weights: FloatArray, prior: float) -> None:
        self._rows = {model: weights[row] for row, model in enumerate(models)}
        self._prior = prior
        self._stacked: tuple[tuple[str, ...], FloatArray] = (tuple(models), weights)

    def predict(self, features: FloatArray, models: Sequence[str]) -> FloatArray:
        """Quality of each model; (models,) for one row of features, (rows, models) for many."""
        return features @ self._weights(tuple(models), features.shape[-1]).T

    def _weights(self, models: tuple[str, ...], size: int) -> FloatArray:
        if self._stacked[0] != models:
            unknown = np.zeros(size)
            unknown[-1] = self._prior
            rows = [self._rows.get(model, unknown) for model in models]
            self._stacked = (models, np.array(rows).reshape(len(models), size))
        return self._stacked[1]


class RidgeQuality(QualityLearner):
    """One ridge regression a model. A model without rewards is taken to be as good as can be."""

    prior = 1.0

    def __init__(self, size: int) -> None:
        self._size = size
        self._models: dict[str, RecursiveLeastSquares] = {}

    def add(self, model: str) -> None:
        self._models[model] = RecursiveLeastSquares(self._size, _SLOPE_PRECISION, _INTERCEPT_PRECISION, self.prior)

    def remove(self, model: str) -> None:
        del self._models[model]

    def learn(self, features: FloatArray, model: str, reward: float) -> None:
        self._models[model].learn(features, reward)

    def revise(self, features: FloatArray, model: str, old: float, new: float) -> None:
        self._models[model].revise(features, old, new)

    def predict(self, features: FloatArray, models: Sequence[str]) -> FloatArray:
        return np.asarray(features @ np.array([self._models[model].weights for model in models]).T)

    def predictor(self) -> Predictor:
        models = list(self._models)
        weights = np.array([self._models[model].weights for model in models])
        return LinearPredictor(models, weights.reshape(len(models), self._size), self.prior)

    def state(self) -> ArrayState:
        return {
            f"{model} {name}": array
            for model, learner in self._models.items()
            for name, array in learner.state().items()
        }

    def restore(self, state: ArrayState) -> None:
        self._models = {}
        for key in state:
            model, name = key.rsplit(" ", 1)
            if name == "base":
                self.add(model)
                parts = ("base", "pending", "used", "weights")
                self._models[model].restore({part: state[f"{model} {part}"] for part in parts})
