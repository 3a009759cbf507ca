"""pointsman bench: load on a fresh server, and on a bare echo server in the same run."""

from __future__ import annotations

import asyncio
import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from server.bench.load import Result
from server.bench.run import Plan, run_bench
from server.storage.engine import Durability

_HALF = "half"


def _rate(_context: click.Context, _parameter: click.Parameter, value: str | None) -> float | None:
    """Requests a second, 0 for half of what was found."""
    if value in (None, _HALF):
        return None if value is None else 0.0
    try:
        rate = float(value)
    except ValueError:
        rate = 0.0
    if not 1.0 <= rate <= 1e6:
        raise click.BadParameter(
            f"{value!r} is not {_HALF}, nor a number of requests a second from 1 to 1,000,000"
        )
    return rate


@click.command()
@click.option("--seconds", type=click.FloatRange(0.5, 600), default=5.0, show_default=True, help="Of each load.")
@click.option("--callers", type=click.IntRange(1, 1000), default=50, show_default=True, help="At the same time.")
@click.option("--models", type=click.IntRange(1, 128), default=3, show_default=True)
@click.option("--prompt-characters", type=click.IntRange(0, 100_000), default=300, show_default=True)
@click.option(
    "--embedding", type=click.IntRange(0, 4096), default=0, show_default=True, help="Floats sent; 0: none."
)
@click.option(
    "--durability",
    type=click.Choice([each.value for each in Durability]),
    default=Durability.POWER_LOSS.value,
    show_default=True,
)
@click.option("--importing", is_flag=True, help="Also load Route while decisions are imported, a thousand a call.")
@click.option(
    "--open-loop",
    "open_rate",
    metavar="RATE|half",
    callback=_rate,
    help="Then also send requests at a rate, however long the answers take: half of the one found, or a number.",
)
@click.option(
    "--database-url",
    default="",
    help="Also serve from this database, to see what it adds to SQLite: one for this alone, which is left full.",
)
@click.option(
    "--processes",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="Servers on that database, on PostgreSQL.",
)
@click.option("--learner-process", is_flag=True, help="Also load a server whose learner is a process of its own.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def bench(as_json: bool, **given: Any) -> None:
    """Measure requests a second through real gRPC, against a bare echo of the same message sizes.

    All servers are processes of their own on this machine, without any POINTSMAN_* settings of the environment;
    the load comes from this one. Where /proc tells, what a server spent on a request is shown as well. In an open
    loop latency counts from when a request was to be sent.
    """
    plan = Plan(**given)
    if plan.processes > 1 and not plan.database_url.startswith("postgres"):
        raise click.UsageError("--processes needs the --database-url of a PostgreSQL")
    with tempfile.TemporaryDirectory(prefix="pointsman-bench-") as folder:
        results = asyncio.run(run_bench(Path(folder), plan))
    if as_json:
        click.echo(json.dumps([asdict(each) for each in results]))
        return
    for each in results:
        click.echo(_line(each))


def _line(result: Result) -> str:
    unit = "rows" if result.name == "ImportDecisions" else "requests"
    processor = f"  {result.processor_us:5.0f} us of processor" if result.processor_us is not None else ""
    ratio = ""
    if result.ratio is not None:
        ratio = (
            f"  p99 {result.ratio:.1f} times its echo's"
            if result.open_loop
            else f"  {result.ratio:.2f} of its echo"
        )
    return (
        f"{result.name:<40}{result.requests_per_second:>8.0f} {unit}/s  p50 {result.p50_ms:6.2f} ms  "
        f"p99 {result.p99_ms:6.2f} ms{processor}{ratio}"
    )
