"""The jobs: one policy in one world at one budget and seed, played and measured, over a pool of processes."""

from __future__ import annotations

import math
import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from threadpoolctl import threadpool_limits

from policy.simulation import measure
from scripts.decisions import change
from scripts.decisions.apgr import apgr
from scripts.decisions.ceiling import Scores, Seen, choose_within, fit_scores
from scripts.decisions.policies import (
    CEILING,
    CEILING_MEAN_COSTS,
    PARETO_COLD,
    POINTSMAN,
    play_policy,
    quality_gaps,
)
from scripts.decisions.problem import Problem
from scripts.decisions.worlds import (
    LateRewards,
    Newcomer,
    Outage,
    PriceCut,
    Regression,
    Setting,
    Steady,
)

PLOT_POINTS = 200
_PLOT_WINDOW = 150
_CEILINGS = (CEILING, CEILING_MEAN_COSTS)

Numbers = dict[str, float]


@dataclass(frozen=True, slots=True)
class Job:
    """What to play.

    `regressing` and `copied` name the models of a regression and a newcomer; `whole` lets changes
    fill the whole stream.
    """

    problem: int
    case: str
    policy: str
    budget_usd: float
    seed: int
    whole: bool = True
    regressing: str = ""
    regressed_to: float = 0.75
    copied: str = ""


@dataclass(frozen=True)
class Result:
    """What came of a job: numbers by name, NaN where something did not happen, and lines to plot."""

    job: Job
    numbers: Numbers
    lines: dict[str, list[float]] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0


def run_all(
    problems: Sequence[Problem], jobs: Sequence[Job], processes: int, on_result: Callable[[Result], object]
) -> list[Result]:
    """Runs the jobs, the long ones first; results are in the jobs' order, so that a run can be repeated."""
    found = {}
    for result in _results(problems, jobs, processes):
        found[result.job] = result
        on_result(result)
    return [found[job] for job in jobs]


def _results(problems: Sequence[Problem], jobs: Sequence[Job], processes: int) -> Iterator[Result]:
    ordered = sorted(jobs, key=lambda job: -_effort(problems[job.problem], job))
    if processes == 1:
        _begin(problems)
        yield from map(_run, ordered)
        return
    # Not forked: threads of the parent's libraries do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, initializer=_begin, initargs=(problems,)) as pool:
        for future in as_completed([pool.submit(_run, job) for job in ordered]):
            yield future.result()


def _effort(problem: Problem, job: Job) -> float:
    usual = {POINTSMAN: 1.0, CEILING: 0.3, CEILING_MEAN_COSTS: 0.3, PARETO_COLD: 6.0}.get(job.policy, 3.0)
    return len(problem.rounds) * usual


_PROBLEMS: list[Problem] = []


def _begin(problems: Sequence[Problem]) -> None:
    # One thread a process: the processes share the cores already, and sums then have one order.
    threadpool_limits(limits=1, user_api="blas")
    _PROBLEMS[:] = problems


def _run(job: Job) -> Result:
    started = time.perf_counter()
    problem = _PROBLEMS[job.problem]
    plan = problem.plan(job.seed)
    begin = 0 if job.whole else plan.measured_from
    setting = Setting(problem, plan.order.tolist(), begin, job.budget_usd, job.seed)
    result = _ceiling(job, setting) if job.policy in _CEILINGS else _CASES[job.case](job, setting)
    return Result(result.job, result.numbers, result.lines, result.notes, time.perf_counter() - started)


def _frontier(job: Job, setting: Setting) -> Result:
    world = LateRewards(setting) if job.case == "rewards" else Steady(setting, policy=_ROUTERS[job.case])
    choices = play_policy(job.policy, world, setting.problem)
    first = setting.problem.plan(job.seed).measured_from
    numbers = _frontier_numbers(job, setting, world.chosen[first:])
    if choices and len(setting.problem.models) == 2:
        table = world.table(first, len(world.rounds))
        weak, strong = sorted(table.models, key=lambda each: table.fixed()[each][1])
        gaps = quality_gaps(choices[first:], strong, weak)
        columns = (table.quality[:, table.models.index(each)] for each in (weak, strong))
        numbers["apgr"] = apgr(gaps, *columns)
    return Result(job, numbers)


def _frontier_numbers(job: Job, setting: Setting, chosen: Sequence[str]) -> Numbers:
    plan = setting.problem.plan(job.seed)
    found = measure(setting.problem.table(plan.order[plan.measured_from :]), chosen)
    return {
        "quality": found.quality,
        "cost_usd": found.cost_usd,
        "utilization": found.cost_usd / job.budget_usd,
        "lift": found.lift,
    }


def _ceiling(job: Job, setting: Setting) -> Result:
    problem, plan = setting.problem, setting.problem.plan(job.seed)
    table = problem.table(plan.order[plan.measured_from :])
    scores = _supervised(job.problem, job.seed)
    if job.policy == CEILING_MEAN_COSTS:
        means = np.array([problem.mean_costs_usd[model] for model in problem.models])
        scores = Scores(scores.quality, np.tile(means, (len(scores.quality), 1)))
    picked = choose_within(scores, table.cost_usd, job.budget_usd)
    return Result(job, _frontier_numbers(job, setting, [problem.models[each] for each in picked]))


@lru_cache(maxsize=4)
def _supervised(problem_index: int, seed: int) -> Scores:
    problem = _PROBLEMS[problem_index]
    plan = problem.plan(seed)
    x = problem.features[plan.order]
    learned = problem.table(plan.order[: plan.measured_from])
    seen = Seen(x[: plan.measured_from], learned.quality, learned.cost_usd)
    lengths = np.array([problem.rounds[row].prompt_tokens for row in plan.order])
    return fit_scores(seen, x[plan.measured_from :], lengths[: plan.measured_from], lengths[plan.measured_from :])


def _phases(job: Job, setting: Setting) -> Result:
    world = _phased_world(job, setting)
    play_policy(job.policy, world, setting.problem)
    numbers: Numbers = {}
    for number, (first, last) in enumerate(setting.thirds(), 1):
        found = change.phase(world, first, last)
        numbers[f"quality_{number}"] = found.quality
        numbers[f"utilization_{number}"] = found.cost_usd / job.budget_usd
        numbers[f"lift_{number}"] = found.lift
    spent = change.phase(world, setting.begin, len(world.rounds)).cost_usd
    numbers["utilization"] = spent / job.budget_usd
    return Result(job, numbers, _lines(world), {"model": world.model})


def _phased_world(job: Job, setting: Setting) -> PriceCut | Regression:
    if job.case == "regression":
        return Regression(setting, job.regressing, job.regressed_to)
    return PriceCut(setting, told=job.case == "price")


def _newcomer(job: Job, setting: Setting) -> Result:
    world = Newcomer(setting, job.copied)
    play_policy(job.policy, world, setting.problem)
    former = change.former_share(world.chosen, world.copied, setting.middle)
    rounds = change.rounds_until_share(world.chosen, world.newcomer, setting.middle, former / 2)
    later = change.share(world.chosen, world.newcomer, setting.middle, len(world.chosen))
    numbers = {"former_share": former, "rounds": _or_nan(rounds), "later_share": later}
    return Result(job, numbers, _lines(world), {"model": world.copied})


def _outage(job: Job, setting: Setting) -> Result:
    world = Outage(setting)
    choices = play_policy(job.policy, world, setting.problem)
    found = change.bear(world.chosen, world.model, world.first, world.last)
    # Peers know of no probes: what they call a failing model for cannot be told.
    probes = float(sum(each.probe for each in choices[world.first : world.last])) if choices else math.nan
    numbers = {
        "former_share": change.former_share(world.chosen, world.model, world.first),
        "failed_calls": float(found.failed_calls),
        "probes": probes,
        "probes_of_stream": probes / len(world.chosen),
        "left_after_calls": _or_nan(found.left_after_calls),
        "probes_share": _or_nan(found.probes_share),
        "back_rounds": _or_nan(found.back_rounds),
    }
    return Result(job, numbers, _lines(world), {"model": world.model})


def _lines(world: Steady) -> dict[str, list[float]]:
    quality, cost = change.earned(world)
    return {
        "quality": change.rolling(quality, _PLOT_WINDOW, PLOT_POINTS),
        "cost_usd": change.rolling(cost, _PLOT_WINDOW, PLOT_POINTS),
    }


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else float(value)


_ROUTERS = {"frontier": "learned", "uniform": "uniform"}
"""The router's policy in the cases in which nothing changes."""

_CASES: dict[str, Callable[[Job, Setting], Result]] = {
    "frontier": _frontier,
    "uniform": _frontier,
    "rewards": _frontier,
    "price": _phases,
    "price-untold": _phases,
    "regression": _phases,
    "newcomer": _newcomer,
    "outage": _outage,
}
CASES = tuple(_CASES)
