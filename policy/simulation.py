"""Replays known outcomes with bandit feedback through the code that decides and learns, and measures it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from policy.decide import decide
from policy.domain import Features, FloatArray, InvalidFieldError, Query, Router
from policy.features import FEATURE_VERSION
from policy.join import Joined, resolve
from policy.learner import RouterLearner
from policy.log import DecisionRecord, ReportRecord, Usage

_ROUND_US = 1_000_000


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came, or would come, of calling one model on one query."""

    quality: float
    cost_usd: float
    input_tokens: int = 0
    output_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Round:
    """One query with the outcome of every model; a policy sees that of its choice alone."""

    features: Features
    prompt_tokens: float
    outcomes: Mapping[str, Outcome]


@dataclass(frozen=True, slots=True)
class Schedule:
    """In which order the rounds are played, and from which place on they are measured."""

    order: npt.NDArray[np.int64]
    measured_from: int


def schedule(splits: Sequence[str | None], seed: int) -> Schedule:
    """With splits: `learn` shuffled, then `measure` shuffled, which is measured. Without: all shuffled,
    and the second half measured. Raises InvalidFieldError for a file that has only some.
    """
    generator = np.random.default_rng(seed)
    if all(split is None for split in splits):
        return Schedule(generator.permutation(len(splits)), len(splits) // 2)
    unknown = sorted({str(split) for split in splits} - {"learn", "measure"})
    if unknown:
        raise InvalidFieldError("split", f"must be 'learn' or 'measure' in every row or none, not {unknown}")
    learn = [row for row, split in enumerate(splits) if split == "learn"]
    measure = [row for row, split in enumerate(splits) if split == "measure"]
    order = np.concatenate([generator.permutation(learn), generator.permutation(measure)])
    return Schedule(order.astype(np.int64), len(learn))


def simulate(router: Router, rounds: Sequence[Round], order: Sequence[int], seed: int) -> Iterator[str]:
    """Plays the rounds in this order; yields the model chosen in each, once its outcome is learned."""
    learner = RouterLearner(router)
    models = {model.id: model for model in router.models}
    window_us = round(router.spec.reward_rule.join_window_seconds * 1e6)
    for position, row in enumerate(order):
        this = rounds[row]
        seq, time_us = 2 * position + 1_000_000, position * _ROUND_US
        decision_id = f"{seed}-{position}"
        query = Query(this.features, 0, this.prompt_tokens)
        choice = decide(learner.view(seq), router, query, decision_id, time_us)
        decision = DecisionRecord(
            seq=seq,
            time_us=time_us,
            expire_us=time_us + window_us,
            router=router.id,
            decision_id=decision_id,
            choice=choice,
            features=this.features,
            prompt_tokens=this.prompt_tokens,
            input_tokens=0,
            max_output_tokens=0,
            feature_version=FEATURE_VERSION,
            router_uid=router.uid,
        )
        learner.on_decision(decision)
        outcome = this.outcomes[choice.model]
        report = ReportRecord(
            seq=seq + 1,
            time_us=time_us,
            decision_id=decision_id,
            reward=outcome.quality,
            usage=Usage(outcome.input_tokens, outcome.output_tokens, outcome.cost_usd),
        )
        rule, prices = router.spec.reward_rule, models[choice.model].spec.prices
        learner.on_report(resolve(report, Joined(active=True), choice.model, rule, prices), decision)
        yield choice.model


@dataclass(frozen=True, slots=True)
class Table:
    """Outcomes of the measured rounds. Axes of `quality` and `cost_usd`: (rounds, models)."""

    models: tuple[str, ...]
    quality: FloatArray
    cost_usd: FloatArray

    def fixed(self) -> dict[str, tuple[float, float]]:
        """Mean cost in USD and mean quality of each model, used always."""
        costs, qualities = self.cost_usd.mean(axis=0).tolist(), self.quality.mean(axis=0).tolist()
        return dict(zip(self.models, zip(costs, qualities, strict=True), strict=True))

    def hull(self) -> tuple[FloatArray, FloatArray]:
        """The best mixtures of fixed models: the corners' costs, rising, and their qualities."""
        corners: list[tuple[float, float]] = []
        for cost, quality in sorted(self.fixed().values(), key=lambda each: (each[0], -each[1])):
            if corners and quality <= corners[-1][1]:
                continue
            while len(corners) > 1 and _slope(corners[-2], corners[-1]) <= _slope(corners[-1], (cost, quality)):
                corners.pop()
            corners.append((cost, quality))
        costs, qualities = zip(*corners, strict=True)
        return np.array(costs), np.array(qualities)

    def hull_quality(self, cost_usd: float) -> float:
        """The quality of the best mixture of fixed models at this spend (or less)."""
        return float(np.interp(cost_usd, *self.hull()))

    def oracle_quality(self) -> float:
        """The quality of choosing the best answer each time."""
        return float(self.quality.max(axis=1).mean())

    def random(self) -> tuple[float, float]:
        """Mean cost in USD and quality of choosing uniformly."""
        return float(self.cost_usd.mean()), float(self.quality.mean())


def _slope(left: tuple[float, float], right: tuple[float, float]) -> float:
    run = right[0] - left[0]
    return np.inf if run <= 0 else (right[1] - left[1]) / run


@dataclass(frozen=True, slots=True)
class Measured:
    """What a policy earned and spent over the measured rounds."""

    n: int
    quality: float
    cost_usd: float
    hull_quality: float
    oracle_quality: float
    share: dict[str, float]

    @property
    def lift(self) -> float:
        """Quality above that of the best mixture of fixed models at the same spend."""
        return self.quality - self.hull_quality


def measure(table: Table, chosen: Sequence[str]) -> Measured:
    """Measures the choices, one for each round of the table."""
    column = {model: index for index, model in enumerate(table.models)}
    picked = np.array([column[model] for model in chosen])
    rows = np.arange(len(picked))
    quality = float(table.quality[rows, picked].mean())
    cost = float(table.cost_usd[rows, picked].mean())
    counts = np.bincount(picked, minlength=len(table.models)) / len(picked)
    return Measured(
        n=len(picked),
        quality=quality,
        cost_usd=cost,
        hull_quality=table.hull_quality(cost),
        oracle_quality=table.oracle_quality(),
        share=dict(zip(table.models, counts.tolist(), strict=True)),
    )
