"""Learns what a call costs: output tokens where they are reported and priced, dollars otherwise."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from policy.array_state import ArrayState
from policy.domain import FloatArray, Model, Prices
from policy.drift import ChangeTest
from policy.features import COST_FEATURES
from policy.log import Usage
from policy.ridge import RecursiveLeastSquares, precisions

_SLOPE_PRECISION = 3.0
_INTERCEPT_PRECISION = 0.001
_RATIO_LOW, _RATIO_HIGH = 0.1, 10.0
_TYPICAL_OUTPUT_TOKENS = 300.0
_BLEND_TOKENS = 1000.0
_RATIO_MEMORY_CALLS = 500


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

    def add(self, used: float, shape: float) -> None:
        """Takes one call's use and its predicted shape."""
        if used > 0 and self.scale > 0:
            self._watch(math.log(used / (self.scale * shape)))
        self.used += used
        self.shape += shape

    def _watch(self, log_ratio: float) -> None:
        miss = log_ratio - self.log_ratio
        since = self.test.add(miss)
        if since:
            factor = math.exp(self.test.mean(since))
            self.used, self.shape = self.scale * factor * (since - 1), since - 1.0
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
        blank = np.zeros(COST_FEATURES)
        parts: list[tuple[float, float, float, float, float, bool, bool]] = []
        for model in models:
            prices = model.spec.prices
            tokens = self.token_scales.get(model.key)
            dollars = self.dollar_scales.get(model.key)
            if prices.known and (tokens is not None or dollars is None):
                per_input = prices.input_usd_per_million_tokens * 1e-6
                per_output = prices.output_usd_per_million_tokens * 1e-6
                scale = typical_tokens if tokens is None else tokens
                saved = prices.saved_usd_per_cached_token
                parts.append((scale, prices.usd_per_request, per_input, saved, per_output, True, True))
            else:
                parts.append((dollars or 0.0, 0.0, 0.0, 0.0, price_unit(prices), dollars is not None, False))
        shapes = np.array([self.own_shapes.get(model.key, blank) for model in models])
        columns = np.array(parts, dtype=np.float64).reshape(len(models), 7).T
        return CostTerms(
            shape_weights=shapes.reshape(len(models), COST_FEATURES) + self.shared_shape,
            scale=columns[0],
            fixed_usd=columns[1],
            usd_per_input_token=columns[2],
            saved_usd_per_cached_token=columns[3],
            usd_per_unit=columns[4],
            in_tokens=columns[6] > 0,
            known=columns[5] > 0,
            rows=[(part[0], part[1], part[2], part[4], part[6]) for part in parts],
        )


@dataclass(frozen=True, slots=True)
class CostTerms:
    """The parts of each model's cost; every field but `shape_weights` is (models,)."""

    shape_weights: FloatArray
    scale: FloatArray
    fixed_usd: FloatArray
    usd_per_input_token: FloatArray
    saved_usd_per_cached_token: FloatArray
    usd_per_unit: FloatArray
    in_tokens: Any
    known: Any
    rows: list[tuple[float, float, float, float, bool]]
    """The scale, the two fixed parts, the unit, and whether that is a token, of each model: plain numbers, since
    arrays take longer for one query of some models."""

    def predict(
        self,
        features: FloatArray,
        input_tokens: FloatArray | float,
        max_output_tokens: float = 0.0,
    ) -> FloatArray:
        """Cost in USD; (models,) for one row of cost features, (rows, models) for many.

        `input_tokens` is one number, or (rows, 1). `max_output_tokens` bounds the output, 0 does not.
        A model of unknown cost is given 0; see `known`.
        """
        shape = np.minimum(np.maximum(features @ self.shape_weights.T, _RATIO_LOW), _RATIO_HIGH)
        amount = self.scale * shape
        if max_output_tokens > 0:
            amount = np.where(self.in_tokens, np.minimum(amount, max_output_tokens), amount)
        result: FloatArray = self.fixed_usd + self.usd_per_input_token * input_tokens + self.usd_per_unit * amount
        return result

    def of_one(self, features: FloatArray, input_tokens: float, max_output_tokens: float = 0.0) -> list[float]:
        """As `predict`, to the same bits, for one row of cost features: (models,)."""
        bound = max_output_tokens if max_output_tokens > 0 else math.inf
        found = []
        for row, value in zip(self.rows, (features @ self.shape_weights.T).tolist(), strict=True):
            scale, fixed_usd, per_input, per_unit, in_tokens = row
            amount = scale * (_RATIO_LOW if value < _RATIO_LOW else min(value, _RATIO_HIGH))
            if in_tokens and amount > bound:
                amount = bound
            found.append(fixed_usd + per_input * input_tokens + per_unit * amount)
        return found


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
        model: Model,
        usage: Usage,
        charged_usd: float | None,
    ) -> None:
        """Learns one call's usage: output tokens if the model is priced and they are told, else dollars."""
        own = self._models[model.key]
        if model.spec.prices.known and (usage.output_tokens or usage.input_tokens):
            self._learn_amount(features, own, own.tokens, float(usage.output_tokens))
        elif charged_usd is not None:
            self._learn_amount(features, own, own.dollars, charged_usd / price_unit(model.spec.prices))

    def _learn_amount(self, features: FloatArray, own: _ModelCost, amount: _Amount, used: float) -> None:
        shape = self._shape.predict(features) + own.own_shape.predict(features)
        amount.add(used, min(_RATIO_HIGH, max(_RATIO_LOW, shape)))
        ratio = min(used / amount.scale, _RATIO_HIGH) if amount.scale > 0 else 1.0
        self._shape.learn(features, ratio)
        own.own_shape.learn(features, ratio - self._shape.predict(features))

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
        arrays = {f" {name}": array for name, array in self._shape.state().items()}
        for key, own in self._models.items():
            arrays |= {f"{key} {name}": array for name, array in own.own_shape.state().items()}
            arrays[f"{key} amounts"] = np.array([each.state() for each in (own.tokens, own.dollars)])
        return arrays

    def restore(self, state: ArrayState) -> None:
        """Takes back what `state` gave."""
        self._shape.restore(_part(state, ""))
        self._models = {}
        for name in state:
            key, last = name.rsplit(" ", 1)
            if last == "amounts":
                own = self._models[key] = _ModelCost()
                own.own_shape.restore(_part(state, key))
                own.tokens.restore(state[name][0])
                own.dollars.restore(state[name][1])


def _part(state: ArrayState, key: str) -> ArrayState:
    return {part: state[f"{key} {part}"] for part in ("base", "pending", "used", "weights")}
