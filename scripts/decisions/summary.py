"""Sums results up: means over seeds with their standard errors, for each file, case, policy and budget."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from policy.simulation import Table
from scripts.decisions.jobs import Result
from scripts.decisions.plan import Options, frontier_budgets
from scripts.decisions.policies import CEILING
from scripts.decisions.problem import Problem
from scripts.decisions.saving import spend_reaching

_BINDS_SHARE = 0.999


@dataclass(frozen=True)
class Point:
    """Means over seeds of one policy at one budget. `values` has NaN only where no seed has a number."""

    policy: str
    budget_usd: float
    seeds: int
    values: dict[str, float]
    errors: dict[str, float]
    counts: dict[str, int]


@dataclass(frozen=True)
class FrontierRow:
    """One policy over the frontier's budgets; `lift_error` is the standard error of the mean lift over seeds."""

    policy: str
    seeds: int
    lift: float
    lift_error: float
    worst_lift: float
    worst_budget_usd: float
    ceiling_share: float
    points: tuple[Point, ...]


class Results:
    """All results of a run, to be asked for by file, case and policy."""

    def __init__(self, results: Iterable[Result]) -> None:
        self._results = list(results)

    def of(self, problem: int, case: str, policy: str, budget_usd: float | None = None) -> list[Result]:
        """The results of all seeds, at one budget or at all."""
        return [
            each
            for each in self._results
            if (each.job.problem, each.job.case, each.job.policy) == (problem, case, policy)
            and budget_usd in (None, each.job.budget_usd)
        ]

    def policies(self, problem: int, case: str) -> list[str]:
        """The policies that played this case, in the order they were planned."""
        found = [each.job.policy for each in self._results if (each.job.problem, each.job.case) == (problem, case)]
        return list(dict.fromkeys(found))

    def budgets(self, problem: int, case: str, policy: str) -> list[float]:
        """The budgets at which a policy played this case, rising."""
        return sorted({each.job.budget_usd for each in self.of(problem, case, policy)})

    def point(self, problem: int, case: str, policy: str, budget_usd: float) -> Point:
        """Means over seeds at one budget."""
        found = self.of(problem, case, policy, budget_usd)
        columns = {name: [each.numbers[name] for each in found] for name in found[0].numbers}
        return Point(
            policy=policy,
            budget_usd=budget_usd,
            seeds=len(found),
            values={name: mean(column) for name, column in columns.items()},
            errors={name: standard_error(column) for name, column in columns.items()},
            counts={name: sum(not math.isnan(each) for each in column) for name, column in columns.items()},
        )

    def points(self, problem: int, case: str, policy: str) -> list[Point]:
        """Means over seeds at each budget."""
        return [self.point(problem, case, policy, each) for each in self.budgets(problem, case, policy)]


def frontier_row(
    results: Results, index: int, problem: Problem, policy: str, options: Options, case: str = "frontier"
) -> FrontierRow:
    """One policy over the frontier's budgets."""
    budgets = frontier_budgets(problem, options)
    points = tuple(results.point(index, case, policy, each) for each in budgets)
    lifts = [point.values["lift"] for point in points]
    by_seed: dict[int, list[float]] = {}
    for budget in budgets:
        for each in results.of(index, case, policy, budget):
            by_seed.setdefault(each.job.seed, []).append(each.numbers["lift"])
    worst = int(np.argmin(lifts))
    ceiling = [each for each in results.points(index, "frontier", CEILING) if each.budget_usd in budgets]
    most = mean([each.values["lift"] for each in ceiling]) if ceiling else math.nan
    return FrontierRow(
        policy=policy,
        seeds=points[0].seeds,
        lift=mean(lifts),
        lift_error=standard_error([mean(each) for each in by_seed.values()]),
        worst_lift=lifts[worst],
        worst_budget_usd=budgets[worst],
        ceiling_share=mean(lifts) / most if most > 0 else math.nan,
        points=points,
    )


@dataclass(frozen=True)
class Yardstick:
    """What needs no learning, on the measured part, as means over seeds: spend in USD, and quality."""

    name: str
    cost_usd: float
    quality: float


def measured_tables(problem: Problem, seeds: int) -> list[Table]:
    """The measured part's outcomes for each seed; one alone where the file's splits fix them."""
    count = 1 if problem.splits[0] is not None else seeds
    plans = [problem.plan(seed) for seed in range(count)]
    return [problem.table(plan.order[plan.measured_from :]) for plan in plans]


def fixed_yardsticks(problem: Problem, tables: Sequence[Table]) -> list[Yardstick]:
    """Each model always, random, and the oracle (whose spend is not limited, and not told)."""
    fixed = [table.fixed() for table in tables]
    rows = [
        Yardstick(
            f"always {model}", mean([each[model][0] for each in fixed]), mean([each[model][1] for each in fixed])
        )
        for model in problem.by_cost()
    ]
    random = [table.random() for table in tables]
    rows.append(Yardstick("random", mean([each[0] for each in random]), mean([each[1] for each in random])))
    rows.append(Yardstick("oracle", math.nan, mean([table.oracle_quality() for table in tables])))
    return rows


def best_fixed(tables: Sequence[Table], budget_usd: float) -> Yardstick:
    """The best model among those whose mean cost is within the budget; the cheapest if none is."""
    picked = []
    for table in tables:
        pairs = sorted(table.fixed().values())
        within = [pair for pair in pairs if pair[0] <= budget_usd] or pairs[:1]
        picked.append(max(within, key=lambda pair: pair[1]))
    return Yardstick("best fixed model", mean([each[0] for each in picked]), mean([each[1] for each in picked]))


def hull_at(tables: Sequence[Table], budget_usd: float) -> Yardstick:
    """The best mixture of fixed models that spends the budget, or the last corner's cost if that is less."""
    spent = [min(max(budget_usd, table.hull()[0][0]), table.hull()[0][-1]) for table in tables]
    return Yardstick(
        "hull", mean(spent), mean([table.hull_quality(cost) for table, cost in zip(tables, spent, strict=True)])
    )


@dataclass(frozen=True)
class Saving:
    """The cheapest spend of a policy that reaches 95 % of the dearest model's quality, and what that saves."""

    policy: str
    target_quality: float
    cost_usd: float
    saved: float


def saving(results: Results, index: int, policy: str, dearest: Yardstick) -> Saving:
    """From a policy's measured frontier: means over seeds of spend and quality at every budget it played."""
    target = 0.95 * dearest.quality
    points = [
        (each.values["cost_usd"], each.values["quality"]) for each in results.points(index, "frontier", policy)
    ]
    cost = spend_reaching(points, target)
    reached = math.nan if cost is None else cost
    return Saving(policy, target, reached, 1.0 - reached / dearest.cost_usd)


def binding(row: FrontierRow, dearest_usd: float) -> list[Point]:
    """The points of a policy where the budget binds it: below what the dearest model costs."""
    return [each for each in row.points if each.budget_usd < _BINDS_SHARE * dearest_usd]


def mean(values: Sequence[float]) -> float:
    """The mean of those that are numbers; NaN if none is."""
    known = [each for each in values if not math.isnan(each)]
    return float(np.mean(known)) if known else math.nan


def standard_error(values: Sequence[float]) -> float:
    """The standard error of the mean; NaN for fewer than two."""
    known = [each for each in values if not math.isnan(each)]
    return float(np.std(known, ddof=1) / math.sqrt(len(known))) if len(known) > 1 else math.nan
