"""Plays a replay file at one or many budgets, and gathers what came of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from policy.domain import Model, ModelSpec, Router, RouterSpec
from policy.features import Featuriser
from policy.simulation import Follower, Measured, Round, Schedule, Table, World, measure, schedule, simulate
from server.replay.file import ReplayFile

Play = Callable[[RouterSpec, Sequence[int], int], Iterator[str]]
"""Plays the rows in an order under a router's spec and a seed; yields each row's chosen model."""

OnRound = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Run:
    """One pass over the file. `utilization` is mean cost over budget, None without a budget."""

    measured: Measured
    budget_usd: float | None
    seconds: float

    @property
    def utilization(self) -> float | None:
        return self.measured.cost_usd / self.budget_usd if self.budget_usd else None


@dataclass(frozen=True, slots=True)
class FrontierPoint:
    """Means over seeds at one budget."""

    budget_usd: float
    quality: float
    cost_usd: float
    utilization: float
    lift: float


def featurised(file: ReplayFile, on_round: OnRound) -> list[Round]:
    """The file's rows with their features."""
    featuriser = Featuriser()
    rounds = []
    for row in file.rows:
        features = featuriser.featurise(RouterSpec().embedding_dimensions, row.prompt)
        rounds.append(Round(features.vector, features.prompt_tokens, row.outcomes))
        on_round()
    return rounds


def play_here(file: ReplayFile, rounds: Sequence[Round], followers: Sequence[Follower] = ()) -> Play:
    """Plays in this process, on the code that decides and learns in a server; `followers` are told all of it."""

    def play(spec: RouterSpec, order: Sequence[int], seed: int) -> Iterator[str]:
        models = tuple(Model(each, index, ModelSpec()) for index, each in enumerate(file.models))
        world = World(Router("replay", spec, models), [rounds[row] for row in order])
        return (choice.model for choice in simulate(world, seed, followers))

    return play


def table(file: ReplayFile, plan: Schedule) -> Table:
    """The outcomes of the measured rows, in the order they are played."""
    rows = [file.rows[row] for row in plan.order[plan.measured_from :]]
    quality = [[row.outcomes[model].quality for model in file.models] for row in rows]
    cost = [[row.outcomes[model].cost_usd for model in file.models] for row in rows]
    return Table(file.models, np.array(quality), np.array(cost))


def plan_of(file: ReplayFile, seed: int) -> Schedule:
    """The order of play for a seed."""
    return schedule([row.split for row in file.rows], seed)


def run(file: ReplayFile, play: Play, spec: RouterSpec, seed: int, on_round: OnRound) -> Run:
    """Plays the file once and measures it."""
    plan = plan_of(file, seed)
    started = time.perf_counter()
    chosen = []
    for model in play(spec, plan.order.tolist(), seed):
        chosen.append(model)
        on_round()
    measured = measure(table(file, plan), chosen[plan.measured_from :])
    return Run(measured, spec.objective.budget_usd_per_request, time.perf_counter() - started)


def budgets(file: ReplayFile, count: int) -> list[float]:
    """Budgets spaced evenly in the logarithm between the cheapest and the dearest model's mean cost.

    The means are over the `learn` part, or over the whole file if it has none.
    """
    rows = [row for row in file.rows if row.split in (None, "learn")]
    means = [float(np.mean([row.outcomes[model].cost_usd for row in rows])) for model in file.models]
    low, high = max(min(means), 1e-12), max(*means, 1e-12)
    return [float(each) for each in np.geomspace(low, high, count)]


def frontier(
    file: ReplayFile,
    play: Play,
    spec: RouterSpec,
    amounts: Sequence[float],
    seeds: Sequence[int],
    on_round: OnRound,
) -> list[FrontierPoint]:
    """Plays the file at each budget and seed."""
    points = []
    for amount in amounts:
        objective = replace(spec.objective, budget_usd_per_request=amount)
        budgeted = replace(spec, objective=objective)
        runs = [run(file, play, budgeted, seed, on_round) for seed in seeds]
        points.append(
            FrontierPoint(
                budget_usd=amount,
                quality=float(np.mean([each.measured.quality for each in runs])),
                cost_usd=float(np.mean([each.measured.cost_usd for each in runs])),
                utilization=float(np.mean([each.measured.cost_usd / amount for each in runs])),
                lift=float(np.mean([each.measured.lift for each in runs])),
            )
        )
    return points
