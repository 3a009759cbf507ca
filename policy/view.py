"""What is known of a router and its models at one position of the log, laid out for decisions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from policy.allowance import Standing
from policy.books import Explored, loss_limit
from policy.circuit import Circuit
from policy.cost import CostPredictor, CostTerms
from policy.domain import FloatArray, Model, ModelState, Objective, Router
from policy.drift import FIRST_VARIANCE, Level
from policy.exploration import Rules
from policy.quality import Predictor
from policy.quick import quick
from policy.second_calls import SecondCalls
from policy.shadow import Compared
from policy.shares import Experience, Known

_LATENCY_MEMORY = 200.0
_RETRIAL_MAX = 0.1
_TRIAL_REWARDS = 2.0


@dataclass
class ModelRecord:
    """What a model has done. `decisions` are the router's own, `imported` those made elsewhere; rewards,
    costs and latencies are of both. `offset`, `fallen`, `return_evidence` and `variance` are those of its
    `drift.Level`, which last changed when the router had made `changed_at` decisions. `joined_at` is how many
    rewards the router had learned from when the model was added, `decisions_before` how many decisions the model
    had when what is known of it began: a new learner, or one that went back, has to try it anew.
    """

    decisions: int = 0
    rewards: int = 0
    reward_sum: float = 0.0
    calls_charged: int = 0
    cost_sum_usd: float = 0.0
    closed: int = 0
    missing: int = 0
    errors: int = 0
    latencies: int = 0
    latency_seconds: float = 0.0
    circuit: Circuit = Circuit()
    offset: float = 0.0
    fallen: float = 0.0
    return_evidence: float = 0.0
    variance: float = FIRST_VARIANCE
    changed_at: int = 0
    joined_at: int = 0
    decisions_before: int = 0
    explored: Explored = Explored()
    imported: int = 0

    @classmethod
    def restore(cls, state: Mapping[str, Any]) -> ModelRecord:
        """The record whose fields were written as JSON."""
        circuit, explored = Circuit.restore(state["circuit"]), Explored(**state["explored"])
        return cls(**{**state, "circuit": circuit, "explored": explored})

    def follow(self, level: Level) -> None:
        """Takes over how its level now stands."""
        self.offset, self.fallen = level.offset, level.fallen
        self.return_evidence, self.variance = level.return_evidence, level.variance

    @property
    def tried(self) -> int:
        """The rewards that are known, or half of the calls since where they are more: where most rewards never
        come, trials would go on for long, each at the cost of a worse answer.
        """
        return max(self.rewards, (self.decisions - self.decisions_before) // 2)

    def retrial(self, decisions: int) -> float:
        """How probable it is to be tried for its return, when the router has made so many decisions.

        It falls with the root of the decisions since, as a return becomes less likely: then what trials
        have cost in vain and what a late discovery costs grow alike. It is the higher the more the trials that
        were made speak for a return, as its odds are.
        """
        if not self.fallen:
            return 0.0
        return min(_RETRIAL_MAX, math.exp(self.return_evidence) / math.sqrt(1.0 + decisions - self.changed_at))

    @property
    def doubt(self) -> float:
        """How much better than it looks a model may well be that joined when the others were known: two
        standard errors of a mean.

        Exploration has become rare by then, and one that was unlucky in its burn-in would not be heard of
        again. 0 after twice the root of the rewards there were when it joined: what is spent on the trial
        grows slower than what there is to gain from it. 0 also for those that a router began with.
        """
        if self.rewards >= _TRIAL_REWARDS * math.sqrt(self.joined_at):
            return 0.0
        return 2.0 * math.sqrt(self.variance / (self.rewards + 1.0))

    def add_latency(self, seconds: float) -> None:
        """Follows the mean latency, with a memory of some hundred calls."""
        self.latencies += 1
        self.latency_seconds += (seconds - self.latency_seconds) / min(self.latencies, _LATENCY_MEMORY)


def experience_of(records: Sequence[ModelRecord], costs_known: Sequence[bool], decisions: int) -> Experience:
    """What a policy has to know of these models when the router has made so many decisions."""
    rows = [
        (each.rewards, each.tried, each.fallen, each.retrial(decisions), each.doubt, known)
        for each, known in zip(records, costs_known, strict=True)
    ]
    return np.array(rows, dtype=np.float64).reshape(len(rows), len(Known))


@dataclass
class RouterRecord:
    """What a router has done. `charged` counts the decisions whose cost is settled; `exploration_owed` is the
    utility that exploring has given up beyond its average: see `books.loss_limit`. `imported` decisions were
    made elsewhere, and are none of the `decisions`.
    """

    decisions: int = 0
    rewards: int = 0
    charged: int = 0
    spent_usd: float = 0.0
    exploration_owed: float = 0.0
    explored: Explored = Explored()
    imported: int = 0
    compared: Compared = Compared()
    second: SecondCalls = SecondCalls()

    @classmethod
    def restore(cls, state: Mapping[str, Any]) -> RouterRecord:
        """The record whose fields were written as JSON."""
        books = {
            "explored": Explored(**state["explored"]),
            "compared": Compared(**state["compared"]),
            "second": SecondCalls(**state["second"]),
        }
        return cls(**{**state, **books})


@quick
@dataclass(frozen=True, slots=True)
class Aligned:
    """A view laid out for a router's models, in their order. Lists are (models,)."""

    ids: tuple[str, ...]
    keys: tuple[str, ...]
    costs: CostTerms
    experience: Experience
    rules: Rules
    latency_seconds: list[float]
    offsets: list[float]
    circuits: list[Circuit]
    unrestricted: bool
    """Whether of themselves all may be called for any query: none is disabled, failing, or of a limited window."""


@quick
@dataclass(frozen=True, slots=True)
class PolicyView:
    """What decisions are made with: everything learned up to one position of the log. Immutable.

    `pacer_price` is in utility per USD, 0 without a budget. `typical_features` (features,) are the mean
    of the recent queries'. `budget_usd_per_request` is what the price was solved for, 0 where nothing was
    yet; `standing` is that of a period's budget, None without one.
    """

    snapshot: int
    embedding_dimensions: int
    quality: Predictor
    cost: CostPredictor
    pacer_price: float
    router: RouterRecord
    models: Mapping[str, ModelRecord]
    typical_features: FloatArray
    budget_usd_per_request: float = 0.0
    standing: Standing | None = None
    _aligned: list[tuple[Router, Aligned]] = field(default_factory=list)

    def utilization(self, objective: Objective) -> float:
        """Spend over budget: of the period if that has the budget, else of all decisions; 0 without one."""
        if self.standing is not None and objective.period_budget:
            return self.standing.spent_usd / self.standing.budget_usd
        budgeted = (objective.budget_usd_per_request or 0.0) * self.router.charged
        return self.router.spent_usd / budgeted if budgeted else 0.0

    def price_of_money(self, objective: Objective) -> float:
        """Utility that one USD stands for in a decision: what quality is worth, and the pacer's price."""
        return self.pacer_price + 1.0 / objective.value_usd

    def aligned(self, router: Router) -> Aligned:
        """The view laid out for the router as it is now, which may differ from what was learned with."""
        if self._aligned and self._aligned[0][0] is router:
            return self._aligned[0][1]
        keys = tuple(model.key for model in router.models)
        records = [self.models.get(key) or ModelRecord() for key in keys]
        costs = self.cost.terms(router.models)
        aligned = Aligned(
            ids=tuple(model.id for model in router.models),
            keys=keys,
            costs=costs,
            experience=experience_of(records, costs.known, self.router.decisions),
            rules=Rules.of(
                router.spec.exploration,
                self.router.rewards,
                loss_limit(self.router.exploration_owed, router.spec.exploration.max_utility_loss),
            ),
            latency_seconds=[each.latency_seconds for each in records],
            offsets=[each.offset for each in records],
            circuits=[each.circuit for each in records],
            unrestricted=all(_unrestricted(model) for model in router.models)
            and all(each.circuit.closed for each in records),
        )
        self._aligned[:] = [(router, aligned)]
        return aligned


def _unrestricted(model: Model) -> bool:
    return model.spec.state is ModelState.ACTIVE and not model.spec.context_window_tokens
