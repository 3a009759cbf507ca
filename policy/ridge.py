"""Ridge regression, one reward at a time: the linear Gaussian learner of quality."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from policy.array_state import ArrayState
from policy.compiled import compiled
from policy.domain import FloatArray
from policy.quality import Parts, Predictor, QualityLearner

_SLOPE_PRECISION = 30.0
_INTERCEPT_PRECISION = 1.0
_SHARED_PRECISION = 120.0
_DIFFICULTY_PRECISION = 0.5
_PENDING = 16


class RecursiveLeastSquares:
    """The exact ridge solution, updated with each example (Sherman and Morrison 1950).

    The inverse is kept as `base - v.T @ v`, with up to 16 rows in v before they are folded into the
    base: one matrix product instead of 16 rank-one updates of a matrix that does not fit the cache.
    Axes: features. `precision` is how strongly each weight is shrunk, the last one, the intercept's,
    towards `prior` and the others towards 0.
    """

    def __init__(self, precision: FloatArray, prior: float) -> None:
        size = len(precision)
        self.base: FloatArray = np.diag(1.0 / precision)
        self.pending: FloatArray = np.zeros((_PENDING, size))
        self.used = 0
        self.weights: FloatArray = np.zeros(size)
        self.weights[-1] = prior

    def predict(self, x: FloatArray) -> float:
        """The prediction for one example."""
        return float(self.weights @ x)

    def learn(self, x: FloatArray, target: float) -> float:
        """Learns one example. Returns what is predicted for it from here on."""
        predicted: float = _learn(self.base, self.pending, self.used, self.weights, x, target)
        self.used += 1
        if self.used == _PENDING:
            self.base -= self.pending.T @ self.pending
            self.used = 0
        return predicted

    def revise(self, x: FloatArray, old: float, new: float) -> None:
        """Makes `new` the target of an example that was learned with `old`, whatever was learned since.

        The weights are P (L w0 + X' y), with the inverse P = (L + X' X)^-1, the prior's precision L and
        mean w0, the examples X and their targets y. P does not depend on y, so that one target more by
        d adds P x d. While all examples weigh the same, the result is what relearning would give; of an
        example that has been discounted since, d counts in full.
        """
        self.weights += _gain(self.base, self.pending, self.used, x) * (new - old)

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


@compiled("f8[::1](f8[:, ::1], f8[:, ::1], i8, f8[::1])", sums_in_any_order=True)
def _gain(base: FloatArray, pending: FloatArray, used: int, x: FloatArray) -> FloatArray:
    """The inverse times x."""
    size = len(x)
    gain = np.empty(size)
    # Four rows at a time, or x would be read from the cache for each of them.
    for row in range(0, size - size % 4, 4):
        one, two, three, four = base[row], base[row + 1], base[row + 2], base[row + 3]
        first = second = third = fourth = 0.0
        for index in range(size):
            first += one[index] * x[index]
            second += two[index] * x[index]
            third += three[index] * x[index]
            fourth += four[index] * x[index]
        gain[row], gain[row + 1], gain[row + 2], gain[row + 3] = first, second, third, fourth
    for row in range(size - size % 4, size):
        gain[row] = 0.0
        for index in range(size):
            gain[row] += base[row, index] * x[index]
    for row in range(used):
        along = 0.0
        for index in range(size):
            along += pending[row, index] * x[index]
        for index in range(size):
            gain[index] -= along * pending[row, index]
    return gain


@compiled("f8(f8[:, ::1], f8[:, ::1], i8, f8[::1], f8[::1], f8)", sums_in_any_order=True)
def _learn(
    base: FloatArray, pending: FloatArray, used: int, weights: FloatArray, x: FloatArray, target: float
) -> float:
    """Moves the weights by an example, whose new prediction is returned, and makes the next row of `pending`."""
    gain = _gain(base, pending, used, x)
    scale, miss = 1.0, target
    for index in range(len(x)):
        scale += x[index] * gain[index]
        miss -= weights[index] * x[index]
    step, root = miss / scale, math.sqrt(scale)
    for index in range(len(x)):
        weights[index] += step * gain[index]
        pending[used, index] = gain[index] / root
    return target - step


def precisions(size: int, slope: float, intercept: float) -> FloatArray:
    """The same precision for every weight but the intercept's: (size,)."""
    result = np.full(size, slope)
    result[-1] = intercept
    return result


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
        return features @ self._weights(tuple(models)).T

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
        self._shared = RecursiveLeastSquares(precisions(size, _SHARED_PRECISION, _SHARED_PRECISION), 0.0)
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
        slopes = _without_intercept(features)
        difficulty = self._shared.learn(slopes, reward - own.total / own.count)
        own.regression.learn(_with_difficulty(difficulty, features), reward - difficulty)

    def revise(self, features: FloatArray, model: str, old: float, new: float) -> None:
        """The model's own regression takes the whole correction, exactly. The difficulty stays, which is but
        what rewards are compared with: own weights that were fitted to rewards less one difficulty and
        then added to another would be further from relearning.
        """
        own = self._models[model]
        own.total += new - old
        difficulty = self._shared.predict(_without_intercept(features))
        own.regression.revise(_with_difficulty(difficulty, features), old, new)

    def expected(self, features: FloatArray, model: str) -> float:
        expected: float = _expected(self._models[model].regression.weights, self._shared.weights, features)
        return expected

    def predict(self, features: FloatArray, models: Sequence[str]) -> FloatArray:
        return np.asarray(features @ _whole(self._own_weights(models), self._shared.weights).T)

    def predictor(self) -> Predictor:
        models = list(self._models)
        unknown = np.zeros(1 + self._size)
        unknown[-1] = self.prior
        return LinearPredictor(models, self._own_weights(models), self._shared.weights.copy(), unknown)

    def _own_weights(self, models: Sequence[str]) -> FloatArray:
        """The weights of each model's own regression: (models, 1 + features)."""
        own = np.empty((len(models), 1 + self._size))
        for row, model in enumerate(models):
            own[row] = self._models[model].regression.weights
        return own

    def state(self) -> ArrayState:
        state = {f"shared {name}": array for name, array in self._shared.state().items()}
        for model, own in self._models.items():
            state |= {f"model {model} {name}": array for name, array in own.regression.state().items()}
            state[f"model {model} rewards"] = np.array([own.count, own.total])
        return state

    def restore(self, state: ArrayState) -> None:
        self._models = {}
        self._shared.restore(_part(state, "shared"))
        for key in state:
            if key.endswith(" rewards"):
                model = key.removeprefix("model ").removesuffix(" rewards")
                self.add(model)
                own = self._models[model]
                own.count, own.total = state[key].tolist()
                own.regression.restore(_part(state, f"model {model}"))


@compiled("f8(f8[::1], f8[::1], f8[::1])", sums_in_any_order=True)
def _expected(own: FloatArray, shared: FloatArray, features: FloatArray) -> float:
    """What one model is predicted, by its own weights (1 + features,) and those of the difficulty (features,)."""
    difficulty = rest = 0.0
    for index in range(len(features)):
        difficulty += shared[index] * features[index]
        rest += own[index + 1] * features[index]
    return float(rest + (1.0 + own[0]) * difficulty)


def _whole(own: FloatArray, shared: FloatArray) -> FloatArray:
    """The weights of the whole prediction, own and shared: (models, features)."""
    return own[:, 1:] + (1.0 + own[:, :1]) * shared


def _without_intercept(features: FloatArray) -> FloatArray:
    slopes = features.copy()
    slopes[-1] = 0.0
    return slopes


def _with_difficulty(difficulty: float, features: FloatArray) -> FloatArray:
    result = np.empty(1 + len(features))
    result[0], result[1:] = difficulty, features
    return result


def _part(state: ArrayState, prefix: str) -> ArrayState:
    return {name: state[f"{prefix} {name}"] for name in ("base", "pending", "used", "weights")}
