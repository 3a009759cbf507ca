"""The part of the report on changing worlds."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from scripts.decisions.markdown import number, percent, signed, table
from scripts.decisions.plan import Options
from scripts.decisions.summary import Point, Results

_TITLES = {
    "price": "The dearest model's price cut tenfold in the middle third, told by the registry",
    "price-untold": "The same price cut, known from the bills alone",
    "regression": "A model's quality falls in the middle third and returns",
    "newcomer": "A model added at the middle, a copy of a present one at half its price",
    "outage": "An outage of the favourite model",
}


def change_sections(index: int, results: Results, options: Options) -> tuple[list[str], dict[str, Any]]:
    """The sections of one file, and the same as values by case."""
    texts: list[str] = []
    values: dict[str, Any] = {}
    where = "the whole stream" if options.whole else "the measured part"
    for case, title in _TITLES.items():
        policies = results.policies(index, case)
        points = [point for policy in policies for point in results.points(index, case, policy)]
        if not points:
            continue
        models = [_models(results, index, case, point) for point in points]
        if case == "regression":
            title += f", to {options.regressed_to:g} of itself"  # noqa: PLW2901
        texts += [f"### {title}", f"Over {where}.", _TABLES[case](points, models)]
        values[case] = [{"models": each, **asdict(point)} for each, point in zip(models, points, strict=True)]
    return texts, values


def _models(results: Results, index: int, case: str, point: Point) -> str:
    """The models that changed, over the seeds: a favourite may be another in each."""
    found = results.of(index, case, point.policy, point.budget_usd)
    return ", ".join(sorted({each.notes["model"] for each in found}))


def _phases(points: list[Point], models: list[str]) -> str:
    heads = ["policy", "budget", "model", *(f"quality {n}" for n in (1, 2, 3)), *(f"lift {n}" for n in (1, 2, 3))]
    cells = [
        [
            *_key(point),
            model,
            *(number(point.values[f"quality_{n}"]) for n in (1, 2, 3)),
            *(signed(point.values[f"lift_{n}"]) for n in (1, 2, 3)),
            *(number(point.values[f"utilization_{n}"], 3) for n in (1, 2, 3)),
            number(point.values["utilization"], 3),
        ]
        for point, model in zip(points, models, strict=True)
    ]
    return table([*heads, *(f"utilisation {n}" for n in (1, 2, 3)), "over all"], cells)


def _newcomer(points: list[Point], models: list[str]) -> str:
    cells = [
        [
            *_key(point),
            model,
            number(point.values["former_share"], 3),
            number(point.values["rounds"], 0),
            f"{point.counts['rounds']} of {point.seeds}",
            number(point.values["later_share"], 3),
        ]
        for point, model in zip(points, models, strict=True)
    ]
    heads = [
        "policy",
        "budget",
        "copied",
        "former share of the copied",
        "requests until half of it",
        "seeds that got there",
    ]
    return table([*heads, "newcomer's share after"], cells)


def _outage(points: list[Point], models: list[str]) -> str:
    cells = [
        [
            *_key(point),
            model,
            number(point.values["former_share"], 3),
            number(point.values["failed_calls"], 1),
            "" if math.isnan(point.values["probes"]) else number(point.values["probes"], 1),
            percent(point.values["probes_of_stream"]),
            f"{number(point.values['left_after_calls'], 1)} ({point.counts['left_after_calls']} of {point.seeds})",
            percent(point.values["probes_share"]),
            f"{number(point.values['back_rounds'], 0)} ({point.counts['back_rounds']} of {point.seeds})",
        ]
        for point, model in zip(points, models, strict=True)
    ]
    heads = [
        "policy",
        "budget",
        "model",
        "former share",
        "failed calls",
        "of them probes",
        "probes of all requests",
    ]
    return table(
        [*heads, "left after failed calls (seeds)", "calls of those after", "requests until back (seeds)"], cells
    )


def _key(point: Point) -> tuple[str, str]:
    return point.policy, f"{point.budget_usd:.2e}"


_TABLES: dict[str, Callable[[list[Point], list[str]], str]] = {
    "price": _phases,
    "price-untold": _phases,
    "regression": _phases,
    "newcomer": _newcomer,
    "outage": _outage,
}
