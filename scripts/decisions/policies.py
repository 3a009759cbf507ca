"""The policies that are compared, by name, and how each plays a world."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from policy.choices import Choice
from policy.domain import FloatArray
from policy.simulation import simulate
from scripts.decisions import pareto
from scripts.decisions.linear import EpsilonGreedy, LinTs, LinUcb
from scripts.decisions.pareto import ParetoBandit
from scripts.decisions.peer import Peer, play
from scripts.decisions.problem import Problem
from scripts.decisions.squarecb import SquareCb
from scripts.decisions.worlds import Steady

POINTSMAN = "Pointsman"
CEILING = "ceiling"
CEILING_MEAN_COSTS = "ceiling-mean-costs"
"""The ceiling where each model's mean cost stands for its cost of every query."""


PARETO_COLD, PARETO_WARM = pareto.COLD, pareto.WARM


def _pareto(problem: Problem, budget_usd: float, seed: int, *, warm: bool) -> Peer:
    return ParetoBandit(budget_usd, seed, problem.prices_usd_per_million_tokens, warm=warm)


_MAKERS: dict[str, Callable[[Problem, float, int], Peer]] = {
    **{each: partial(_pareto, warm=each == pareto.WARM) for each in pareto.VARIANTS},
    "VW-SquareCB": lambda _, budget, seed: SquareCb(budget, seed),
    "LinUCB": lambda _, budget, seed: LinUcb(budget, seed),
    "LinTS": lambda _, budget, seed: LinTs(budget, seed),
    "epsilon-greedy": lambda _, budget, seed: EpsilonGreedy(budget, seed),
}
PEERS = tuple(_MAKERS)
CHANGE_PEERS = pareto.VARIANTS
"""The peers that are played in changing worlds too."""


def why_skipped(policy: str) -> str | None:
    """Why a policy cannot be played on any file here, None if it can."""
    return pareto.why_missing() if policy in pareto.VARIANTS else None


def play_policy(policy: str, world: Steady, problem: Problem) -> list[Choice]:
    """Plays a world to its end; `world.chosen` has the models then.

    Gives Pointsman's choices, for what they predicted; of the peers none are kept.
    """
    setting = world.setting
    if policy == POINTSMAN:
        return list(simulate(world, setting.seed))
    peer = _MAKERS[policy](problem, setting.budget_usd, setting.seed)
    for _ in play(world, peer, _features(policy, problem)[setting.order]):
        pass
    return []


def _features(policy: str, problem: Problem) -> FloatArray:
    """What a peer is shown of the queries, in the file's order: (rows, features)."""
    if policy == pareto.WARM:
        if problem.published_features is None:
            raise ValueError(f"{problem.name} has no published features")
        return problem.published_features
    return problem.components if policy == pareto.COLD_COMPONENTS else problem.features


def quality_gaps(choices: list[Choice], strong: str, weak: str) -> FloatArray:
    """By how much each choice predicted the strong model's quality ahead of the weak one's: (rounds,)."""
    names = [each.model for each in choices[0].candidates]
    one, other = names.index(strong), names.index(weak)
    return np.array([each.candidates[one].quality - each.candidates[other].quality for each in choices])
