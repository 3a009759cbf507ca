"""Builders of domain objects: each gives a valid one and takes only what its test is about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from policy.choices import Candidate, Choice, Constraints, Preference, Query
from policy.domain import (
    Exploration,
    Features,
    FloatArray,
    Model,
    ModelSpec,
    Objective,
    Prices,
    Router,
    RouterSpec,
)
from policy.join import Joined, joined, resolve
from policy.layout import HASHED, STRUCTURE
from policy.learner import RouterLearner
from policy.log import DecisionRecord, ReportRecord, Usage
from policy.view import PolicyView

DIMENSIONS = 8
SIZE = DIMENSIONS + STRUCTURE + HASHED + 1
SECOND_US = 1_000_000
DAY_US = 86_400 * SECOND_US


def vector(*embedding: float) -> Features:
    """Features with this embedding (zeros after it), no text, and the intercept."""
    result = np.zeros(SIZE, dtype=np.float32)
    result[: len(embedding)] = embedding
    result[-1] = 1.0
    return result


def random_vector(generator: np.random.Generator) -> Features:
    """Features with a random embedding of length 1 and some random structure."""
    embedding = generator.normal(size=DIMENSIONS)
    result = vector(*(embedding / np.linalg.norm(embedding)))
    result[DIMENSIONS : DIMENSIONS + STRUCTURE] = generator.uniform(-0.5, 0.5, STRUCTURE)
    return result


def model(
    name: str,
    uid: int = 1,
    *,
    input_price: float = 0.0,
    output_price: float = 0.0,
    per_request: float = 0.0,
    **spec: Any,
) -> Model:
    """A model; prices are in USD per million tokens, and per request."""
    return Model(name, uid, ModelSpec(prices=Prices(input_price, output_price, per_request), **spec))


def models(*names: str, per_request: float = 0.001) -> tuple[Model, ...]:
    """Models that differ by nothing but their names, at one price a request."""
    return tuple(model(name, uid, per_request=per_request) for uid, name in enumerate(names, start=1))


def router(
    of: Sequence[Model] = (),
    *,
    budget: float | None = None,
    value: float | None = None,
    latency_price: float = 0.0,
    strength: float = 1.0,
    burn_in: int = 10,
    **spec: Any,
) -> Router:
    """A router over these models."""
    objective = Objective(budget, value, latency_price)
    exploration = Exploration(strength=strength, burn_in_rewards=burn_in)
    whole = RouterSpec(objective=objective, exploration=exploration, embedding_dimensions=DIMENSIONS, **spec)
    return Router("support", whole, tuple(of))


def query(
    features: Features | None = None,
    *,
    constraints: Mapping[str, Any] | None = None,
    preference: Mapping[str, Any] | None = None,
    **rest: Any,
) -> Query:
    """A query; `constraints` and `preference` are keyword arguments of theirs."""
    return Query(
        vector() if features is None else features,
        constraints=Constraints(**(constraints or {})),
        preference=Preference(**(preference or {})),
        **rest,
    )


def choice(chosen: str, cost_usd: float = 0.001) -> Choice:
    """A certain choice of one model at this predicted cost."""
    candidate = Candidate(chosen, 1.0, 0.5, cost_usd, 0.0, 0.5)
    return Choice(chosen, 1.0, (candidate,), (), "learned", 0, 0.0)


def decision(
    chosen: str = "a",
    seq: int = 1000,
    *,
    features: Features | None = None,
    cost_usd: float = 0.001,
    prompt_tokens: float = 100.0,
    **rest: Any,
) -> DecisionRecord:
    """A decision for this model at its position of the log, one second a position."""
    return DecisionRecord(
        seq=seq,
        time_us=seq * SECOND_US,
        expire_us=seq * SECOND_US + DAY_US,
        router="support",
        decision_id=f"decision-{seq}",
        choice=rest.pop("choice", None) or choice(chosen, cost_usd),
        features=vector() if features is None else features,
        prompt_tokens=prompt_tokens,
        input_tokens=rest.pop("input_tokens", 0),
        max_output_tokens=0,
        **rest,
    )


def raw_report(of: DecisionRecord | None = None, seq: int | None = None, **rest: Any) -> ReportRecord:
    """A report on this decision as it arrives, before its part in the join is known."""
    of = of or decision()
    seq = of.seq + 1 if seq is None else seq
    return ReportRecord(seq=seq, time_us=seq * SECOND_US, decision_id=of.decision_id, **rest)


def report(
    of: DecisionRecord,
    by: Router,
    before: Sequence[ReportRecord] = (),
    seq: int | None = None,
    **rest: Any,
) -> ReportRecord:
    """A report on this decision of this router, resolved as it is when it is stored after `before`."""
    raw = raw_report(of, seq, **rest)
    prices = {each.id: each.spec.prices for each in by.models}
    about = raw.served_model or of.choice.model
    return resolve(raw, joined(of.deferred, before), of.choice.model, by.spec.reward_rule, prices.get(about))


def teach(
    learner: RouterLearner,
    chosen: str,
    seq: int = 1000,
    *,
    features: Features | None = None,
    cost_usd: float = 0.001,
    **reported: Any,
) -> DecisionRecord:
    """Logs one decision for this model and one report on it."""
    made = decision(chosen, seq, features=features, cost_usd=cost_usd)
    learner.on_decision(made)
    learner.on_report(report(made, learner.router, **reported), made)
    return made


def close(learner: RouterLearner, made: DecisionRecord, *reports: ReportRecord) -> Joined:
    """Closes the decision's window."""
    state = joined(made.deferred, reports)
    learner.on_close(made, state)
    return state


def random_history(learner: RouterLearner, seed: int, first: int, count: int) -> None:
    """Logs decisions with random outcomes, some without usage, some failing, some closed."""
    names = [each.id for each in learner.router.models]
    for number in range(first, first + count):
        generator = np.random.default_rng([seed, number])
        made = decision(
            names[generator.integers(len(names))], 1000 + 2 * number, features=random_vector(generator)
        )
        learner.on_decision(made)
        tokens = Usage(100, int(generator.integers(1, 900)), float(generator.uniform(0, 0.01)))
        told = report(
            made,
            learner.router,
            reward=float(generator.uniform()),
            usage=tokens if generator.uniform() < 0.8 else None,
            latency_seconds=float(generator.uniform(0, 3)),
        )
        learner.on_report(told, made)
        if number % 3 == 0:
            close(learner, made, told)


class KnownQuality:
    """Predicts the same quality for every query, by model id."""

    def __init__(self, quality: Mapping[str, float]) -> None:
        self._quality = quality

    def predict(self, features: FloatArray, models: Sequence[str]) -> FloatArray:
        row = np.array([self._quality[each.rpartition("#")[0]] for each in models])
        return np.broadcast_to(row, (*features.shape[:-1], len(models))).copy()


def view(of: Router, quality: Mapping[str, float], latency: Mapping[str, float] | None = None) -> PolicyView:
    """A view in which each model's quality is this, its latency this, and its cost what its prices say."""
    learner = RouterLearner(of)
    for seq, (name, seconds) in enumerate((latency or {}).items(), start=1000):
        teach(learner, name, seq, latency_seconds=seconds)
    return replace(learner.view(7), quality=KnownQuality(quality))
