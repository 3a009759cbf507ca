"""pointsman signals: shows how well each signal agrees with the rewards that users report themselves."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import click
from rich.table import Table

from policy.agreement import Agreement, Pairs
from policy.estimators import Estimate
from policy.evidence import Interval
from policy.log import ReportRecord
from server.cli.loading import load_settings
from server.cli.remote import console
from server.storage.engine import open_engine
from server.storage.reader import LogReader

_PAGE = 400


@click.command()
@click.option("--router", default="default", show_default=True, help="The router's id.")
@click.option("--database-url", help="SQLite or PostgreSQL.  [default: sqlite:///pointsman.db]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def signals(router: str, database_url: str | None, as_json: bool) -> None:
    """Show how each signal of ROUTER agrees with the rewards that were reported of the same answers.

    A reward is what a report says in `reward`, as feedback to the gateway does; a signal is a check's, a judge's
    or any other. Intervals are of 95 %. Nothing is said of answers that have only one of the two.
    """
    settings = load_settings({"database_url": database_url} if database_url else {})
    engine = open_engine(settings.database_url, settings.durability, create=False)
    try:
        found = _agreements(LogReader(engine), router)
    finally:
        engine.dispose()
    if as_json:
        click.echo(json.dumps({name: _values(each) for name, each in found.items()}))
        return
    if not found:
        click.echo(f"no answer of routers/{router} has both a signal and a reward")
        return
    columns = ("signal", "answers", "its mean", "reward's", "signal less reward", "correlation")
    table = Table(*columns, box=None)
    for name, each in found.items():
        means = f"{each.signal_mean:.3f}", f"{each.reward_mean:.3f}"
        table.add_row(name, str(each.pairs), *means, _shown(each.difference), _shown(each.correlation))
    console().print(table)


def _agreements(reader: LogReader, router: str) -> dict[str, Agreement]:
    pairs: dict[str, Pairs] = defaultdict(Pairs)
    after = ""
    while page := reader.rewarded(router, after, _PAGE):
        for reports in reader.reports(page).values():
            for name, signal, reward in _told(reports):
                pairs[name].add(signal, reward)
        after = page[-1]
    return {name: pairs[name].agreement() for name in sorted(pairs)}


def _told(reports: Sequence[ReportRecord]) -> Iterator[tuple[str, float, float]]:
    """The latest value of each signal about a call and the latest reward of it; those told with a reward are its
    own words.
    """
    rewards: dict[tuple[str, bool], float] = {}
    signals: dict[tuple[str, bool], dict[str, float]] = defaultdict(dict)
    for report in reports:
        call = report.subject, report.second
        if report.reward is None:
            signals[call].update(report.signals)
        else:
            rewards[call] = report.reward
    for call, reward in rewards.items():
        for name, signal in signals[call].items():
            yield name, signal, reward


def _shown(estimate: Estimate) -> str:
    if math.isnan(estimate.value):
        return "-"
    low, high = estimate.interval.low, estimate.interval.high
    if not math.isfinite(low) or not math.isfinite(high):
        return f"{estimate.value:+.3f}"
    return f"{estimate.value:+.3f} ({low:+.3f} to {high:+.3f})"


def _values(agreement: Agreement) -> dict[str, Any]:
    """JSON has no nan and no infinity: None stands for both."""
    values = asdict(agreement)
    for name in ("difference", "correlation"):
        values[name] = _numbers(getattr(agreement, name))
    return values


def _numbers(estimate: Estimate) -> dict[str, float | None]:
    interval: Interval = estimate.interval
    given = {"value": estimate.value, "low": interval.low, "high": interval.high}
    return {name: value if math.isfinite(value) else None for name, value in given.items()}
