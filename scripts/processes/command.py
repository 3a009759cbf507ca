"""The command line of the benchmark of processes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from scripts.processes.share import limited
from scripts.roles.cluster import running_postgresql
from server.bench.processes import Servers
from server.bench.run import Plan, Setup, compare

_ONE = ", one process"
_LOADS = ("Route", "ReportReward")


@click.command(name="scripts/benchmark_processes", context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--processes", type=click.IntRange(2, 64), default=2, show_default=True)
@click.option(
    "--share",
    type=click.FloatRange(0.05, 1.0),
    default=0.25,
    show_default=True,
    help="The part of one processor that each has.",
)
@click.option("--seconds", type=click.FloatRange(0.5, 600), default=20.0, show_default=True, help="Of each load.")
@click.option("--callers", type=click.IntRange(1, 1000), default=100, show_default=True, help="Of all processes.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(processes: int, share: float, seconds: float, callers: int, as_json: bool) -> None:
    """Load one server on a PostgreSQL, and several that share another, in turns.

    On a machine with few processors the load, the database and the servers would take them from one another, and
    nothing be seen but that. So each server has no more than a part of a processor, by a control group of Linux
    (which needs to be root): there is room for the others, and what keeps several from answering as many times as
    much is what they share, the database, its locks and its disk.
    """
    several = f", {processes} processes"

    @contextmanager
    def limit(servers: Servers) -> Iterator[None]:
        with limited([each.pid for each in servers.each], share):
            yield

    plan = Plan(seconds, callers, models=3, prompt_characters=300, embedding=0, durability="power_loss")
    with running_postgresql() as databases:
        setups = {
            _ONE: Setup(databases.new(), limit=limit),
            several: Setup(databases.new(), processes, limit=limit),
        }
        try:
            results = asyncio.run(compare(setups, plan))
        except PermissionError as error:
            raise click.ClickException(f"the share of a processor cannot be set: {error}") from error
    rates = {each.name: each.requests_per_second for each in results}
    found: dict[str, Any] = {
        load: {
            "one": round(rates[load + _ONE]),
            "several": round(rates[load + several]),
            "ratio": round(rates[load + several] / rates[load + _ONE], 2),
        }
        for load in _LOADS
    }
    if as_json:
        click.echo(json.dumps(found))
        return
    for load, each in found.items():
        click.echo(
            f"{load}: {each['one']} requests/s with one process, {each['several']} with {processes}, each with "
            f"{share:g} of a processor: {each['ratio']} times"
        )
