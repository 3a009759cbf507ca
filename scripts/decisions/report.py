"""Writes what a run found: one document in Markdown, and the same in JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scripts.decisions import summary
from scripts.decisions.changes_report import change_sections
from scripts.decisions.markdown import number, percent, signed, table
from scripts.decisions.plan import Options, extra_budgets, frontier_budgets
from scripts.decisions.policies import POINTSMAN
from scripts.decisions.problem import Problem
from scripts.decisions.summary import FrontierRow, Results, Yardstick


@dataclass(frozen=True)
class Circumstances:
    """How the run was made."""

    command: str
    cpus: int
    seconds: float
    skipped: dict[str, str]


def write(
    folder: Path, problems: Sequence[Problem], results: Results, options: Options, how: Circumstances
) -> str:
    """Writes decisions.md and decisions.json into the folder; gives the Markdown. Raises OSError."""
    document: dict[str, Any] = {"circumstances": asdict(how), "options": asdict(options), "files": {}}
    parts = ["# Decisions", _how(options, how), _READING]
    for index, problem in enumerate(problems):
        text, values = _file(index, problem, results, options)
        parts.append(text)
        document["files"][problem.name] = values
    whole = "\n\n".join(parts) + "\n"
    (folder / "decisions.md").write_text(whole, encoding="utf-8")
    (folder / "decisions.json").write_text(json.dumps(_without_nan(document), indent=1), encoding="utf-8")
    return whole


_READING = """\
Lift is quality minus that of the best mixture of fixed models at the same spend. Numbers are means over
seeds of the measured part; the learners play all of it from a cold start and see the outcome of the
chosen model alone. The ceiling is a ridge that saw every outcome of the part before, for quality and,
with the prompt's length, for cost per query; its price is tuned on the measured part's own spend. It
does not go on learning there, so a share above 1 can be. The ceiling with mean costs differs in taking
each model to cost its mean on every query."""


def _how(options: Options, how: Circumstances) -> str:
    lines = [
        f"`{how.command}`",
        "",
        f"Seeds 0 to {options.seeds - 1} (peers: 0 to {options.peer_seeds - 1}); "
        f"{how.cpus} cores; {how.seconds:.0f} s.",
    ]
    lines += [f"Not played: {policy}, because {reason}." for policy, reason in how.skipped.items()]
    return "\n".join(lines)


def _file(index: int, problem: Problem, results: Results, options: Options) -> tuple[str, dict[str, Any]]:
    tables = summary.measured_tables(problem, options.seeds)
    fixed = summary.fixed_yardsticks(problem, tables)
    parts = [f"## {problem.name}", f"{len(problem.rounds)} requests, {len(problem.models)} models.", _fixed(fixed)]
    values: dict[str, Any] = {"requests": len(problem.rounds), "yardsticks": [asdict(each) for each in fixed]}
    policies = results.policies(index, "frontier")
    if "frontier" in options.cases:
        rows = [summary.frontier_row(results, index, problem, each, options) for each in policies]
        dearest = fixed[len(problem.models) - 1].cost_usd
        parts += ["### Frontier", _frontier(rows, dearest), _grid(index, problem, results, options, policies)]
        values["frontier"] = [asdict(each) for each in rows]
        values["by_budget"] = _by_budget(index, problem, results, options, policies)
    if "apgr" in options.cases and len(problem.models) == 2:
        points = results.points(index, "frontier", POINTSMAN)
        uniform = results.points(index, "uniform", POINTSMAN)[0]
        parts += ["### APGR of Pointsman's learned scores, second half", _apgr(uniform, points)]
        values["apgr"] = {f"{each.budget_usd:.3e}": each.values["apgr"] for each in points}
        values["apgr"]["uniform"] = uniform.values["apgr"]
    if "saving" in options.cases:
        found = [summary.saving(results, index, each, fixed[len(problem.models) - 1]) for each in policies]
        parts += ["### Cheapest spend reaching 95 % of the dearest model's quality", _saving(found)]
        values["saving"] = [asdict(each) for each in found]
    if "rewards" in options.cases:
        late = summary.frontier_row(results, index, problem, POINTSMAN, options, "rewards")
        full = summary.frontier_row(results, index, problem, POINTSMAN, options)
        parts += ["### 80 % of rewards missing, the rest 200 requests late", _late(late, full)]
        values["rewards"] = asdict(late)
    texts, changed = change_sections(index, results, options)
    values["changes"] = changed
    return "\n\n".join([*parts, *texts]), values


def _fixed(rows: Sequence[Yardstick]) -> str:
    cells = [[each.name, number(each.quality), _usd(each.cost_usd)] for each in rows]
    return table(["measured part", "quality", "USD a request"], cells)


def _frontier(rows: Sequence[FrontierRow], dearest_usd: float) -> str:
    cells = []
    for row in rows:
        used = [each.values["utilization"] for each in summary.binding(row, dearest_usd)] or [math.nan]
        cells.append(
            [
                row.policy,
                str(row.seeds),
                signed(row.lift),
                "" if math.isnan(row.lift_error) else f"{row.lift_error:.4f}",
                f"{signed(row.worst_lift)} at {row.worst_budget_usd:.2e}",
                number(row.ceiling_share, 2),
                f"{min(used):.3f} to {max(used):.3f}",
            ]
        )
    heads = ["policy", "seeds", "mean lift", "standard error", "worst budget", "share of the ceiling"]
    return table([*heads, "utilisation below the dearest budget"], cells)


def _grid(index: int, problem: Problem, results: Results, options: Options, policies: Sequence[str]) -> str:
    budgets = sorted({*frontier_budgets(problem, options), *extra_budgets(problem, options)})
    tables = summary.measured_tables(problem, options.seeds)
    cells = []
    for policy in policies:
        points = [results.point(index, "frontier", policy, each) for each in budgets]
        cells.append([policy, *(f"{p.values['quality']:.4f} ({p.values['utilization']:.2f})" for p in points)])
    for yardstick in (summary.hull_at, summary.best_fixed):
        found = [yardstick(tables, each) for each in budgets]
        pairs = zip(found, budgets, strict=True)
        cells.append([found[0].name, *(f"{each.quality:.4f} ({each.cost_usd / usd:.2f})" for each, usd in pairs)])
    return "Quality (utilisation) at each budget, USD a request:\n\n" + table(
        ["policy", *(f"{each:.3e}" for each in budgets)], cells
    )


def _by_budget(
    index: int, problem: Problem, results: Results, options: Options, policies: Sequence[str]
) -> dict[str, Any]:
    budgets = sorted({*frontier_budgets(problem, options), *extra_budgets(problem, options)})
    return {
        policy: [asdict(results.point(index, "frontier", policy, each)) for each in budgets] for policy in policies
    }


def _apgr(uniform: summary.Point, points: Sequence[summary.Point]) -> str:
    named = [
        ("models drawn uniformly", uniform),
        *((f"{each.budget_usd:.2e} USD a request", each) for each in points),
    ]
    cells = [[name, number(each.values["apgr"]), number(each.errors["apgr"])] for name, each in named]
    return table(["learned from", "APGR", "standard error"], cells)


def _saving(found: Sequence[summary.Saving]) -> str:
    cells = [
        [each.policy, number(each.target_quality), _usd(each.cost_usd), percent(each.saved)] for each in found
    ]
    return table(["policy", "quality reached", "USD a request", "saved"], cells)


def _late(late: FrontierRow, full: FrontierRow) -> str:
    cells = [
        [name, signed(row.lift), number(row.lift_error), signed(row.worst_lift)]
        for name, row in (("full feedback", full), ("missing and late", late))
    ]
    share = late.lift / full.lift if full.lift > 0 else math.nan
    return table(["Pointsman", "mean lift", "standard error", "worst budget"], cells) + (
        f"\n\n{number(share, 2)} of the lift with full feedback."
    )


def _usd(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.3e}"


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(each) for each in value]
    return None if isinstance(value, float) and math.isnan(value) else value
