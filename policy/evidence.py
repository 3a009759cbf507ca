"""What settled decisions say of a candidate policy: the events that estimates are made from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from policy.domain import FloatArray, InvalidFieldError

_ROUNDING = 1e-9


class Metric(StrEnum):
    """What a policy is measured by. ERROR is 1 for a failed call and 0 for another."""

    QUALITY = "quality"
    COST_USD = "cost_usd"
    LATENCY_SECONDS = "latency_seconds"
    ERROR = "error"
    UTILITY = "utility"


class LeftOut(StrEnum):
    """Why a decision says nothing of another policy."""

    SERVED_BY_FALLBACK = "served_by_fallback"
    STICKY = "sticky"
    EXPLOIT_ONLY = "exploit_only"
    NO_PROPENSITY = "no_propensity"
    NO_REWARD = "no_reward"


@dataclass(frozen=True, slots=True)
class Interval:
    """Where a value lies; infinite ends where nothing is known."""

    low: float = -math.inf
    high: float = math.inf

    @property
    def width(self) -> float:
        return self.high - self.low


@dataclass(frozen=True, slots=True, eq=False)
class Events:
    """Settled decisions of the live policy, with what a candidate would have done.

    The first four are (events,), the others (events, metrics).

    `propensity` is the live policy's probability of the model it drew, in (0, 1]; `probability` the candidate's
    of that same model. `unsupported` is the candidate's probability of all models that the live policy could not
    have drawn. `weight_max` is the largest ratio of the two probabilities among the models that could have
    been drawn, infinite where that is not known.

    `observed` is what came of it, nan where a metric is missing; `predicted` what the model was predicted to
    give before; `baseline` and `live_baseline` are the predictions of all models weighted by the candidate's
    and by the live policy's probabilities. All three are 0 for a metric without predictions. A prediction may
    know the past and the request, never the outcome. Raises InvalidFieldError.
    """

    metrics: tuple[Metric, ...]
    propensity: FloatArray
    probability: FloatArray
    unsupported: FloatArray
    weight_max: FloatArray
    observed: FloatArray
    predicted: FloatArray
    baseline: FloatArray
    live_baseline: FloatArray

    def __post_init__(self) -> None:
        shape = (len(self.propensity), len(self.metrics))
        for name in ("propensity", "probability", "unsupported", "weight_max"):
            _require(name, getattr(self, name).shape == shape[:1], f"must be of shape {shape[:1]}")
        for name in ("observed", "predicted", "baseline", "live_baseline"):
            _require(name, getattr(self, name).shape == shape, f"must be of shape {shape}")
        for name in ("predicted", "baseline", "live_baseline"):
            _require(name, bool(np.isfinite(getattr(self, name)).all()), "must be finite")
        _require("propensity", _within(self.propensity, 0.0) and bool(self.propensity.all()), "must be in (0, 1]")
        _require("probability", _within(self.probability, 0.0), "must be in [0, 1]")
        _require("unsupported", _within(self.unsupported, 0.0), "must be in [0, 1]")
        _require("observed", not np.isinf(self.observed).any(), "must be finite or nan")
        least = self.weights * (1.0 - _ROUNDING)
        _require("weight_max", bool((self.weight_max >= least).all()), "must not be below the weight")

    def __len__(self) -> int:
        return len(self.propensity)

    @property
    def weights(self) -> FloatArray:
        """The importance weights, (events,)."""
        return self.probability / self.propensity


def _require(field: str, holds: bool, message: str) -> None:
    if not holds:
        raise InvalidFieldError(f"events.{field}", message)


def _within(values: FloatArray, low: float) -> bool:
    return bool(((values >= low) & (values <= 1.0 + _ROUNDING)).all())


def settled(
    metrics: Sequence[Metric],
    propensities: FloatArray,
    probabilities: FloatArray,
    chosen: npt.NDArray[np.int64],
    observed: FloatArray,
    predictions: FloatArray,
) -> list[Events]:
    """The events of decisions for each candidate, from what it and the live policy thought of all their models.

    `propensities` (events, models) and `probabilities` (candidates, events, models) have a sum of 1 over the
    models; where decisions differ in their models, one that was not there is 0 in both. `chosen` (events,) is the
    index of the model drawn, `observed` is (events, metrics), nan where missing, and `predictions` is
    (events, models, metrics), to be clipped to the metrics' bounds before, if they are for a confidence sequence.
    Raises InvalidFieldError.
    """
    for name, values in (("propensities", propensities), ("probabilities", probabilities)):
        sums = values.sum(axis=-1)
        _require(name, bool((abs(sums - 1.0) <= 1e-6).all()), "must have a sum of 1")
    supported = propensities > 0.0
    ratios = np.divide(probabilities, propensities, out=np.zeros_like(probabilities), where=supported)
    unsupported = np.minimum(1.0, (probabilities * ~supported).sum(axis=-1))
    baselines = np.einsum("cem,emk->cek", probabilities, predictions)
    live_baseline = np.einsum("em,emk->ek", propensities, predictions)
    rows = np.arange(len(chosen))
    propensity, predicted = propensities[rows, chosen], predictions[rows, chosen]
    return [
        Events(
            metrics=tuple(metrics),
            propensity=propensity,
            probability=probability,
            unsupported=unsupported[candidate],
            weight_max=ratios[candidate].max(axis=1),
            observed=observed,
            predicted=predicted,
            baseline=baselines[candidate],
            live_baseline=live_baseline,
        )
        for candidate, probability in enumerate(probabilities[:, rows, chosen])
    ]


def running_total(total: FloatArray, terms: FloatArray) -> FloatArray:
    """The total with the terms added one after the other: (sums,) and (events, sums) to (sums,), two at least.

    Numpy adds in pairs along the axis that is the fast one in memory only, so that one has to be another: else
    a batch would not give the bits that its events give singly.
    """
    rows: FloatArray = np.empty((len(terms) + 1, len(total)))
    rows[0], rows[1:] = total, terms
    last: FloatArray = np.add.reduce(rows, axis=0)
    return last
