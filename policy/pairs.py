"""Pairs: decisions in which a second model was called on the same query, and what they say of a policy.

Of a decision whose own call was model a's, and whose second call is model b's, drawn by q, let a policy give the
models the probabilities p. Then

    (p(b) / q(b)) (y(b) - y(a))

has as its expectation over the second draw what the policy would have gained in this very decision over what was
done. The propensity with which a was drawn is nowhere in it: so it can tell whether propensities are right. Where
the policy has a itself it gains nothing, and of the other models' part, r = 1 - p(a), it is

    (p(b) / (r q(b))) r (y(b) - y(a))

so that the weights have a mean of 1, as confidence sequences need it. Predictions of all models make the estimate
doubly robust, as they do those from single calls (see `policy.estimators`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from policy.confidence import Bounds
from policy.domain import FloatArray
from policy.evidence import Events, Metric, settled
from policy.log import DecisionRecord, ReportRecord
from policy.settlement import METRICS, Pending, answers, clipped_predictions
from policy.standing import Standing

PAIRED = (Metric.QUALITY, Metric.COST_USD, Metric.UTILITY)

_COLUMNS = [METRICS.index(metric) for metric in PAIRED]


@dataclass(slots=True)
class Pair:
    """A decision with a second call, and what has come of both; `told` whether anything has of the second.

    `pool` (models,) is what the second model was drawn by. Where none but the own could be, one call is both.
    """

    own: Pending
    second: Pending
    pool: tuple[float, ...]
    told: bool = False

    @classmethod
    def of(cls, decision: DecisionRecord, own: Pending) -> Pair | None:
        """The pair that begins with a decision as the contenders have answered it; None without a second call."""
        second = decision.choice.second
        if second is None or not second.model:
            return None
        index = own.models.index(second.model)
        return cls(replace(own), replace(own, chosen=index), second.pool, told=index == own.chosen)

    @property
    def one(self) -> bool:
        """Whether one call is both."""
        return self.second.chosen == self.own.chosen

    def note(self, report: ReportRecord) -> None:
        """Takes what a report says of one of the calls."""
        self.told = self.told or report.second
        if not report.second:
            self.own.note(report)
        if report.second or self.one:
            self.second.note(report)

    def close(self, missing_reward: float | None) -> None:
        """What never came is settled."""
        self.own.close(missing_reward)
        self.second.close(missing_reward)

    @property
    def complete(self) -> bool:
        """Whether quality and cost of both calls are known."""
        return self.own.complete and self.second.complete

    def dump(self) -> dict[str, Any]:
        """Everything as JSON takes it; `load` gives it back to the last bit."""
        return {"own": self.own.dump(), "second": self.second.dump(), "pool": self.pool, "told": self.told}

    @classmethod
    def load(cls, values: Mapping[str, Any]) -> Pair:
        """The inverse of `dump`."""
        own, second = Pending.load(values["own"]), Pending.load(values["second"])
        return cls(own, second, tuple(values["pool"]), values["told"])


def by_contender(
    pairs: Sequence[Pair], standing: Mapping[int, Standing], bounds: Mapping[Metric, Bounds]
) -> Iterator[tuple[int, Events, FloatArray]]:
    """For each contender, by its number, the events of pairs, and its probability of doing otherwise than was
    done, (events,). `standing` are those whose answers follow from the decision alone.

    An event's values are differences of the second call to the decision's own.
    """
    for group in _grouped(pairs).values():
        differ = _Differences.of(group, bounds)
        numbers, answered, _ = answers([pair.own for pair in group], standing)
        for number, probabilities in zip(numbers, answered, strict=True):
            elsewhere = differ.elsewhere(probabilities)
            yield number, differ.under(elsewhere), elsewhere.sum(axis=1)


def by_models(pairs: Sequence[Pair], bounds: Mapping[Metric, Bounds]) -> Iterator[tuple[tuple[str, str], Events]]:
    """For each own and second model the events of the pairs that were these, each of weight 1."""
    for (_, models), group in _grouped([pair for pair in pairs if not pair.one]).items():
        found: dict[tuple[str, str], list[Pair]] = {}
        for pair in group:
            key = models[pair.own.chosen], models[pair.second.chosen]
            found.setdefault(key, []).append(pair)
        for key, alike in found.items():
            yield key, _Differences.of(alike, bounds).alone()


def _grouped(pairs: Sequence[Pair]) -> dict[tuple[tuple[int, ...], tuple[str, ...]], list[Pair]]:
    groups: dict[tuple[tuple[int, ...], tuple[str, ...]], list[Pair]] = {}
    for pair in pairs:
        groups.setdefault((pair.own.lineup, pair.own.models), []).append(pair)
    return groups


@dataclass(frozen=True, slots=True)
class _Differences:
    """Pairs of the same models. Axes: `own` and `second` (events,), indices of models; `pool` (events, models);
    `observed` (events, PAIRED), the second's less the own; `predicted` (events, models, PAIRED), each model's
    less the own.
    """

    own: Any
    second: Any
    pool: FloatArray
    observed: FloatArray
    predicted: FloatArray

    @classmethod
    def of(cls, pairs: Sequence[Pair], bounds: Mapping[Metric, Bounds]) -> _Differences:
        rows = np.arange(len(pairs))
        own = np.array([pair.own.chosen for pair in pairs])
        facts = np.array([pair.own.facts for pair in pairs])
        predicted = clipped_predictions([pair.own for pair in pairs], facts, bounds)[:, :, _COLUMNS]
        observed = [np.subtract(pair.second.observed(), pair.own.observed()) for pair in pairs]
        return cls(
            own=own,
            second=np.array([pair.second.chosen for pair in pairs]),
            pool=np.array([pair.pool for pair in pairs]),
            observed=np.array(observed)[:, _COLUMNS],
            predicted=predicted - predicted[rows, own][:, None, :],
        )

    def elsewhere(self, probabilities: FloatArray) -> FloatArray:
        """The probabilities of all models but those that were called, (events, models)."""
        others = probabilities.copy()
        others[np.arange(len(self.own)), self.own] = 0.0
        return others

    def under(self, elsewhere: FloatArray) -> Events:
        """As events of a policy with these probabilities of other models."""
        rest = elsewhere.sum(axis=1)
        # Where the policy does what was done there is no difference, by whatever the second was drawn.
        moves = rest > 0.0
        drawn = np.divide(elsewhere, rest[:, None], out=self.pool.copy(), where=moves[:, None])
        observed, predicted = rest[:, None] * self.observed, rest[:, None, None] * self.predicted
        return settled(PAIRED, self.pool, drawn[None], self.second, observed, predicted)[0]

    def alone(self) -> Events:
        """As events of the second models alone."""
        certain: FloatArray = np.zeros_like(self.pool)
        certain[np.arange(len(self.second)), self.second] = 1.0
        return settled(PAIRED, certain, certain[None], self.second, self.observed, self.predicted)[0]
