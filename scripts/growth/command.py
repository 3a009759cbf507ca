"""The command line of the benchmark of growth."""

from __future__ import annotations

import asyncio
import random
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import click
from pointsman.v1 import router_service_pb2 as pb
from rich.console import Console
from rich.progress import Progress

from scripts.growth.fill import BYTES_A_DECISION, fill, open_decisions, write_template
from scripts.growth.memory import watch
from scripts.growth.plans import plans
from server.bench.load import Load, Result
from server.bench.run import Plan, Setup, Target, compare, side_by_side

_GROWN = ", grown"
_REPORT = "/pointsman.v1.RouterService/ReportReward"
_FIRST_SECONDS = 60.0
_SQL_SHOWN = 110
_SHOWN_EVERY = 6


@click.command()
@click.option("--decisions", type=click.IntRange(0), default=2_000_000, show_default=True, help="0: no growth.")
@click.option("--seconds", type=click.FloatRange(1, 600), default=20.0, show_default=True, help="Of each load.")
@click.option("--callers", type=click.IntRange(1, 1000), default=50, show_default=True)
@click.option("--minutes", type=click.FloatRange(0, 600), default=0.0, help="Also watch the memory for so long.")
@click.option("--folder", type=click.Path(file_okay=False, path_type=Path), help="Where there is room.")
def main(decisions: int, seconds: float, callers: int, minutes: float, folder: Path | None) -> None:
    """Measure Route and ReportReward on a database with many decisions beside one with few, in turns.

    Everything is in a temporary folder that is deleted at the end. The queries of the hot path are shown with what
    SQLite says of its plans for them. With --minutes, a server is under full load for so long, and what it has
    resident in memory is shown with its slope after the first minute.
    """
    with tempfile.TemporaryDirectory(prefix="pointsman-growth-", dir=folder) as name:
        if decisions:
            _require_room(Path(name), decisions)
            _grow(Path(name), decisions, Plan(seconds, callers, 3, 300, 0, "power_loss"))
        if minutes:
            _watch(Path(name), minutes, callers)


def _require_room(folder: Path, decisions: int) -> None:
    free, needed = shutil.disk_usage(folder).free, decisions * BYTES_A_DECISION
    if free < needed:
        raise click.UsageError(
            f"{folder} has {free / 1e9:.1f} GB free, {decisions:,} decisions need {needed / 1e9:.1f}: see --folder"
        )


def _grow(folder: Path, decisions: int, plan: Plan) -> None:
    few, many = folder / "few.db", folder / "many.db"
    asyncio.run(write_template(few))
    shutil.copyfile(few, many)
    shutil.copyfile(f"{few}-wal", f"{many}-wal")
    console = Console(stderr=True)
    began = time.monotonic()
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("filling", total=decisions)
        fill(many, decisions, lambda rows: progress.advance(task, rows))
    click.echo(
        f"{decisions:,} decisions and as many reports: {many.stat().st_size / 1e9:.2f} GB, "
        f"filled in {time.monotonic() - began:.0f} s"
    )
    old = open_decisions(many, decisions)
    results = asyncio.run(_measured(few, many, old, plan))
    click.echo("\n".join(lines(results)))
    for name, statements in plans(many, old[0]).items():
        click.echo(f"\n{name}")
        for statement, steps in statements:
            click.echo(f"  {statement[:_SQL_SHOWN]}{'...' if len(statement) > _SQL_SHOWN else ''}")
            click.echo("".join(f"    {step}\n" for step in steps), nl=False)


async def _measured(few: Path, many: Path, old: Sequence[str], plan: Plan) -> list[Result]:
    """Beside the loads of the benchmark, reports on decisions anywhere in the last day of the grown log."""

    async def on_old(targets: Sequence[Target]) -> list[Result]:
        fresh, grown = targets
        ids = list(old)
        random.Random(1).shuffle(ids)  # noqa: S311
        usage = pb.Usage(input_tokens=75, output_tokens=300)
        requests = [
            pb.ReportRewardRequest(decision_id=each, reward=0.8, usage=usage).SerializeToString() for each in ids
        ]
        again = [pb.RouteResponse.FromString(each).decision_id for each in fresh.answers]
        beside = [
            pb.ReportRewardRequest(decision_id=each, reward=0.8, usage=usage).SerializeToString() for each in again
        ]
        loads = [
            Load(fresh.servers.channels, _REPORT, beside),
            Load(grown.servers.channels, _REPORT, requests),
        ]
        return await side_by_side("ReportReward again", loads, targets, 2, plan)

    return await compare({"": Setup(f"sqlite:///{few}"), _GROWN: Setup(f"sqlite:///{many}")}, plan, on_old)


def lines(results: Sequence[Result]) -> list[str]:
    """A row for each load; of one on the grown database also its rate over that on the other."""
    rates = {each.name: each.requests_per_second for each in results}
    found = []
    for each in results:
        beside = rates[each.name.removesuffix(_GROWN)]
        ratio = f"  {each.requests_per_second / beside:.3f} of it" if each.name.endswith(_GROWN) else ""
        processor = f"  {each.processor_us:5.0f} us of processor" if each.processor_us is not None else ""
        found.append(
            f"{each.name:<27}{each.requests_per_second:>8.0f} requests/s  p50 {each.p50_ms:6.2f} ms  "
            f"p99 {each.p99_ms:6.2f} ms{processor}{ratio}"
        )
    return found


def _watch(folder: Path, minutes: float, callers: int) -> None:
    memory = asyncio.run(watch(folder / "memory.db", minutes, callers))
    click.echo("\nminute  requests  resident")
    rows = zip(memory.times_seconds, memory.requests, memory.resident_mb, strict=True)
    for seconds, requests, resident in list(rows)[::_SHOWN_EVERY]:
        click.echo(f"{seconds / 60:6.1f}  {requests:8,}  {resident:7.1f} MB")
    slope = memory.slope_mb_per_minute(_FIRST_SECONDS if minutes > 1.5 else 0.0)
    click.echo(f"after the first minute {slope:+.2f} MB a minute")
