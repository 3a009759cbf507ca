"""Shows what second calls say: as tables and sentences for a person, and as values for a program."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from rich.table import Table as Grid

from policy.crosscheck import FALSE_ALARMS, Agreement, Check
from policy.estimators import Estimate
from policy.evidence import Interval, Metric
from policy.paired import Difference, Paired

_COUNTS = ("called", "pairs", "untold", "dropped", "waiting")


def pair_grids(paired: Paired, shown: Sequence[str], level: float) -> list[Grid]:
    """The candidates that are `shown`, beside what single calls say, and the models; nothing without pairs."""
    if not paired.pairs:
        return []
    return [_candidates(paired, shown, level), _models(paired, level)]


def _candidates(paired: Paired, shown: Sequence[str], level: float) -> Grid:
    title = f"{paired.pairs:,} pairs: utility against the live policy, intervals of {level:.0%} for one time"
    grid = Grid(title=title)
    grid.add_column("candidate")
    for heading in ("moves", "by pairs", "by pairs, at all times", "by single calls", "gap, at all times"):
        grid.add_column(heading, justify="right")
    grid.add_column("they")
    by_id = {each.id: each for each in paired.candidates}
    for name in shown:
        each = by_id.get(name)
        if each is None:
            continue
        difference = next(of for of in each.differences if of.metric is Metric.UTILITY)
        check = next(of for of in each.checks if of.metric is Metric.UTILITY)
        grid.add_row(
            name,
            f"{each.moves:,.0f}",
            _value(difference.estimate, "+.4f"),
            _interval(difference.sequence, "+.4f"),
            _value(check.off_policy, "+.4f"),
            _interval(check.gap, "+.4f"),
            each.agreement.replace("_", " "),
            style="bold red" if each.agreement is Agreement.DISAGREE else None,
        )
    return grid


def _models(paired: Paired, level: float) -> Grid:
    grid = Grid(title=f"the second model less the decision's own, intervals of {level:.0%} for one time")
    for heading in ("own model", "second model"):
        grid.add_column(heading)
    for heading in ("pairs", "utility", "quality", "USD a request"):
        grid.add_column(heading, justify="right")
    for each in paired.models:
        by_metric = {of.metric: of for of in each.differences}
        grid.add_row(
            each.model,
            each.second_model,
            f"{max(of.pairs for of in each.differences):,}",
            _value(by_metric[Metric.UTILITY].estimate, "+.4f"),
            _value(by_metric[Metric.QUALITY].estimate, "+.4f"),
            _value(by_metric[Metric.COST_USD].estimate, "+.3e"),
        )
    return grid


def pair_notes(paired: Paired) -> list[str]:
    """Sentences about contradictions, and about second calls of which nothing came."""
    found = [
        f"{each.id}: pairs and single calls contradict one another on {check.metric}, by "
        f"[{check.gap.low:+.4g}, {check.gap.high:+.4g}]: propensities are not what is logged, or the two calls "
        f"are not rewarded alike. By chance that is ever said of a candidate in {FALSE_ALARMS:.1%} of all cases."
        for each in paired.candidates
        for check in each.checks
        if check.agreement is Agreement.DISAGREE
    ]
    if paired.untold:
        found.append(f"Of {paired.untold:,} of {paired.called:,} second calls nothing was reported.")
    return found


def pair_values(paired: Paired) -> dict[str, Any]:
    """All of it, as JSON takes it: what is not known is null."""
    return {
        **{name: getattr(paired, name) for name in _COUNTS},
        "false_alarm_rate": FALSE_ALARMS,
        "candidates": [
            {
                "id": each.id,
                "differences": [_difference(of) for of in each.differences],
                "checks": [_check(of) for of in each.checks],
                "agreement": each.agreement,
                "moves": each.moves,
                "unsupported_mean": each.unsupported_mean,
            }
            for each in paired.candidates
        ],
        "models": [
            {
                "model": each.model,
                "second_model": each.second_model,
                "differences": [_difference(of) for of in each.differences],
            }
            for each in paired.models
        ],
    }


def _difference(each: Difference) -> dict[str, Any]:
    return {
        "metric": each.metric,
        "pairs": each.pairs,
        "value": _finite(each.estimate.value),
        "interval": _ends(each.estimate.interval),
        "sequence": _ends(each.sequence),
    }


def _check(each: Check) -> dict[str, Any]:
    return {
        "metric": each.metric,
        "off_policy": {"value": _finite(each.off_policy.value), "interval": _ends(each.off_policy.interval)},
        "gap": _ends(each.gap),
        "agreement": each.agreement,
    }


def _value(estimate: Estimate, form: str) -> str:
    if math.isnan(estimate.value):
        return ""
    return f"{estimate.value:{form}} {_interval(estimate.interval, form)}"


def _interval(interval: Interval, form: str) -> str:
    return "" if math.isinf(interval.width) else f"[{interval.low:{form}}, {interval.high:{form}}]"


def _ends(interval: Interval) -> list[float | None]:
    return [_finite(interval.low), _finite(interval.high)]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
