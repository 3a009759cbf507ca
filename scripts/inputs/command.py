"""The command line of the check of inputs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import click
from rich.console import Console
from rich.progress import Progress

from scripts.inputs.check import FaultError, Found, check
from scripts.inputs.target import running
from scripts.roles.cluster import running_postgresql


@click.command(name="scripts/check_inputs", context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--inputs", type=click.IntRange(200), default=100_000, show_default=True, help="How many, at least.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option(
    "--engine",
    type=click.Choice(["sqlite", "postgresql"]),
    default="sqlite",
    show_default=True,
    help="What the server's database is of; it is one of its own.",
)
def main(inputs: int, seed: int, engine: str) -> None:
    """Send a server of its own INPUTS bad requests, of every RPC, eight at a time, and bytes that are none.

    Requests are made by hypothesis from the contract: values at the edges, names that the server knows beside
    others, requests that are right with a field or two changed, whole or damaged. Exits with 1, and the smallest
    requests that do it, if the server crashes, hangs, answers with a code that is not documented or without its
    details, writes a traceback, is no longer healthy, or has logged what does not verify; and if there is a method
    that it never answers with OK.
    """
    console = Console(stderr=True)
    with (
        TemporaryDirectory(prefix="pointsman-inputs-") as folder,
        _database(engine, Path(folder)) as url,
        running(Path(folder), url) as target,
        Progress(console=console, transient=True, disable=not console.is_terminal) as progress,
    ):
        task = progress.add_task("sending", total=inputs)
        try:
            found = check(target, inputs, seed, lambda count: progress.advance(task, count))
        except FaultError as fault:
            click.echo(f"seed {seed}: {fault}", err=True)
            sys.exit(1)
    click.echo(table(found))


@contextmanager
def _database(engine: str, folder: Path) -> Iterator[str]:
    if engine == "sqlite":
        yield f"sqlite:///{folder / 'inputs.db'}"
        return
    with running_postgresql() as databases:
        yield databases.new()


def table(found: Found) -> str:
    """What was answered, as Markdown."""
    lines = ["| sent to | inputs | OK | other answers |", "|---|---:|---:|---|"]
    for path in sorted({path for path, _ in found.codes}):
        codes = {code: count for (of, code), count in found.codes.items() if of == path}
        inputs, right = sum(codes.values()), codes.pop("OK", 0)
        told = ", ".join(f"{code} {count:,}" for code, count in sorted(codes.items(), key=lambda each: -each[1]))
        lines.append(f"| {path.removeprefix('/')} | {inputs:,} | {right:,} | {told} |")
    lines += [f"| the port: {kind} | {count:,} | | |" for kind, count in found.struck.items()]
    grown = (found.last_bytes - found.first_bytes) / 2**20
    lines.append(f"| all | {found.inputs:,} | | borne; {grown:+.0f} MiB of memory since the first requests |")
    return "\n".join(lines)
