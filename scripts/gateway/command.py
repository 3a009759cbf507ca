"""The command line of the benchmark of the gateway."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click
from rich.console import Console
from rich.progress import Progress
from threadpoolctl import threadpool_limits

from scripts.gateway.experiment import Feeding, Played, mean, played, replayed
from server.replay.file import ReplayFile, ReplayFileError, read_replay
from server.replay.run import budgets

_DRAWS = 5


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--rows", type=click.IntRange(10), help="Only so many of the file's rows, spread over it.")
@click.option("--seed", default=1, show_default=True, help="Of the order of the rows.")
@click.option(
    "--budget-usd-per-request",
    "given",
    type=click.FloatRange(0, min_open=True),
    multiple=True,
    help="May be given several times.  [default: the third and the fifth of seven, as replay --frontier has them]",
)
@click.option("--judge-share", type=click.FloatRange(0, 1), default=0.2, show_default=True)
@click.option("--judge-noise", type=click.FloatRange(0), default=0.2, show_default=True)
@click.option("--judge-usd-per-day-max", type=click.FloatRange(0, min_open=True), default=1.0, show_default=True)
def main(
    file: Path,
    rows: int | None,
    seed: int,
    given: tuple[float, ...],
    judge_share: float,
    judge_noise: float,
    judge_usd_per_day_max: float,
) -> None:
    """Play FILE through the openai SDK, `pointsman gateway`, `pointsman serve` and stand-ins for the providers.

    Once with feedback on each answer, which is beside the mean of five draws of pointsman replay on the same rows
    in the same order; and once with no feedback but a judge's, whose scores are the true quality with a normal
    noise. Prints a Markdown table.
    """
    threadpool_limits(limits=1, user_api="blas")
    try:
        replay = _part(read_replay(file), rows)
    except ReplayFileError as error:
        raise click.UsageError(str(error)) from error
    spaced = budgets(replay, 7)
    found = given or (spaced[2], spaced[4])
    judged = Feeding(judge_share, judge_noise, judge_usd_per_day_max)
    console = Console(stderr=True)
    click.echo(
        "| budget | rewards | quality | of replay | USD a request | lift | of replay | judged | judge's USD |"
    )
    click.echo("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        playing = progress.add_task("playing", total=2 * len(found) * len(replay.rows))
        for budget in found:
            alone = replayed(replay, budget, seed, _DRAWS)
            known = mean([each.quality for each in alone]), mean([each.lift for each in alone])
            for name, feeding in (("feedback", Feeding()), (f"judge of {judge_share:.0%}", judged)):
                one = asyncio.run(played(replay, budget, seed, feeding, lambda: progress.advance(playing)))
                click.echo(_row(budget, name, one, known))


def _row(budget: float, name: str, one: Played, known: tuple[float, float]) -> str:
    quality, lift = known
    of_judge = ("", "")
    if one.judge:
        spent, most = one.judge["cost_usd_today"], one.judge["cost_usd_per_day_max"]
        of_judge = (str(one.judge["outcomes"].get("judged", 0)), f"{spent:.4f} of {most:g}")
    cells = (
        f"{budget:.3g}",
        name,
        f"{one.measured.quality:.4f}",
        f"{quality:.4f}",
        f"{one.measured.cost_usd:.3g}",
        f"{one.measured.lift:+.4f}",
        f"{lift:+.4f}",
        *of_judge,
    )
    return f"| {' | '.join(cells)} |"


def _part(file: ReplayFile, rows: int | None) -> ReplayFile:
    """Every so many-th row. A prompt that stands twice is left out once: a stand-in knows it by its text."""
    once = list({row.prompt: row for row in reversed(file.rows) if row.prompt}.values())[::-1]
    step = max(1.0, len(once) / (rows or len(once)))
    count = min(rows or len(once), len(once))
    return ReplayFile(file.models, [once[int(index * step)] for index in range(count)])
