"""The policies that are compared, by name, and how each plays a world."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from policy.domain import Choice, FloatArray
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

_MAKERS: dict[str, Callable[[Problem, float, int], Peer]] = {
    "ParetoBandit cold": lambda problem, budget, seed: ParetoBandit(
        budget, seed, problem.prices_usd_per_million_tokens
    ),
    "VW SquareCB": lambda _, budget, seed: SquareCb(budget, seed),
    "LinUCB": lambda _, budget, seed: LinUcb(budget, seed),
    "LinTS": lambda _, budget, seed: LinTs(budget, seed),
    "epsilon-greedy": lambda _, budget, seed: EpsilonGreedy(budget, seed),
}
PEERS = tuple(_MAKERS)
CHANGE_PEERS = ("ParetoBandit cold",)
"""The peers that are played in changing worlds too."""


def why_skipped(policy: str) -> str | None:
    """Why a policy cannot be played here, None if it can."""
    return pareto.why_missing() if policy.startswith("ParetoBandit") else None


def play_policy(policy: str, world: Steady, problem: Problem) -> list[Choice]:
    """Plays a world to its end; `world.chosen` has the models then.

    Gives Pointsman's choices, for what they predicted; of the peers none are kept.
    """
    setting = world.setting
    if policy == POINTSMAN:
        return list(simulate(world, setting.seed))
    peer = _MAKERS[policy](problem, setting.budget_usd, setting.seed)
    for _ in play(world, peer, problem.columns):
        pass
    return []


def quality_gaps(choices: list[Choice], strong: str, weak: str) -> FloatArray:
    """By how much each choice predicted the strong model's quality ahead of the weak one's: (rounds,)."""
    names = [each.model for each in choices[0].candidates]
    one, other = names.index(strong), names.index(weak)
    return np.array([each.candidates[one].quality - each.candidates[other].quality for each in choices])
