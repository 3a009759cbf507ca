"""Learns what a call costs: output tokens where they are reported and priced, dollars otherwise."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from policy.array_state import ArrayState
from policy.compiled import compiled, part_of_compiled
from policy.domain import FloatArray, Model, Prices
from policy.drift import ChangeTest
from policy.layout import HASHED, STRUCTURE
from policy.log import Usage
from policy.quick import quick
from policy.regression import RecursiveLeastSquares, learn_both, precisions

COST_FEATURES = STRUCTURE + 2

_FROM_THE_END = STRUCTURE + HASHED + 1
_PER_TOKEN = 0.004
_LONG = 8.0
_SLOPE_PRECISION = 3.0
_INTERCEPT_PRECISION = 0.001
_RATIO_LOW, _RATIO_HIGH = 0.1, 10.0
_TYPICAL_OUTPUT_TOKENS = 300.0
_BLEND_TOKENS = 1000.0
_RATIO_MEMORY_CALLS = 500


def start_of(features: FloatArray) -> int:
    """Where in the features (..., features) the structure begins."""
    size: int = features.shape[-1]
    return size - _FROM_THE_END


@compiled("f8(f8[::1], i8, f8, f8[::1], f8[::1], f8[::1])", sums_in_any_order=True)
def shape_of_query(
    features: FloatArray, start: int, input_tokens: float, one: FloatArray, other: FloatArray, query: FloatArray
) -> float:
    """Fills `query` (COST_FEATURES,) with what the cost is predicted from: structure, the input's length, and 1.
    Returns what two regressions of these weights predict of it together, within bounds.
    """
    structure, total = len(query) - 2, 0.0
    for index in range(structure):
        query[index] = features[start + index]
    query[structure], query[structure + 1] = min(input_tokens * _PER_TOKEN, _LONG), 1.0
    for index in range(len(query)):
        total += (one[index] + other[index]) * query[index]
    return min(max(total, _RATIO_LOW), _RATIO_HIGH)


def price_unit(prices: Prices) -> float:
    """What learned dollars are counted in, so that they follow a changed price: 1 where prices are unknown."""
    return prices.cost_usd(_BLEND_TOKENS, _BLEND_TOKENS) if prices.known else 1.0


@dataclass
class _Amount:
    """How much of something a model uses: `scale` is total use over total predicted shape.

    A ratio of sums, so that a model which is mostly sent short queries is not taken for a cheap one.
    It can only tell from both kinds: of one that saw none but short ones, long ones are underestimated.
    Where use has changed for all queries alike, as when a price did that nobody told, the sums begin
    anew with the calls since. Use differs by factors, so the test looks at its logarithm, less the mean
    logarithm `log_ratio`: the mean of logarithms is not the logarithm of the mean.
    """

    used: float = 0.0
    shape: float = 0.0
    log_ratio: float = 0.0
    calls: int = 0
    test: ChangeTest = field(default_factory=lambda: ChangeTest(variance=0.25))

    def add(self, used: float, shape: float) -> float:
        """Takes one call's use and its predicted shape; gives the scale from here on."""
        scale = self.scale
        if used > 0 and scale > 0:
            self._watch(math.log(used / (scale * shape)), scale)
        self.used += used
        self.shape += shape
        return self.scale

    def _watch(self, log_ratio: float, scale: float) -> None:
        miss = log_ratio - self.log_ratio
        since = self.test.add(miss)
        if since:
            factor = math.exp(self.test.mean(since))
            self.used, self.shape = scale * factor * (since - 1), since - 1.0
            self.test.forget()
        else:
            self.calls += 1
            self.log_ratio += miss / min(self.calls, _RATIO_MEMORY_CALLS)

    @property
    def scale(self) -> float:
        return self.used / self.shape if self.shape > 0 else 0.0

    def state(self) -> FloatArray:
        """Everything, for `restore`."""
        return np.array([self.used, self.shape, self.log_ratio, self.calls, *self.test.state()])

    def restore(self, state: FloatArray) -> None:
        """Takes back what `state` gave."""
        self.used, self.shape, self.log_ratio, calls = state[:4].tolist()
        self.calls = int(calls)
        self.test.restore(state[4:])


class _ModelCost:
    def __init__(self) -> None:
        self.tokens = _Amount()
        self.dollars = _Amount()
        self.own_shape = _shape_regression(0.0)


def _shape_regression(prior: float) -> RecursiveLeastSquares:
    return RecursiveLeastSquares(precisions(COST_FEATURES, _SLOPE_PRECISION, _INTERCEPT_PRECISION), prior)


@quick
@dataclass(frozen=True, slots=True)
class CostPredictor:
    """Predicts costs with what was known at one time. Axes of `own_shapes`: (models, COST_FEATURES)."""

    shared_shape: FloatArray
    own_shapes: Mapping[str, FloatArray]
    token_scales: Mapping[str, float]
    dollar_scales: Mapping[str, float]

    def terms(self, models: Sequence[Model]) -> CostTerms:
        """The predictor laid out for these models, with their prices as of now."""
        typical = list(self.token_scales.values())
        typical_tokens = sum(typical) / len(typical) if typical else _TYPICAL_OUTPUT_TOKENS
        shape_weights, rows = np.empty((len(models), COST_FEATURES)), np.empty((len(models), 5))
        saved, known = [], []
        for place, model in enumerate(models):
            shape_weights[place] = self.own_shapes.get(model.key, 0.0) + self.shared_shape
            prices = model.spec.prices
            tokens = self.token_scales.get(model.key)
            dollars = self.dollar_scales.get(model.key)
            if prices.known and (tokens is not None or dollars is None):
                per_input = prices.input_usd_per_million_tokens * 1e-6
                per_output = prices.output_usd_per_million_tokens * 1e-6
                scale = typical_tokens if tokens is None else tokens
                rows[place] = scale, prices.usd_per_request, per_input, per_output, True
                saved.append(prices.saved_usd_per_cached_token)
                known.append(True)
            else:
                rows[place] = dollars or 0.0, 0.0, 0.0, price_unit(prices), False
                saved.append(0.0)
                known.append(dollars is not None)
        return CostTerms(shape_weights, rows, saved, known)


@quick
@dataclass(frozen=True, slots=True)
class CostTerms:
    """The parts of each model's cost.

    Axes of `shape_weights`: (models, COST_FEATURES); of `rows`: (models, 5), the scale, the USD of a call and of
    an input token, those of a unit, and whether that is a token; the others (models,).
    """

    shape_weights: FloatArray
    rows: FloatArray
    saved_usd_per_cached_token: list[float]
    known: list[bool]

    def predict(self, features: FloatArray, input_tokens: FloatArray) -> FloatArray:
        """Costs in USD (models, queries), for the features of queries (queries, features) and as many numbers of
        input tokens (queries,).

        A model of unknown cost is given 0; see `known`.
        """
        return _costs_usd(self.shape_weights, self.rows, features, start_of(features), input_tokens)

    def of_one(self, features: FloatArray, input_tokens: float, max_output_tokens: float = 0.0) -> list[float]:
        """As `predict` of one query: (models,). `max_output_tokens` bounds the output, 0 does not."""
        bound = max_output_tokens or math.inf
        costs_usd = np.empty(len(self.rows))
        _costs_of_one(self.shape_weights, self.rows, features, start_of(features), input_tokens, bound, costs_usd)
        found: list[float] = costs_usd.tolist()
        return found


@part_of_compiled(sums_in_any_order=True)
def _cost_usd(
    weights: FloatArray, row: FloatArray, features: FloatArray, start: int, input_tokens: float, bound: float
) -> float:
    """What one query costs of one model, by its own part of `CostTerms`."""
    structure = len(weights) - 2
    shape = weights[structure] * min(input_tokens * _PER_TOKEN, _LONG) + weights[structure + 1]
    shown = features[start : start + structure]
    for index in range(structure):
        shape += weights[index] * shown[index]
    amount = row[0] * min(max(shape, _RATIO_LOW), _RATIO_HIGH)
    if row[4] > 0.0:
        amount = min(amount, bound)
    return float(row[1] + row[2] * input_tokens + row[3] * amount)


@compiled("f8[:, ::1](f8[:, ::1], f8[:, ::1], f8[:, ::1], i8, f8[::1])")
def _costs_usd(
    weights: FloatArray, rows: FloatArray, features: FloatArray, start: int, input_tokens: FloatArray
) -> FloatArray:
    costs_usd = np.empty((len(rows), len(features)))
    for model in range(len(rows)):
        for query in range(len(features)):
            costs_usd[model, query] = _cost_usd(
                weights[model], rows[model], features[query], start, input_tokens[query], np.inf
            )
    return costs_usd


@compiled("void(f8[:, ::1], f8[:, ::1], f8[::1], i8, f8, f8, f8[::1])")
def _costs_of_one(
    weights: FloatArray,
    rows: FloatArray,
    features: FloatArray,
    start: int,
    input_tokens: float,
    bound: float,
    costs_usd: FloatArray,
) -> None:
    for model in range(len(rows)):
        costs_usd[model] = _cost_usd(weights[model], rows[model], features, start, input_tokens, bound)


class CostLearner:
    """Learns from usage how much each model uses, and how that goes with the query.

    Use is a model's own scale times a shape over queries, which is a regression shared by all models
    plus one of the model's own on what is left.
    """

    def __init__(self) -> None:
        self._shape = _shape_regression(1.0)
        self._models: dict[str, _ModelCost] = {}

    def add(self, model: str) -> None:
        """Begins to learn about a model."""
        self._models[model] = _ModelCost()

    def remove(self, model: str) -> None:
        """Forgets a model."""
        del self._models[model]

    def rename(self, names: Mapping[str, str]) -> None:
        """What is known of each of these models is known of the other from here on; all have to be there."""
        self._models = {names[model]: own for model, own in self._models.items()}

    def learn(
        self,
        features: FloatArray,
        input_tokens: float,
        model: Model,
        usage: Usage,
        charged_usd: float | None,
    ) -> None:
        """Learns one call's usage: output tokens if the model is priced and they are told, else dollars.

        `features` (features,) are those of the query, and `input_tokens` is how long it is.
        """
        own = self._models[model.key]
        if model.spec.prices.known and (usage.output_tokens or usage.input_tokens):
            amount, used = own.tokens, float(usage.output_tokens)
        elif charged_usd is not None:
            amount, used = own.dollars, charged_usd / price_unit(model.spec.prices)
        else:
            return
        query, weights = np.empty(COST_FEATURES), (self._shape.weights, own.own_shape.weights)
        shape = shape_of_query(features, start_of(features), input_tokens, *weights, query)
        scale = amount.add(used, shape)
        ratio = min(used / scale, _RATIO_HIGH) if scale > 0 else 1.0
        learn_both(self._shape, own.own_shape, query, ratio, ratio)

    def predictor(self) -> CostPredictor:
        """What is known now."""
        return CostPredictor(
            shared_shape=self._shape.weights.copy(),
            own_shapes={key: own.own_shape.weights.copy() for key, own in self._models.items()},
            token_scales={key: own.tokens.scale for key, own in self._models.items() if own.tokens.shape > 0},
            dollar_scales={key: own.dollars.scale for key, own in self._models.items() if own.dollars.shape > 0},
        )

    def state(self) -> ArrayState:
        """Everything, for `restore`."""
        arrays = {" shape": self._shape.state()}
        for key, own in self._models.items():
            arrays[f"{key} shape"] = own.own_shape.state()
            arrays[f"{key} amounts"] = np.array([each.state() for each in (own.tokens, own.dollars)])
        return arrays

    def restore(self, state: ArrayState) -> None:
        """Takes back what `state` gave."""
        self._shape.restore(state[" shape"])
        self._models = {}
        for name in state:
            key, last = name.rsplit(" ", 1)
            if last == "amounts":
                own = self._models[key] = _ModelCost()
                own.own_shape.restore(state[f"{key} shape"])
                own.tokens.restore(state[name][0])
                own.dollars.restore(state[name][1])
