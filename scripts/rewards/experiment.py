"""Plays one way of telling rewards and one rule of joining them, and measures lift and bias."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from policy.choices import Choice
from policy.domain import Model, ModelSpec, Objective, RewardJoin, RewardRule, Router, RouterSpec
from policy.simulation import Round, World, measure, simulate
from scripts.rewards.world import JUDGE, THUMBS, Feedback, SignalWorld
from server.replay.file import ReplayFile
from server.replay.run import plan_of, table

WINDOW_ROUNDS = 600.0
_RULE = RewardRule(join_window_seconds=WINDOW_ROUNDS, signal_weights={JUDGE: 2.0, THUMBS: 1.0})


@dataclass(frozen=True, slots=True)
class Case:
    """One row of the table. Without `feedback` the quality itself is told, at once and always."""

    name: str
    rule: RewardRule
    feedback: Feedback | None


@dataclass(frozen=True, slots=True)
class Found:
    """What came of a case: `silent` is the share of decisions that no reward came of in their window, and
    `bias` how far each model's predicted quality lay above its true one, both in the mean.
    """

    silent: float
    quality: float
    lift: float
    bias: dict[str, float]


def cases(missing: Sequence[float], feedback: Feedback) -> list[Case]:
    """The yardstick, then each rule at each missing rate, with all else of this feedback."""
    found = [Case("the quality itself", _RULE, None)]
    for rate in missing:
        rules = {join.value: replace(_RULE, join=join) for join in RewardJoin}
        rules["first, if missing 0.5"] = replace(_RULE, missing_reward=0.5)
        found += [Case(name, rule, replace(feedback, missing=rate)) for name, rule in rules.items()]
    return found


def run_case(file: ReplayFile, rounds: Sequence[Round], case: Case, budget_usd: float, seed: int) -> Found:
    """Plays the file twice: as served, for the lift, and uniformly, for a bias that choice has no part in."""
    plan = plan_of(file, seed)
    begin = plan.measured_from
    outcomes = table(file, plan)
    spec = RouterSpec(objective=Objective(budget_usd), reward_rule=case.rule)
    served = [choice.model for choice in _play(file, rounds, case, spec, seed)]
    measured = measure(outcomes, served[begin:])
    uniform = list(_play(file, rounds, case, replace(spec, policy="uniform"), seed))
    predicted = np.array([[each.quality for each in choice.candidates] for choice in uniform[begin:]])
    above = (predicted - outcomes.quality).mean(axis=0).tolist()
    world = _world(file, rounds, case, spec, seed)
    silent = [not _heard(world, position, model) for position, model in enumerate(served)]
    return Found(
        silent=float(np.mean(silent)),
        quality=measured.quality,
        lift=measured.lift,
        bias=dict(zip(file.models, above, strict=True)),
    )


def _play(file: ReplayFile, rounds: Sequence[Round], case: Case, spec: RouterSpec, seed: int) -> Iterator[Choice]:
    return simulate(_world(file, rounds, case, spec, seed), seed)


def _world(file: ReplayFile, rounds: Sequence[Round], case: Case, spec: RouterSpec, seed: int) -> World:
    models = tuple(Model(each, index, ModelSpec()) for index, each in enumerate(file.models))
    router = Router("replay", spec, models)
    ordered = [rounds[row] for row in plan_of(file, seed).order]
    return SignalWorld(router, ordered, case.feedback, seed) if case.feedback else World(router, ordered)


def _heard(world: World, position: int, model: str) -> bool:
    return any(
        (each.reward is not None or each.signals) and each.delay <= WINDOW_ROUNDS
        for each in world.arrivals(position, model)
    )
