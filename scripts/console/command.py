"""The command line of the pictures."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import click

from scripts.console.pictures import take
from scripts.console.stream import Request, made_up, of_file
from scripts.console.week import lived


@click.command()
@click.option("--file", type=click.Path(path_type=Path), help="Replay this file, not made-up requests.")
@click.option("--requests", default=3000, show_default=True, help="How many are sent.")
@click.option("--seed", default=0, show_default=True, help="Of the requests and of what is reported.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("docs/images"), show_default=True)
@click.option("--every", is_flag=True, help="Take the other views too.")
@click.option("--hold", is_flag=True, help="Go on serving afterwards, until it is interrupted.")
def main(file: Path | None, requests: int, seed: int, out: Path, *, every: bool, hold: bool) -> None:
    """Replay a week of requests through a real server, and take pictures of its console in Chromium."""
    stream = of_file(file, requests, seed) if file else made_up(requests, seed)
    asyncio.run(_run(stream, seed, out, every=every, hold=hold))


async def _run(stream: list[Request], seed: int, out: Path, *, every: bool, hold: bool) -> None:
    with tempfile.TemporaryDirectory() as folder, click.progressbar(length=len(stream), label="requests") as bar:
        async with lived(stream, Path(folder), seed, lambda: bar.update(1)) as (port, decision_id):
            for path in await take(port, decision_id, out, every=every):
                click.echo(f"{path}: {path.stat().st_size:,} bytes")
            if hold:
                click.echo(f"http://127.0.0.1:{port}/#/support")
                await asyncio.Event().wait()
