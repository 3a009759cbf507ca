"""The command line of the benchmark of the gateway."""

from __future__ import annotations

import asyncio
import itertools
import time
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
@click.option(
    "--seed",
    "seeds",
    multiple=True,
    type=int,
    default=(1,),
    show_default=True,
    help="Of the order of the rows. May be given several times.",
)
@click.option(
    "--budget-usd-per-request",
    "given",
    type=click.FloatRange(0, min_open=True),
    multiple=True,
    help="May be given several times.  [default: the third and the fifth of seven, as replay --frontier has them]",
)
@click.option("--frontier", is_flag=True, help="All seven budgets of replay --frontier.")
@click.option(
    "--rewards",
    "wanted",
    multiple=True,
    type=click.Choice(["feedback", "judge"]),
    default=("feedback", "judge"),
    show_default=True,
    help="Where rewards come from. May be given twice.",
)
@click.option("--judge-share", type=click.FloatRange(0, 1), default=0.2, show_default=True)
@click.option("--judge-noise", type=click.FloatRange(0), default=0.2, show_default=True)
@click.option("--judge-usd-per-day-max", type=click.FloatRange(0, min_open=True), default=1.0, show_default=True)
def main(
    file: Path,
    rows: int | None,
    seeds: tuple[int, ...],
    given: tuple[float, ...],
    frontier: bool,
    wanted: tuple[str, ...],
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
    found = given or (spaced if frontier else (spaced[2], spaced[4]))
    judged = Feeding(judge_share, judge_noise, judge_usd_per_day_max)
    feedings = {"feedback": Feeding(), "judge": judged}
    console = Console(stderr=True)
    click.echo(
        "| budget | seed | rewards | quality | of replay | USD a request | lift | of replay | judged "
        "| judge's USD | seconds |"
    )
    click.echo("| --- " * 11 + "|")
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        rounds = len(seeds) * len(wanted) * len(found) * len(replay.rows)
        playing = progress.add_task("playing", total=rounds)
        for budget, seed in itertools.product(found, seeds):
            alone = replayed(replay, budget, seed, _DRAWS)
            known = mean([each.quality for each in alone]), mean([each.lift for each in alone])
            for name in wanted:
                started = time.monotonic()
                one = asyncio.run(played(replay, budget, seed, feedings[name], lambda: progress.advance(playing)))
                shown = f"judge of {judge_share:.0%}" if name == "judge" else name
                click.echo(_row(budget, seed, shown, one, known, time.monotonic() - started))


def _row(budget: float, seed: int, name: str, one: Played, known: tuple[float, float], seconds: float) -> str:
    quality, lift = known
    of_judge = ("", "")
    if one.judge:
        spent, most = one.judge["cost_usd_today"], one.judge["cost_usd_per_day_max"]
        of_judge = (str(one.judge["outcomes"].get("judged", 0)), f"{spent:.4f} of {most:g}")
    cells = (
        f"{budget:.3g}",
        str(seed),
        name,
        f"{one.measured.quality:.4f}",
        f"{quality:.4f}",
        f"{one.measured.cost_usd:.3g}",
        f"{one.measured.lift:+.4f}",
        f"{lift:+.4f}",
        *of_judge,
        f"{seconds:.0f}",
    )
    return f"| {' | '.join(cells)} |"


def _part(file: ReplayFile, rows: int | None) -> ReplayFile:
    """Every so many-th row. A prompt that stands twice is left out once: a stand-in knows it by its text."""
    once = list({row.prompt: row for row in reversed(file.rows) if row.prompt}.values())[::-1]
    step = max(1.0, len(once) / (rows or len(once)))
    count = min(rows or len(once), len(once))
    return ReplayFile(file.models, [once[int(index * step)] for index in range(count)])
