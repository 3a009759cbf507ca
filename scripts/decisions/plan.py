"""Which jobs a run consists of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scripts.decisions.jobs import Job
from scripts.decisions.policies import CEILING, CEILING_MEAN_COSTS, CHANGE_PEERS, PARETO_WARM, POINTSMAN
from scripts.decisions.problem import Problem

# Those at which ParetoBandit publishes how it bears a regression on the data of this file.
_PUBLISHED_FILE = "benchmarks3"
_PUBLISHED_BUDGETS_USD = (3.0e-4, 6.6e-4, 1.9e-3)

_CHANGES = ("price", "price-untold", "regression", "newcomer", "outage")


@dataclass(frozen=True)
class Options:
    """What to run. `peer_seeds` is for all but Pointsman and the ceiling."""

    seeds: int = 5
    peer_seeds: int = 5
    budgets: int = 7
    at_budgets_usd: tuple[float, ...] = ()
    cases: tuple[str, ...] = ("frontier",)
    peers: tuple[str, ...] = ()
    regressing: str = ""
    regressed_to: float = 0.75
    copied: str = ""
    whole: bool = True
    change_budgets: int = 3


def jobs(problems: Sequence[Problem], options: Options) -> list[Job]:
    """Every job of the run, without doubles."""
    found: list[Job] = []
    for index, problem in enumerate(problems):
        found += _frontier_jobs(index, problem, options)
        for case in options.cases:
            if case in _CHANGES:
                found += _change_jobs(index, problem, case, options)
    return list(dict.fromkeys(found))


def frontier_budgets(problem: Problem, options: Options) -> list[float]:
    """The budgets that mean and worst lift are taken over."""
    return problem.budgets(options.budgets)


def extra_budgets(problem: Problem, options: Options) -> list[float]:
    """The budgets asked for by `--at-budget` that lie in this file's range."""
    low, high = problem.budget_low_usd, problem.budget_high_usd
    return [each for each in options.at_budgets_usd if low <= each <= high]


def sweep_budgets(problem: Problem, options: Options) -> list[float]:
    """Budgets between the frontier's, for the cheapest spend that reaches a quality."""
    grid = problem.budgets(4 * (options.budgets - 1) + 1)
    return [each for number, each in enumerate(grid) if number % 4]


def change_budgets(problem: Problem, case: str, options: Options) -> list[float]:
    """Budgets in the middle of the range, or for a regression the published ones on their file."""
    if case == "regression" and problem.name == _PUBLISHED_FILE:
        return list(_PUBLISHED_BUDGETS_USD)[: options.change_budgets]
    grid = problem.budgets(7)[2:5]
    return grid if options.change_budgets == 3 else grid[1:2]


def seeds_of(policy: str, options: Options) -> range:
    """The seeds a policy is played with."""
    return range(options.seeds if policy in (POINTSMAN, CEILING, CEILING_MEAN_COSTS) else options.peer_seeds)


def peers_of(problem: Problem, options: Options) -> tuple[str, ...]:
    """The peers that can be played on this file."""
    warm = problem.published_features is not None
    return tuple(each for each in options.peers if warm or each != PARETO_WARM)


def _frontier_jobs(index: int, problem: Problem, options: Options) -> list[Job]:
    budgets = [*frontier_budgets(problem, options), *extra_budgets(problem, options)]
    found = []
    if "frontier" in options.cases or "apgr" in options.cases:
        others = (CEILING, CEILING_MEAN_COSTS, *peers_of(problem, options))
        policies = (POINTSMAN, *others) if "frontier" in options.cases else (POINTSMAN,)
        found += _crossed(index, "frontier", policies, budgets, options)
    if "apgr" in options.cases and len(problem.models) == 2:
        # Where models are drawn uniformly the budget has no part in what is learned.
        found += _crossed(index, "uniform", (POINTSMAN,), budgets[:1], options)
    if "saving" in options.cases:
        every = [*frontier_budgets(problem, options), *sweep_budgets(problem, options)]
        found += _crossed(index, "frontier", (POINTSMAN,), every, options)
    if "rewards" in options.cases:
        every = frontier_budgets(problem, options)
        found += _crossed(index, "rewards", (POINTSMAN,), every, options)
        found += _crossed(index, "frontier", (POINTSMAN,), every, options)
    return found


def _change_jobs(index: int, problem: Problem, case: str, options: Options) -> list[Job]:
    model = options.regressing if options.regressing in problem.models else problem.by_cost()[-2:][0]
    copied = options.copied if options.copied in problem.models else ""
    peers = tuple(each for each in peers_of(problem, options) if each in CHANGE_PEERS)
    return [
        Job(index, case, policy, budget, seed, options.whole, model, options.regressed_to, copied)
        for policy in (POINTSMAN, *peers)
        for budget in change_budgets(problem, case, options)
        for seed in seeds_of(policy, options)
    ]


def _crossed(
    index: int, case: str, policies: Sequence[str], budgets: Sequence[float], options: Options
) -> list[Job]:
    return [
        Job(index, case, policy, budget, seed)
        for policy in policies
        for budget in budgets
        for seed in seeds_of(policy, options)
    ]
