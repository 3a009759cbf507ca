"""Plots quality against cost: our points, each fixed model, the hull, random and the oracle."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np

from policy.simulation import Table
from server.replay.run import FrontierPoint

mpl.use("Agg")

from matplotlib import pyplot as plt


def plot_frontier(path: Path, title: str, points: Sequence[FrontierPoint], table: Table) -> None:
    """Writes the picture. Raises OSError if it cannot."""
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    costs, qualities = table.hull()
    grid = np.geomspace(costs[0], costs[-1], 200) if len(costs) > 1 else costs
    axes.plot(grid, np.interp(grid, costs, qualities), "--", color="0.5", label="best mixture of fixed models")
    for model, (cost, quality) in table.fixed().items():
        axes.plot(cost, quality, "s", color="0.35")
        axes.annotate(model, (cost, quality), textcoords="offset points", xytext=(6, -12), fontsize=8)
    axes.plot(*table.random(), "x", color="tab:red", label="random")
    axes.axhline(table.oracle_quality(), ls=":", color="tab:green", label="oracle: the best answer each time")
    axes.plot(
        [each.cost_usd for each in points],
        [each.quality for each in points],
        "o-",
        color="tab:blue",
        label="Pointsman, one point a budget",
    )
    axes.set_xscale("log")
    axes.set_xlabel("cost, USD a request (log scale)")
    axes.set_ylabel("quality")
    axes.set_title(title)
    axes.grid(alpha=0.3, which="both")
    axes.legend(loc="lower right", fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)
