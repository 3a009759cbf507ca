"""Vowpal Wabbit's own contextual bandit as a peer: SquareCB on the utility, cost within it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import vowpalwabbit

from policy.domain import FloatArray, Model
from scripts.decisions.linear import DualPacer
from scripts.decisions.peer import Peer, Pick

# Of its optimisers the default needs learning rates tuned to utilities that span four orders of magnitude.
_OPTIONS = "--quiet --cb_explore_adf --squarecb -q sa --ignore_linear s --coin"


class SquareCb(Peer):
    """Learns the scalar utility quality - lambda * cost / budget at the price of when it was reported.

    Query features cross with the model's name.
    """

    def __init__(self, budget_usd: float, seed: int) -> None:
        self._pacer = DualPacer(budget_usd)
        self._generator = np.random.default_rng(seed)
        self._workspace = vowpalwabbit.Workspace(f"{_OPTIONS} --random_seed {seed}")
        self._ids: list[str] = []
        self._actions: list[str] = []

    def set_models(self, models: Sequence[Model]) -> None:
        self._ids = [model.id for model in models]
        self._actions = [f"|a m{model.uid}" for model in models]

    def choose(self, features: FloatArray) -> Pick:
        probabilities = self._workspace.predict([_shared(features), *self._actions])
        chances = np.array(probabilities, dtype=np.float64)
        chances /= chances.sum()
        arm = int(self._generator.choice(len(chances), p=chances))
        return Pick(features, self._ids[arm], float(chances[arm]))

    def charge(self, pick: Pick, cost_usd: float) -> None:
        self._pacer.charge(cost_usd)

    def learn(self, pick: Pick, reward: float, cost_usd: float) -> None:
        utility = reward - self._pacer.price * cost_usd / self._pacer.budget_usd
        arm = self._ids.index(pick.model)
        labelled = list(self._actions)
        labelled[arm] = f"0:{-utility:.6g}:{pick.probability:.6g} {labelled[arm]}"
        self._workspace.learn([_shared(pick.features), *labelled])


def _shared(features: FloatArray) -> str:
    return "shared |s " + " ".join(
        f"{index}:{value:.5g}" for index, value in enumerate(features.tolist()) if value
    )
