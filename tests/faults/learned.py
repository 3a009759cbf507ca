"""What a learner must have counted, computed from the log in another way than the learner does."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from faults.stored import Stored, StoredReport

_ROUNDING = 1e-9


@dataclass
class ModelCounts:
    """Of one model, as it is in the registry now."""

    decisions: int = 0
    rewards: int = 0
    mean_reward: float = 0.0


@dataclass
class Counts:
    """Of one router."""

    decisions: int = 0
    rewards: int = 0
    spent_usd: float = 0.0
    models: dict[str, ModelCounts] = field(default_factory=dict)


class Lives:
    """When the models of a router were in its registry."""

    def __init__(self, stored: Stored, router: str) -> None:
        mine = [each for each in stored.changes if each.kind == "registry" and each.router == router]
        self._seqs = [each.seq for each in mine]
        self._models = [each.models for each in mine]

    def alive(self, model: str, decided_at: int, seq: int) -> bool:
        """Whether the model of this name at `decided_at` is still there at `seq`, and is no other."""
        index = bisect_right(self._seqs, seq) - 1
        uid = self._models[index].get(model) if index >= 0 else None
        return uid is not None and uid <= decided_at

    def now(self) -> dict[str, int]:
        """The models at the end, with the positions that created them."""
        return dict(self._models[-1]) if self._models else {}


def counts(stored: Stored, router: str, *, last_reward: bool) -> Counts:
    """What follows from the log. With `last_reward` the last reward of a decision is the one, else the first."""
    lives = Lives(stored, router)
    told: dict[str, list[StoredReport]] = defaultdict(list)
    for report in stored.reports:
        if not report.late:
            told[report.decision_id].append(report)
    result = Counts(models={model: ModelCounts() for model in lives.now()})
    rewards: dict[str, list[float]] = defaultdict(list)
    costs: list[float] = []
    for decision in stored.decisions:
        reports = told[decision.decision_id]
        if decision.router != router or (decision.deferred and not reports):
            continue
        result.decisions += 1
        costs += [each.cost_usd for each in reports if each.cost_usd is not None]
        remains = decision.model in result.models and lives.now()[decision.model] <= decision.seq
        if remains:
            result.models[decision.model].decisions += 1
        rewarded = [
            each
            for each in reports
            if each.reward is not None and lives.alive(decision.model, decision.seq, each.seq)
        ]
        if rewarded:
            result.rewards += 1
            if remains:
                taken = rewarded[-1 if last_reward else 0].reward
                assert taken is not None
                rewards[decision.model].append(taken)
    result.spent_usd = math.fsum(costs)
    for model, learned in rewards.items():
        result.models[model].rewards = len(learned)
        result.models[model].mean_reward = math.fsum(learned) / len(learned)
    return result


def differences(name: str, expected: Counts, found: Counts) -> Iterator[str]:
    """Where what a learner has counted is not what follows from the log."""
    pairs: list[tuple[str, float, float]] = [
        ("decisions", expected.decisions, found.decisions),
        ("rewards", expected.rewards, found.rewards),
        ("USD spent", expected.spent_usd, found.spent_usd),
    ]
    for model in sorted({*expected.models, *found.models}):
        one, other = expected.models.get(model), found.models.get(model)
        if one is None or other is None:
            yield f"{name}: model {model} is only in {'the server' if one is None else 'the log'}"
            continue
        pairs += [
            (f"decisions for {model}", one.decisions, other.decisions),
            (f"rewards of {model}", one.rewards, other.rewards),
            (f"mean reward of {model}", one.mean_reward, other.mean_reward),
        ]
    for what, one, other in pairs:
        if not math.isclose(one, other, rel_tol=_ROUNDING, abs_tol=_ROUNDING):
            yield f"{name}: {what} are {one!r} by the log, {other!r} by the learner"
