"""The command line of the benchmark of rewards."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
from rich.console import Console
from rich.markdown import Markdown
from rich.progress import Progress
from threadpoolctl import threadpool_limits

from scripts.rewards.experiment import Case, Found, cases, run_case
from scripts.rewards.world import Feedback
from server.replay.file import ReplayFile, ReplayFileError, read_replay
from server.replay.run import budgets, featurised


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--seeds", type=click.IntRange(1, 1000), default=5, show_default=True)
@click.option(
    "--missing",
    type=click.FloatRange(0, 1, max_open=True),
    multiple=True,
    default=(0.5, 0.8, 0.9),
    show_default=True,
    help="Share of bad answers without a thumb; may be given several times.",
)
@click.option(
    "--up-share",
    type=click.FloatRange(0, 1),
    default=0.333,
    show_default=True,
    help="Thumbs on good answers to one on bad ones; 1: missing at random.",
)
@click.option(
    "--judged", type=click.FloatRange(0, 1), default=0.5, show_default=True, help="Share of answers judged."
)
@click.option(
    "--judge-lean",
    type=click.FloatRange(-1, 1),
    default=0.0,
    show_default=True,
    help="How much too high the judge's scores are.",
)
@click.option(
    "--budget-usd-per-request",
    type=click.FloatRange(0, min_open=True),
    help="Budget for the lift.  [default: the third of seven, spaced as pointsman replay --frontier does]",
)
def main(
    file: Path,
    seeds: int,
    missing: tuple[float, ...],
    up_share: float,
    judged: float,
    judge_lean: float,
    budget_usd_per_request: float | None,
) -> None:
    """Play FILE with a judge's score at once and thumbs later, by each rule of joining them.

    FILE is a replay file, as for `pointsman replay`. Prints a Markdown table: means over the seeds.
    """
    threadpool_limits(limits=1, user_api="blas")
    try:
        replay = read_replay(file)
    except ReplayFileError as error:
        raise click.UsageError(str(error)) from error
    budget = budget_usd_per_request or budgets(replay, 7)[2]
    planned = cases(missing, Feedback(0.0, judged, judge_lean, up_share))
    progress_console = Console(stderr=True)
    with Progress(console=progress_console, transient=True, disable=not progress_console.is_terminal) as progress:
        reading = progress.add_task("reading", total=len(replay.rows))
        rounds = featurised(replay, lambda: progress.advance(reading))
        playing = progress.add_task("playing", total=len(planned) * seeds)
        found: list[list[Found]] = []
        for case in planned:
            found.append([])
            for seed in range(seeds):
                found[-1].append(run_case(replay, rounds, case, budget, seed))
                progress.advance(playing)
    text = markdown(replay, planned, found)
    console = Console()
    console.print(Markdown(text)) if console.is_terminal else click.echo(text)


def markdown(replay: ReplayFile, planned: Sequence[Case], found: Sequence[Sequence[Found]]) -> str:
    """The table: a row for each case, the means over its seeds."""
    models = [f"bias of {model.rpartition('/')[2]}" for model in replay.models]
    head = ["missing", "rule", "no reward", "quality", "lift", *models]
    rows = [head, ["---"] * len(head)]
    for case, runs in zip(planned, found, strict=True):
        bias = [float(np.mean([run.bias[model] for run in runs])) for model in replay.models]
        rows.append(
            [
                f"{case.feedback.missing:.0%}" if case.feedback else "0%",
                case.name,
                f"{np.mean([run.silent for run in runs]):.0%}",
                f"{np.mean([run.quality for run in runs]):.4f}",
                f"{np.mean([run.lift for run in runs]):+.4f}",
                *(f"{each:+.3f}" for each in bias),
            ]
        )
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
