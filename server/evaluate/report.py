"""Shows what an evaluation found: as a table for a person, and as values for a program."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from rich.table import Table as Grid

from policy.confidence import Bounds, Contrast
from policy.estimators import Comparison, Estimate
from policy.evidence import Interval, Metric
from policy.league import CandidateResult, Results

_COUNTS = ("decisions", "settled", "pending", "evicted", "abandoned", "shadow", "incumbents", "revised")
_METHODS = ("ips", "snips", "dr", "adr")


def league(results: Results, level: float) -> Grid:
    """The table, the highest utility first. What is in brackets holds at the level."""
    title = f"{results.settled:,} of {results.decisions:,} decisions settled, intervals of {level:.0%}"
    grid = Grid(title=title)
    grid.add_column("candidate")
    for heading in ("utility", "against the live policy", "quality", "USD a request", "worth"):
        grid.add_column(heading, justify="right")
    grid.add_column("verdict")
    for each in results.table():
        grid.add_row(
            each.id,
            _mean(each, Metric.UTILITY, "+.4f"),
            _interval(each.sequences[Contrast(Metric.UTILITY)], "+.4f"),
            _mean(each, Metric.QUALITY, ".4f"),
            _mean(each, Metric.COST_USD, ".3e"),
            f"{each.support.effective_sample_size:,.0f}",
            each.verdict.outcome if each.verdict.refusal is None else f"refused: {each.verdict.refusal}",
            style="dim" if each.comparator else "bold",
        )
    return grid


def notes(results: Results, bounds: Mapping[Metric, Bounds]) -> list[str]:
    """Sentences about what is not in the table: what was left out or clipped, and why a verdict is what it is."""
    found = []
    left_out = {reason: count for reason, count in _left_out(results).items() if count}
    if left_out:
        found.append("Left out: " + ", ".join(f"{count:,} {reason}" for reason, count in left_out.items()) + ".")
    for metric, limits in bounds.items():
        clipped = max(each.clipped.get(metric, 0) for each in results.candidates)
        if clipped:
            share = clipped / max(1, results.settled)
            found.append(
                f"Clipped: {share:.2%} of {metric} to [{limits.low:g}, {limits.high:g}] in the sequences."
            )
    own = [each for each in results.table() if not each.comparator]
    return found + [f"{each.id}: {each.verdict.outcome}. {each.verdict.reasons[0]}" for each in own]


def _left_out(results: Results) -> dict[str, int]:
    counts: dict[str, int] = {}
    for each in results.candidates:
        for reason, count in each.support.left_out.items():
            counts[reason] = max(count, counts.get(reason, 0))
    return counts


def _mean(each: CandidateResult, metric: Metric, form: str) -> str:
    estimate = each.estimates[metric].adr.candidate
    if math.isnan(estimate.value):
        return ""
    return f"{estimate.value:{form}} {_interval(estimate.interval, form)}"


def _interval(interval: Interval, form: str) -> str:
    return "" if math.isinf(interval.width) else f"[{interval.low:{form}}, {interval.high:{form}}]"


def values(results: Results, level: float) -> dict[str, Any]:
    """All of it, as JSON takes it: what is not known is null."""
    return {
        **{name: getattr(results, name) for name in _COUNTS},
        "level": level,
        "left_out": _left_out(results),
        "candidates": [_candidate(each) for each in results.table()],
    }


def _candidate(each: CandidateResult) -> dict[str, Any]:
    return {
        "id": each.id,
        "policy": each.spec.policy,
        "comparator": each.comparator,
        "estimates": {
            metric: {
                "events": estimates.events,
                "missing": estimates.missing,
                **{method: _comparison(getattr(estimates, method)) for method in _METHODS},
            }
            for metric, estimates in each.estimates.items()
        },
        "sequences": [
            {"metric": contrast.metric, "times_live": contrast.times_live, "interval": _ends(interval)}
            for contrast, interval in each.sequences.items()
        ],
        "clipped": dict(each.clipped),
        "support": {
            "events": each.support.events,
            "effective_sample_size": each.support.effective_sample_size,
            "weight_mean": each.support.weight_mean,
            "weight_max": each.support.weight_max,
            "unsupported_mean": each.support.unsupported_mean,
        },
        "verdict": {
            "outcome": each.verdict.outcome,
            "refusal": each.verdict.refusal,
            "reasons": list(each.verdict.reasons),
        },
    }


def _comparison(comparison: Comparison) -> dict[str, Any]:
    return {name: _estimate(getattr(comparison, name)) for name in ("candidate", "live", "difference")}


def _estimate(estimate: Estimate) -> dict[str, Any]:
    return {"value": _finite(estimate.value), "interval": _ends(estimate.interval)}


def _ends(interval: Interval) -> list[float | None]:
    return [_finite(interval.low), _finite(interval.high)]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
