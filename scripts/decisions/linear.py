"""Linear peers: LinUCB, LinTS and epsilon-greedy, one ridge a model, with a plain dual step for the budget."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from policy.domain import FloatArray, Model
from scripts.decisions.peer import Peer, Pick

# As Pointsman's own ridge: what differs between these and it should be the decisions.
_SLOPE_PRECISION = 20.0
_INTERCEPT_PRECISION = 1.0
_PRIOR_QUALITY = 1.0
_STEP = 0.002
_RATIO_MAX = 20.0


class DualPacer:
    """The price of money by dual ascent: utility per budget, one step a charged call.

    lambda += 0.002 * (min(cost / budget, 20) - 1), floored at 0.
    """

    def __init__(self, budget_usd: float) -> None:
        self.budget_usd = budget_usd
        self.price = 0.0

    def charge(self, cost_usd: float) -> None:
        """A call has cost this."""
        ratio = min(cost_usd / self.budget_usd, _RATIO_MAX)
        self.price = max(0.0, self.price + _STEP * (ratio - 1.0))


class Ridges:
    """One ridge regression a model. Axes: `weights` (models, features), `inverse` (models, features, features)."""

    def __init__(self) -> None:
        self.weights: FloatArray = np.zeros((0, 0))
        self.inverse: FloatArray = np.zeros((0, 0, 0))

    def grow(self, models: int, features: int) -> None:
        """Adds models, each taken to be as good as can be, until there are this many."""
        more = models - len(self.weights)
        variance = np.full(features, 1.0 / _SLOPE_PRECISION)
        variance[-1] = 1.0 / _INTERCEPT_PRECISION
        weights = np.zeros((more, features))
        weights[:, -1] = _PRIOR_QUALITY
        inverse = np.tile(np.diag(variance), (more, 1, 1))
        known = len(self.weights) > 0
        self.weights = np.concatenate([self.weights, weights]) if known else weights
        self.inverse = np.concatenate([self.inverse, inverse]) if known else inverse

    def learn(self, arm: int, x: FloatArray, target: float) -> None:
        """Learns one example (Sherman and Morrison 1950)."""
        gain = self.inverse[arm] @ x
        scale = 1.0 + float(x @ gain)
        self.weights[arm] += gain * ((target - float(self.weights[arm] @ x)) / scale)
        self.inverse[arm] -= np.outer(gain / scale, gain)

    def deviations(self, x: FloatArray) -> FloatArray:
        """The standard deviation of each model's mean at x, for noise of 1: (models,)."""
        return np.sqrt(np.maximum((self.inverse @ x) @ x, 0.0))


class LinearPeer(Peer):
    """Chooses by learned quality plus some optimism, less the price of the model's mean cost so far.

    A model that was never charged is taken to be free, and so is tried.
    """

    def __init__(self, budget_usd: float, seed: int) -> None:
        self._pacer = DualPacer(budget_usd)
        self._ridges = Ridges()
        self._generator = np.random.default_rng(seed)
        self._ids: list[str] = []
        self._present: list[int] = []
        self._charged: list[int] = []
        self._cost_sums_usd: list[float] = []

    def set_models(self, models: Sequence[Model]) -> None:
        for model in models:
            if model.id not in self._ids:
                self._ids.append(model.id)
                self._charged.append(0)
                self._cost_sums_usd.append(0.0)
        self._present = [self._ids.index(model.id) for model in models]

    def choose(self, features: FloatArray) -> Pick:
        if len(self._ridges.weights) < len(self._ids):
            self._ridges.grow(len(self._ids), len(features))
        costs = np.array(self._cost_sums_usd) / np.maximum(self._charged, 1)
        price = self._pacer.price / self._pacer.budget_usd
        scores = self._ridges.weights @ features - price * costs
        optimism = self._optimism(features)
        arm = self._draw(scores if optimism is None else scores + optimism)
        return Pick(features, self._ids[arm])

    def _optimism(self, features: FloatArray) -> FloatArray | None:
        """What is added to the scores of this query: (models,), or None for nothing."""
        return None

    def _draw(self, scores: FloatArray) -> int:
        """The index of the model to call."""
        return max(self._present, key=lambda arm: scores[arm])

    def charge(self, pick: Pick, cost_usd: float) -> None:
        arm = self._ids.index(pick.model)
        self._charged[arm] += 1
        self._cost_sums_usd[arm] += cost_usd
        self._pacer.charge(cost_usd)

    def learn(self, pick: Pick, reward: float, cost_usd: float) -> None:
        self._ridges.learn(self._ids.index(pick.model), pick.features, reward)


class LinUcb(LinearPeer):
    """LinUCB with disjoint models (Li et al. 2010)."""

    # The best of 0.03, 0.1, 0.3 and 1 over two files, of three models and of nine; LinTS' likewise.
    alpha = 0.3

    def _optimism(self, features: FloatArray) -> FloatArray:
        return self.alpha * self._ridges.deviations(features)


class LinTs(LinearPeer):
    """Linear Thompson sampling (Agrawal and Goyal 2013).

    Models share no parameters, so it is enough to draw each one's mean at this query.
    """

    deviation = 0.03

    def _optimism(self, features: FloatArray) -> FloatArray:
        deviations = self._ridges.deviations(features)
        return self.deviation * self._generator.standard_normal(len(deviations)) * deviations


class EpsilonGreedy(LinearPeer):
    """The best score, but with a constant small probability a uniform draw."""

    epsilon = 0.005  # The best of this, 0.02 and 0.05 over the same two files.

    def _draw(self, scores: FloatArray) -> int:
        if self._generator.random() < self.epsilon:
            return int(self._generator.choice(self._present))
        return super()._draw(scores)
