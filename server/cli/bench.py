"""pointsman bench: closed-loop load on a fresh server, and on a bare echo server in the same run."""

from __future__ import annotations

import asyncio
import json
import tempfile
from dataclasses import asdict
from pathlib import Path

import click

from server.bench.load import Result, run_bench
from server.storage.engine import Durability


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
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def bench(
    seconds: float,
    callers: int,
    models: int,
    prompt_characters: int,
    embedding: int,
    durability: str,
    importing: bool,
    as_json: bool,
) -> None:
    """Measure requests a second through real gRPC, against a bare echo of the same message sizes.

    Both servers are processes of their own on this machine, without any POINTSMAN_* settings of the environment;
    the load comes from this one. Where /proc tells, what a server spent on a request is shown as well.
    """
    with tempfile.TemporaryDirectory(prefix="pointsman-bench-") as folder:
        results = asyncio.run(
            run_bench(
                Path(folder),
                seconds,
                callers,
                models,
                prompt_characters,
                embedding,
                durability,
                importing=importing,
            )
        )
    if as_json:
        click.echo(json.dumps([asdict(each) for each in results]))
        return
    for each in results:
        click.echo(_line(each))


def _line(result: Result) -> str:
    unit = "rows" if result.name == "ImportDecisions" else "requests"
    processor = f"  {result.processor_us:5.0f} us of processor" if result.processor_us is not None else ""
    ratio = f"  {result.ratio:.2f} of its echo" if result.ratio is not None else ""
    return (
        f"{result.name:<22}{result.requests_per_second:>8.0f} {unit}/s  p50 {result.p50_ms:6.2f} ms  "
        f"p99 {result.p99_ms:6.2f} ms{processor}{ratio}"
    )
