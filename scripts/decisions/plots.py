"""Plots of a run: each file's frontier, and spend and reward over time where the world changes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np

from policy.simulation import Table
from scripts.decisions import summary
from scripts.decisions.jobs import PLOT_POINTS
from scripts.decisions.plan import Options
from scripts.decisions.policies import CEILING, CEILING_MEAN_COSTS, POINTSMAN
from scripts.decisions.problem import Problem
from scripts.decisions.summary import Results

mpl.use("Agg")

from matplotlib import pyplot as plt

_CHANGES = ("price", "price-untold", "regression", "newcomer", "outage")


def write_plots(folder: Path, problems: Sequence[Problem], results: Results, options: Options) -> None:
    """Writes frontier-FILE.png and CASE-FILE.png into the folder. Raises OSError."""
    for index, problem in enumerate(problems):
        if "frontier" in options.cases:
            reference = summary.measured_tables(problem, 1)[0]
            _frontier(folder / f"frontier-{problem.name}.png", index, problem, results, reference)
        for case in _CHANGES:
            if results.policies(index, case):
                _over_time(folder / f"{case}-{problem.name}.png", index, problem, results, case)


def _frontier(path: Path, index: int, problem: Problem, results: Results, reference: Table) -> None:
    figure, axes = plt.subplots(figsize=(9, 6), layout="constrained")
    costs, qualities = reference.hull()
    grid = np.geomspace(costs[0], costs[-1], 200) if len(costs) > 1 else costs
    axes.plot(grid, np.interp(grid, costs, qualities), "--", color="0.5", label="hull: mixtures of fixed models")
    for model, (cost, quality) in reference.fixed().items():
        axes.plot(cost, quality, "s", color="0.35")
        axes.annotate(model, (cost, quality), textcoords="offset points", xytext=(6, -12), fontsize=8)
    axes.plot(*reference.random(), "x", color="tab:red", label="random")
    axes.axhline(reference.oracle_quality(), ls=":", color="tab:green", label="oracle")
    for policy in results.policies(index, "frontier"):
        points = results.points(index, "frontier", policy)
        style = {POINTSMAN: "o-", CEILING: "k:", CEILING_MEAN_COSTS: "k-."}.get(policy, ".-")
        spent = [each.values["cost_usd"] for each in points]
        axes.plot(
            spent,
            [each.values["quality"] for each in points],
            style,
            label=policy,
            lw=2 if policy == POINTSMAN else 1,
        )
    axes.set_xscale("log")
    axes.set_xlabel("cost, USD a request (log scale)")
    axes.set_ylabel("quality")
    axes.set_title(problem.name)
    axes.grid(alpha=0.3, which="both")
    axes.legend(loc="lower right", fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _over_time(path: Path, index: int, problem: Problem, results: Results, case: str) -> None:
    """Two rows, spend and reward; one column a budget. Means over seeds of rolling means."""
    policies = results.policies(index, case)
    budgets = results.budgets(index, case, policies[0])
    figure, grid = plt.subplots(
        2, len(budgets), figsize=(5 * len(budgets), 6), layout="constrained", squeeze=False, sharex=True
    )
    requests = np.linspace(1, len(problem.rounds), PLOT_POINTS)
    for column, budget in enumerate(budgets):
        for policy in policies:
            found = results.of(index, case, policy, budget)
            for row, name in enumerate(("cost_usd", "quality")):
                values = np.mean([each.lines[name] for each in found], axis=0)
                grid[row][column].plot(requests, values / budget if row == 0 else values, label=policy)
        grid[0][column].axhline(1.0, ls=":", color="0.5")
        grid[0][column].set_yscale("log")
        grid[0][column].set_title(f"budget {budget:.2e} USD a request")
        grid[1][column].set_xlabel("request")
    grid[0][0].set_ylabel("spend over budget")
    grid[1][0].set_ylabel("reward")
    grid[1][0].legend(fontsize=8)
    figure.suptitle(f"{case}, {problem.name}")
    figure.savefig(path, dpi=100)
    plt.close(figure)
