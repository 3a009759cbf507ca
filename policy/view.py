"""What is known of a router and its models at one position of the log, laid out for decisions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from policy.circuit import Circuit
from policy.cost import CostPredictor, CostTerms
from policy.domain import Router
from policy.quality import Predictor

_LATENCY_MEMORY = 200.0


@dataclass
class ModelRecord:
    """What a model has done."""

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

    def add_latency(self, seconds: float) -> None:
        """Follows the mean latency, with a memory of some hundred calls."""
        self.latencies += 1
        self.latency_seconds += (seconds - self.latency_seconds) / min(self.latencies, _LATENCY_MEMORY)


@dataclass
class RouterRecord:
    """What a router has done. `charged` counts the decisions whose cost is settled."""

    decisions: int = 0
    rewards: int = 0
    charged: int = 0
    spent_usd: float = 0.0


@dataclass(frozen=True)
class Aligned:
    """A view laid out for a router's models, in their order. Lists are (models,)."""

    ids: tuple[str, ...]
    keys: tuple[str, ...]
    costs: CostTerms
    costs_known: list[bool]
    latency_seconds: list[float]
    rewards: list[int]
    circuits: list[Circuit]


@dataclass(frozen=True)
class PolicyView:
    """What decisions are made with: everything learned up to one position of the log. Immutable.

    `pacer_price` is in utility per USD, 0 without a budget.
    """

    snapshot: int
    embedding_dimensions: int
    quality: Predictor
    cost: CostPredictor
    pacer_price: float
    router: RouterRecord
    models: Mapping[str, ModelRecord]
    _aligned: list[tuple[Router, Aligned]] = field(default_factory=list)

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
            costs_known=costs.known.tolist(),
            latency_seconds=[each.latency_seconds for each in records],
            rewards=[each.rewards for each in records],
            circuits=[each.circuit for each in records],
        )
        self._aligned[:] = [(router, aligned)]
        return aligned
