"""The worlds that decisions are played in: a steady one, and those where prices, models or rewards change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from policy.domain import Model, ModelError, ModelSpec, Objective, Prices, Router, RouterSpec
from policy.log import Usage
from policy.simulation import Arrival, Outcome, Table, World
from scripts.decisions.problem import Problem

FORMER_ROUNDS = 200
"""A model's former share is taken over so many rounds before a change."""

_MISSING = 0.8
_DELAY_ROUNDS = 200
_OUTAGE_ROUNDS_MAX = 500


@dataclass(frozen=True)
class Setting:
    """What every world is made of: a problem, its order of play, where changes begin, and the budget.

    Changes fall into the rounds from `begin` on: 0 is the whole stream.
    """

    problem: Problem
    order: Sequence[int]
    begin: int
    budget_usd: float
    seed: int

    def thirds(self) -> list[tuple[int, int]]:
        """The three phases of a change: first round, and the first one after."""
        edges = np.linspace(self.begin, len(self.order), 4).astype(int).tolist()
        return list(pairwise(edges))

    @property
    def middle(self) -> int:
        """The round at the middle of the part that changes."""
        return (self.begin + len(self.order)) // 2


class Steady(World):
    """Nothing changes. With `priced`, the registry tells each model's list price; `policy` is the router's."""

    def __init__(self, setting: Setting, *, priced: bool = False, policy: str = "learned") -> None:
        problem = setting.problem
        self.setting = setting
        self.chosen: list[str] = []
        listed = problem.prices_usd_per_million_tokens
        models = tuple(
            Model(name, uid, ModelSpec(prices=_both(listed[name]) if priced else Prices()))
            for uid, name in enumerate(problem.models)
        )
        spec = RouterSpec(objective=Objective(budget_usd_per_request=setting.budget_usd), policy=policy)
        super().__init__(Router("benchmark", spec, models), [problem.rounds[row] for row in setting.order])

    def outcome(self, position: int, model: str) -> Outcome:
        """What comes of calling this model in this round."""
        return self.rounds[position].outcomes[model]

    def arrivals(self, position: int, model: str) -> Sequence[Arrival]:
        self.chosen.append(model)
        return self.reports(position, self.outcome(position, model))

    def reports(self, position: int, outcome: Outcome) -> Sequence[Arrival]:
        """The reports of a call that came to this. Tokens are not told, only the bill."""
        return (Arrival(reward=outcome.quality, usage=Usage(cost_usd=outcome.cost_usd)),)

    def models_at(self, position: int) -> tuple[str, ...]:
        """The models that may be called in this round."""
        return tuple(model.id for model in self.router(position).models)

    def table(self, first: int, last: int) -> Table:
        """The outcomes, as this world had them, of rounds first to last - 1, of the models present at first."""
        models = self.models_at(first)
        rows = [[self.outcome(position, model) for model in models] for position in range(first, last)]
        quality = [[each.quality for each in row] for row in rows]
        return Table(models, np.array(quality), np.array([[each.cost_usd for each in row] for row in rows]))

    def favourite(self, position: int) -> str:
        """The model most called in the rounds just before this one."""
        return Counter(self.chosen[max(0, position - FORMER_ROUNDS) : position]).most_common(1)[0][0]


class PriceCut(Steady):
    """The dearest model costs a tenth in the middle third.

    The registry has list prices, and with `told` its price changes with the bills, as when an
    operator follows a price list; without, the bills alone tell.
    """

    def __init__(self, setting: Setting, *, told: bool) -> None:
        super().__init__(setting, priced=True)
        self.model = setting.problem.by_cost()[-1]
        self._first, self._last = setting.thirds()[1]
        models = tuple(_priced(each, 0.1) if each.id == self.model else each for each in self._router.models)
        self._during = replace(self._router, models=models) if told else self._router

    def router(self, position: int) -> Router:
        return self._during if self._first <= position < self._last else self._router

    def outcome(self, position: int, model: str) -> Outcome:
        usual = super().outcome(position, model)
        if model == self.model and self._first <= position < self._last:
            return replace(usual, cost_usd=usual.cost_usd * 0.1)
        return usual


class Regression(Steady):
    """In the middle third a model's quality is `factor` times itself. Its price stays, and nothing tells."""

    def __init__(self, setting: Setting, model: str, factor: float) -> None:
        super().__init__(setting)
        self.model, self._factor = model, factor
        self._first, self._last = setting.thirds()[1]

    def outcome(self, position: int, model: str) -> Outcome:
        usual = super().outcome(position, model)
        if model == self.model and self._first <= position < self._last:
            return replace(usual, quality=usual.quality * self._factor)
        return usual


class Newcomer(Steady):
    """At the middle a model is added that answers as a present one does and costs half.

    Without the name of one it copies the favourite: the model most called in the 200 rounds before.
    The registry has list prices, the newcomer's too.
    """

    def __init__(self, setting: Setting, copied: str = "") -> None:
        super().__init__(setting, priced=True)
        self.copied = copied
        self._after: Router | None = None

    @property
    def newcomer(self) -> str:
        """The name of the model that is added."""
        return f"{self.copied}-half-price"

    def router(self, position: int) -> Router:
        if position < self.setting.middle:
            return self._router
        if self._after is None:
            self.copied = self.copied or self.favourite(position)
            original = next(each for each in self._router.models if each.id == self.copied)
            added = replace(_priced(original, 0.5), id=self.newcomer, uid=len(self._router.models))
            self._after = replace(self._router, models=(*self._router.models, added))
        return self._after

    def outcome(self, position: int, model: str) -> Outcome:
        if self.copied and model == self.newcomer:
            usual = super().outcome(position, self.copied)
            return replace(usual, cost_usd=usual.cost_usd * 0.5)
        return super().outcome(position, model)


class Outage(Steady):
    """From the middle on, for 500 rounds or a sixth of the stream, every call to the favourite fails.

    The favourite is the model most called in the 200 rounds before. A failed call is reported as
    unavailable, costs nothing and earns nothing.
    """

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.first = setting.middle
        self.last = self.first + min(_OUTAGE_ROUNDS_MAX, (len(setting.order) - setting.begin) // 6)
        self.model = ""

    def router(self, position: int) -> Router:
        if position == self.first:
            self.model = self.favourite(position)
        return self._router

    def down(self, position: int, model: str) -> bool:
        """Whether a call to this model fails in this round."""
        return model == self.model and self.first <= position < self.last

    def outcome(self, position: int, model: str) -> Outcome:
        return Outcome(0.0, 0.0) if self.down(position, model) else super().outcome(position, model)

    def arrivals(self, position: int, model: str) -> Sequence[Arrival]:
        usual = super().arrivals(position, model)
        return (Arrival(error=ModelError.UNAVAILABLE),) if self.down(position, model) else usual


class LateRewards(Steady):
    """80 % of the rewards never come, at random, and the others 200 rounds late. Usage comes at once."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        generator = np.random.default_rng([setting.seed, len(setting.order)])
        self.missing = generator.random(len(setting.order)) < _MISSING

    def reports(self, position: int, outcome: Outcome) -> Sequence[Arrival]:
        usage = Arrival(usage=Usage(cost_usd=outcome.cost_usd))
        return (usage,) if self.missing[position] else (usage, Arrival(_DELAY_ROUNDS, reward=outcome.quality))


def _both(price: float) -> Prices:
    return Prices(input_usd_per_million_tokens=price, output_usd_per_million_tokens=price)


def _priced(model: Model, factor: float) -> Model:
    price = model.spec.prices.input_usd_per_million_tokens * factor
    return replace(model, spec=replace(model.spec, prices=_both(price)))
