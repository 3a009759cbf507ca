"""Replays known outcomes with bandit feedback through the code that decides and learns, and measures it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from typing import Protocol

import numpy as np
import numpy.typing as npt

from policy.choices import Choice, Query
from policy.decide import decide
from policy.domain import Features, FloatArray, InvalidFieldError, ModelError, Router
from policy.join import Joined, joined, resolve
from policy.layout import FEATURE_VERSION
from policy.learner import RouterLearner
from policy.log import DecisionRecord, ReportRecord, Usage
from policy.second import offered

_ROUND_US = 1_000_000
_SECOND_FROM = 50


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


@dataclass(frozen=True, slots=True)
class Arrival:
    """A report on a decision, `delay` seconds after it; with 0 it is learned before the next decision. `second` is
    one on its second call.
    """

    delay: int = 0
    reward: float | None = None
    signals: Mapping[str, float] = field(default_factory=dict)
    usage: Usage | None = None
    error: ModelError | None = None
    second: bool = False


class World:
    """What the policy plays against. In this one nothing ever changes and every report comes at once."""

    def __init__(self, router: Router, rounds: Sequence[Round]) -> None:
        self._router, self.rounds = router, rounds

    def router(self, position: int) -> Router:  # noqa: ARG002 - in other worlds it changes
        """The router as of this round. Another object than in the round before is a change to it."""
        return self._router

    def time_us(self, position: int) -> int:
        """When the round is played, in microseconds since 1970: one a second, unless a world says otherwise."""
        return position * _ROUND_US

    def arrivals(self, position: int, model: str) -> Sequence[Arrival]:
        """The reports that will come if this model is called in this round."""
        outcome = self.rounds[position].outcomes[model]
        usage = Usage(outcome.input_tokens, outcome.output_tokens, outcome.cost_usd)
        return (Arrival(reward=outcome.quality, usage=usage),)


class Follower(Protocol):
    """What is told of a router's log, record by record, as its learner is."""

    def on_registry(self, router: Router) -> None:
        """The router or its models have changed."""
        ...

    def on_decision(self, decision: DecisionRecord) -> None:
        """A decision was logged."""
        ...

    def on_report(self, report: ReportRecord, decision: DecisionRecord) -> None:
        """A report on one of the router's decisions was logged."""
        ...

    def on_close(self, decision: DecisionRecord, joined: Joined) -> None:
        """A decision's window has closed."""
        ...


def simulate(world: World, seed: int, followers: Sequence[Follower] = ()) -> Iterator[Choice]:
    """Plays the world's rounds; yields each choice when what came at once is learned.

    Reports wait for their round, windows close by the router's rule, and the draws belong to the seed. Second
    calls are made wherever they are offered, whatever they cost on a day.
    `followers` are told of every record after the learner.
    """
    learner = RouterLearner(world.router(0))
    told: tuple[Follower, ...] = (learner, *followers)
    history = _History(told)
    for position, this in enumerate(world.rounds):
        router = world.router(position)
        if router is not learner.router:
            for each in told:
                each.on_registry(router)
        time_us = world.time_us(position)
        history.advance(time_us)
        decision_id = f"{seed}-{position}"
        query = Query(this.features, 0, this.prompt_tokens)
        view = learner.view(history.seq)
        choice = decide(view, router, query, decision_id, time_us)
        choice = replace(choice, second=offered(view, router, query, choice, decision_id, time_us))
        decision = DecisionRecord(
            seq=history.next_seq(),
            time_us=time_us,
            expire_us=time_us + round(router.spec.reward_rule.join_window_seconds * 1e6),
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
        for each in told:
            each.on_decision(decision)
        history.add(decision, router, world.arrivals(position, choice.model))
        if choice.second_model:
            history.add_second(decision, router, world.arrivals(position, choice.second_model))
        history.advance(time_us)
        yield choice


class _History:
    """What is still to come of the decisions made: their reports, and the ends of their windows."""

    def __init__(self, followers: Sequence[Follower]) -> None:
        self._followers = followers
        self._coming: list[tuple[int, int, DecisionRecord, Router, Arrival | None]] = []
        self._reports: dict[str, list[ReportRecord]] = {}
        self.seq = 1_000_000  # Above the uid of any model.

    def next_seq(self) -> int:
        self.seq += 1
        return self.seq

    def add(self, decision: DecisionRecord, router: Router, arrivals: Sequence[Arrival]) -> None:
        """Notes what will come of a decision."""
        self._reports[decision.decision_id] = []
        for number, arrival in enumerate(arrivals):
            time_us = decision.time_us + arrival.delay * _ROUND_US
            heappush(self._coming, (time_us, decision.seq * 100 + number, decision, router, arrival))
        heappush(self._coming, (decision.expire_us, decision.seq * 100 + 99, decision, router, None))

    def add_second(self, decision: DecisionRecord, router: Router, arrivals: Sequence[Arrival]) -> None:
        """Notes what will come of its second call, after what comes of its own at the same time."""
        for number, arrival in enumerate(arrivals, _SECOND_FROM):
            time_us = decision.time_us + arrival.delay * _ROUND_US
            place = decision.seq * 100 + number
            heappush(self._coming, (time_us, place, decision, router, replace(arrival, second=True)))

    def advance(self, time_us: int) -> None:
        """Learns what has come by this time."""
        while self._coming and self._coming[0][0] <= time_us:
            at_us, _, decision, router, arrival = heappop(self._coming)
            if arrival is None:
                reports = self._reports.pop(decision.decision_id)
                for each in self._followers:
                    each.on_close(decision, joined(False, reports))
            elif decision.decision_id in self._reports:
                self._report(at_us, decision, router, arrival)

    def _report(self, at_us: int, decision: DecisionRecord, router: Router, arrival: Arrival) -> None:
        draft = ReportRecord(
            seq=self.next_seq(),
            time_us=at_us,
            decision_id=decision.decision_id,
            reward=arrival.reward,
            signals=arrival.signals,
            usage=arrival.usage,
            error=arrival.error,
            second=arrival.second,
        )
        model = decision.choice.second_model if arrival.second else decision.choice.model
        prices = next(each.spec.prices for each in router.models if each.id == model)
        earlier = self._reports[decision.decision_id]
        report = resolve(draft, joined(False, earlier), model, router.spec.reward_rule, prices)
        earlier.append(report)
        for each in self._followers:
            each.on_report(report, decision)


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
