"""Plots candidates: quality against cost, and by how much each is better or worse than the live policy."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib as mpl

from policy.confidence import Contrast
from policy.estimators import Estimate
from policy.evidence import Interval, Metric
from policy.league import CandidateResult, Results

mpl.use("Agg")

from matplotlib import pyplot as plt

# Within these two points are one to the eye: of the logarithm of cost, and of quality.
_ALIKE_COST, _ALIKE_QUALITY = 0.15, 0.004


def plot_league(path: Path, title: str, results: Results) -> None:
    """Writes the picture. Raises OSError if it cannot, and ValueError for an ending that is no picture's."""
    table = results.table()
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(13, 1.5 + max(3.5, 0.35 * len(table))), layout="constrained"
    )
    _quality_against_cost(left, table)
    _differences(right, table)
    figure.suptitle(title)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _quality_against_cost(axes: Any, table: tuple[CandidateResult, ...]) -> None:
    labels: dict[tuple[float, float], str] = {}
    for each in table:
        quality = each.estimates[Metric.QUALITY].adr.candidate
        cost = each.estimates[Metric.COST_USD].adr.candidate
        if not (math.isfinite(quality.value) and cost.value > 0.0):
            continue
        colour = _colour(each)
        axes.errorbar(
            cost.value, quality.value, xerr=_arms(cost), yerr=_arms(quality), fmt="o", color=colour, alpha=0.8
        )
        labels.setdefault(_place(labels, cost.value, quality.value), each.id)
    for place, name in labels.items():
        axes.annotate(name, place, textcoords="offset points", xytext=(6, 4), fontsize=7)
    axes.set_xscale("log")
    axes.set_xlabel("cost, USD a request (log scale)")
    axes.set_ylabel("quality")
    axes.grid(alpha=0.3, which="both")


def _place(labels: Iterable[tuple[float, float]], cost_usd: float, quality: float) -> tuple[float, float]:
    """Where a label goes: where one stands already that it would cover, or else at its own point.

    Comparators often come to the same, such as the dearest model and that model alone: the first has the label.
    """
    for place in labels:
        if abs(math.log(place[0] / cost_usd)) < _ALIKE_COST and abs(place[1] - quality) < _ALIKE_QUALITY:
            return place
    return cost_usd, quality


def _differences(axes: Any, table: tuple[CandidateResult, ...]) -> None:
    for row, each in enumerate(table):
        interval: Interval = each.sequences[Contrast(Metric.UTILITY)]
        value = each.estimates[Metric.UTILITY].adr.difference.value
        axes.plot([interval.low, interval.high], [row, row], "-", color=_colour(each), lw=2)
        if math.isfinite(value):
            axes.plot(value, row, "o", color=_colour(each))
    axes.axvline(0.0, color="0.4", lw=0.8)
    axes.set_yticks(range(len(table)), [each.id for each in table], fontsize=7)
    axes.invert_yaxis()
    axes.set_xlabel("utility less the live policy's, with its confidence sequence")
    axes.grid(alpha=0.3, axis="x")


def _arms(estimate: Estimate) -> list[list[float]] | None:
    low, high = estimate.interval.low, estimate.interval.high
    if math.isinf(low):
        return None
    return [[max(0.0, estimate.value - low)], [max(0.0, high - estimate.value)]]


def _colour(each: CandidateResult) -> str:
    return "0.5" if each.comparator else "tab:blue"
