"""The command line of the long form: see scripts/check_faults."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from random import SystemRandom

import click

from faults.cluster import layout
from faults.database import PostgreSQL, SQLiteFile
from faults.run import Plan, Result, keep, run


@click.command(name="scripts/check_faults", context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--seed", type=click.IntRange(0), help="Repeats the plan of a run; a new one if it is not given.")
@click.option("--faults", type=click.IntRange(0), default=200, show_default=True, help="How many to inject.")
@click.option("--database", type=click.Choice(["postgresql", "sqlite"]), default="postgresql", show_default=True)
@click.option(
    "--roles",
    default="all,all,all",
    show_default=True,
    help="The servers, with commas between. SQLite takes one, which is 'all'.",
)
@click.option("--clients", type=click.IntRange(1, 200), default=16, show_default=True)
@click.option("--keep", "kept_in", type=click.Path(path_type=Path), help="Leave the logs and the history there.")
@click.option("--json", "as_json", is_flag=True, help="Print only JSON.")
def main(
    seed: int | None, faults: int, database: str, roles: str, clients: int, kept_in: Path | None, as_json: bool
) -> None:
    """Load real servers on a real database, kill, pause and cut off whatever the seed says, mend it, and check
    that nothing acknowledged is lost, nothing is learned twice and all else that is promised holds. Exit 1 if not.

    A seed repeats the plan of the faults and of the clients, not the operating system's timing.
    """
    seed = SystemRandom().randrange(1 << 31) if seed is None else seed
    names = tuple(roles.split(",")) if database == "postgresql" else ("all",)
    began = time.monotonic()

    def say(what: str) -> None:
        if not as_json:
            click.echo(f"{time.monotonic() - began:7.1f} s  {what}", err=True)

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # What was started is ended then too.
    say(f"seed {seed}")
    with tempfile.TemporaryDirectory(prefix="pointsman-faults-") as name:
        folder = Path(name)
        made = PostgreSQL(folder) if database == "postgresql" else SQLiteFile(folder)
        try:
            result = asyncio.run(run(Plan(seed, faults, layout(names), clients), made, folder, say))
        finally:
            if kept_in is not None:
                keep(folder, kept_in)
    if as_json:
        click.echo(json.dumps(asdict(result)))
    else:
        _show(result)
    sys.exit(1 if result.violations else 0)


def _show(result: Result) -> None:
    """The summary for a person."""
    click.echo(f"seed {result.seed}, {len(result.servers)} servers, {result.seconds:.0f} s")
    click.echo(f"faults {sum(result.faults.values())}:")
    for kind, count in sorted(result.faults.items()):
        click.echo(f"  {kind} {count}")
    failed = ", ".join(f"{code} {count}" for code, count in sorted(result.failed_calls.items()))
    click.echo(f"server starts {result.starts}")
    click.echo(f"calls {result.calls}, of which acknowledged {result.acknowledged}, failed: {failed or 'none'}")
    click.echo(f"in the log: decisions {result.decisions}, reports {result.reports}")
    click.echo(f"rows that a follower read meanwhile {result.rows_followed}")
    click.echo(f"budget used {result.budget_used:.3f}")
    click.echo(f"verified {json.dumps(result.verified)}")
    click.echo(f"violations {len(result.violations)}")
    for each in result.violations[:50]:
        click.echo(f"  {each}")


if __name__ == "__main__":
    main()
