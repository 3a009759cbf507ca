"""The linear Gaussian learner of quality, by ridge regression."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from policy.array_state import ArrayState
from policy.compiled import compiled
from policy.domain import FloatArray
from policy.quality import Parts, Predictor, QualityLearner
from policy.regression import RecursiveLeastSquares, learn_both, precisions

_SLOPE_PRECISION = 30.0
_INTERCEPT_PRECISION = 1.0
_SHARED_PRECISION = 120.0
_DIFFICULTY_PRECISION = 0.5


class LinearPredictor:
    """Predicts with fixed weights.

    Axes: `own` (models, 1 + features), of the difficulty and then the features; `shared` (features,), of the
    difficulty; `unknown` (1 + features,), the own weights of any other model.
    """

    def __init__(self, models: Sequence[str], own: FloatArray, shared: FloatArray, unknown: FloatArray) -> None:
        self._models, self._rows = tuple(models), own
        self._own = {model: own[row] for row, model in enumerate(models)}
        self._shared = shared
        self._unknown = unknown
        self._stacked: tuple[tuple[str, ...], FloatArray] = (tuple(models), _whole(own, shared))

    def predict(self, features: FloatArray, models: Sequence[str]) -> FloatArray:
        """Quality of each model; (models,) for one row of features, (rows, models) for many."""
        weights = self._weights(tuple(models))
        if features.ndim > 1:
            return features @ weights.T
        quality = np.empty(len(weights))
        _products(weights, features, quality)
        return quality

    def parts(self, features: FloatArray, models: Sequence[str]) -> Parts:
        """What each model's `predict` is the sum of, for one row of features."""
        own = self._own_weights(models)
        return Parts((1.0 + own[:, 0]) * float(self._shared @ features), own[:, 1:] * features)

    def state(self) -> ArrayState:
        """Everything, for `restored`."""
        models = np.array(self._models, dtype=np.str_)
        return {"models": models, "own": self._rows, "shared": self._shared, "unknown": self._unknown}

    @classmethod
    def restored(cls, state: ArrayState) -> LinearPredictor:
        """The predictor that gave `state`."""
        models = [str(model) for model in state["models"]]
        return cls(models, state["own"], state["shared"], state["unknown"])

    def _weights(self, models: tuple[str, ...]) -> FloatArray:
        if self._stacked[0] != models:
            self._stacked = (models, _whole(self._own_weights(models), self._shared))
        return self._stacked[1]

    def _own_weights(self, models: Sequence[str]) -> FloatArray:
        rows = [self._own.get(model, self._unknown) for model in models]
        return np.array(rows).reshape(len(models), len(self._unknown))


@dataclass
class _Own:
    """What one model's rewards have taught: its regression, of the difficulty and then the features, and
    the sum and number of its rewards, the prior's one reward of 1 among them.
    """

    regression: RecursiveLeastSquares
    count: float = 1.0
    total: float = 1.0


class RidgeQuality(QualityLearner):
    """Ridge regressions: one of how hard a query is, for all models, and one of each model on top of it.

    Most of what can be told from a query is whether it is hard for everybody. So the first learns, from
    all rewards, by how much they lie above the mean of their model: the query's difficulty d(x), without
    an intercept. A model's own regression learns what is left, reward - d(x), from the features and from
    d(x) itself, since strong models suffer less from difficulty than weak ones. Both are linear, hence so
    is their sum: (1 + a) d + w. Few rewards of a model then suffice to tell it apart from the others.
    A model without rewards is taken to be as good as can be, and to find hard what the others do.
    """

    prior = 1.0

    def __init__(self, size: int) -> None:
        self._size = size
        # Not of the last feature, which is 1: the difficulty has no intercept.
        self._shared = RecursiveLeastSquares(np.full(size - 1, _SHARED_PRECISION), 0.0)
        self._models: dict[str, _Own] = {}

    def add(self, model: str) -> None:
        precision = precisions(1 + self._size, _SLOPE_PRECISION, _INTERCEPT_PRECISION)
        precision[0] = _DIFFICULTY_PRECISION
        self._models[model] = _Own(RecursiveLeastSquares(precision, self.prior))

    def remove(self, model: str) -> None:
        del self._models[model]

    def rename(self, names: Mapping[str, str]) -> None:
        self._models = {names[model]: own for model, own in self._models.items()}

    def learn(self, features: FloatArray, model: str, reward: float) -> None:
        own = self._models[model]
        own.count += 1.0
        own.total += reward
        learn_both(self._shared, own.regression, features, reward - own.total / own.count, reward)

    def revise(self, features: FloatArray, model: str, old: float, new: float) -> None:
        """The model's own regression takes the whole correction, exactly. The difficulty stays, which is but
        what rewards are compared with: own weights that were fitted to rewards less one difficulty and
        then added to another would be further from relearning.
        """
        own = self._models[model]
        own.total += new - old
        difficulty = self._shared.predict(features[:-1])
        own.regression.revise(np.append(difficulty, features), old, new)

    def expected(self, features: FloatArray, model: str) -> float:
        expected: float = _expected(self._models[model].regression.weights, self._shared.weights, features)
        return expected

    def predict(self, features: FloatArray, models: Sequence[str]) -> FloatArray:
        return np.asarray(features @ _whole(self._own_weights(models), self._difficulty()).T)

    def predictor(self) -> Predictor:
        models = list(self._models)
        unknown = np.zeros(1 + self._size)
        unknown[-1] = self.prior
        return LinearPredictor(models, self._own_weights(models), self._difficulty(), unknown)

    def _difficulty(self) -> FloatArray:
        """The weights of the difficulty: (features,), 0 for the intercept."""
        weights = np.zeros(self._size)
        weights[:-1] = self._shared.weights
        return weights

    def _own_weights(self, models: Sequence[str]) -> FloatArray:
        """The weights of each model's own regression: (models, 1 + features)."""
        own = np.empty((len(models), 1 + self._size))
        for row, model in enumerate(models):
            own[row] = self._models[model].regression.weights
        return own

    def state(self) -> ArrayState:
        state = {"shared": self._shared.state()}
        for model, own in self._models.items():
            state[f"model {model} regression"] = own.regression.state()
            state[f"model {model} rewards"] = np.array([own.count, own.total])
        return state

    def restore(self, state: ArrayState) -> None:
        self._models = {}
        self._shared.restore(state["shared"])
        for key in state:
            if key.endswith(" rewards"):
                model = key.removeprefix("model ").removesuffix(" rewards")
                self.add(model)
                own = self._models[model]
                own.count, own.total = state[key].tolist()
                own.regression.restore(state[f"model {model} regression"])


@compiled("f8(f8[::1], f8[::1], f8[::1])", sums_in_any_order=True)
def _expected(own: FloatArray, shared: FloatArray, features: FloatArray) -> float:
    """What one model is predicted, by its own weights (1 + features,) and the difficulty's (features - 1,)."""
    difficulty, rest = 0.0, own[-1] * features[-1]
    for index in range(len(shared)):
        difficulty += shared[index] * features[index]
        rest += own[index + 1] * features[index]
    return float(rest + (1.0 + own[0]) * difficulty)


@compiled("void(f8[:, ::1], f8[::1], f8[::1])", sums_in_any_order=True)
def _products(weights: FloatArray, features: FloatArray, products: FloatArray) -> None:
    """What each model's weights (models, features) make of one row of features: (models,)."""
    for model in range(len(weights)):
        own, total = weights[model], 0.0
        for index in range(len(features)):
            total += own[index] * features[index]
        products[model] = total


def _whole(own: FloatArray, shared: FloatArray) -> FloatArray:
    """The weights of the whole prediction, own and shared: (models, features)."""
    return own[:, 1:] + (1.0 + own[:, :1]) * shared
