"""pointsman replay: plays a file of known outcomes and shows what routing would have earned and spent."""

from __future__ import annotations

import gzip
import json
import time
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, cast

import click
from rich.console import Console
from rich.table import Table as Grid

from policy.domain import LearnerKind, Objective, RouterSpec
from policy.policy_name import require_policy
from policy.simulation import Table
from server.cli.progress import progress
from server.cli.remote import open_channel, tls_options
from server.evaluate.log_writer import LogWriter
from server.replay.file import ReplayFile, ReplayFileError, read_replay
from server.replay.run import (
    FrontierPoint,
    Play,
    Run,
    budgets,
    featurised,
    frontier,
    plan_of,
    play_here,
    run,
    table,
)
from server.replay.target import TargetError, Traffic, play_target


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--budget-usd-per-request", type=float, help="Average spend to keep to.")
@click.option("--quality-value-usd", type=float, help="What quality from 0 to 1 is worth on one request.")
@click.option("--seed", default=0, show_default=True, help="Of the order of the rows and of the draws.")
@click.option(
    "--policy", default="learned", show_default=True, help="Or greedy, uniform, cheapest, dearest, fixed:MODEL."
)
@click.option(
    "--learner",
    type=click.Choice([each.value for each in LearnerKind]),
    default="ridge",
    show_default=True,
)
@click.option("--frontier", "wants_frontier", is_flag=True, help="Play at several budgets and seeds.")
@click.option(
    "--budgets",
    "count",
    type=click.IntRange(2, 100),
    default=7,
    show_default=True,
    help="For --frontier.",
)
@click.option(
    "--seeds",
    type=click.IntRange(1, 1000),
    default=3,
    show_default=True,
    help="For --frontier: --seed and those after it.",
)
@click.option(
    "--plot",
    type=click.Path(path_type=Path),
    help="Write the frontier's picture here (implies --frontier).",
)
@click.option("--target", help="HOST:PORT of a running server to play through, instead of in this process.")
@tls_options
@click.option("--router", default="", help="With --target: an existing router; without, a new one is made.")
@click.option(
    "--incumbent", default="", help="With --target: what the caller's own rule would call, for shadow mode."
)
@click.option(
    "--log",
    type=click.Path(path_type=Path),
    help="Write what was decided and came of it here, for pointsman evaluate and import (gzipped if it ends with "
    ".gz).",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def replay(
    file: Path,
    budget_usd_per_request: float | None,
    quality_value_usd: float | None,
    seed: int,
    policy: str,
    learner: str,
    wants_frontier: bool,
    count: int,
    seeds: int,
    plot: Path | None,
    target: str | None,
    router: str,
    incumbent: str,
    log: Path | None,
    as_json: bool,
) -> None:
    """Play FILE with bandit feedback only, through the code that serves.

    FILE is JSON lines, optionally gzipped:
    {"prompt": "...", "outcomes": {"model-a": {"quality": 0.75, "cost_usd": 0.00002}, ...}}
    """
    if budget_usd_per_request is not None and (wants_frontier or plot):
        raise click.UsageError("--budget-usd-per-request: --frontier and --plot choose the budgets themselves")
    if log and (wants_frontier or plot or target):
        raise click.UsageError("--log: is of one run in this process, not of --frontier, --plot or --target")
    if log and log.exists() and file.exists() and log.samefile(file):
        raise click.UsageError("--log: is FILE itself, which would be lost")
    if (router or incumbent) and not target:
        raise click.UsageError("--router and --incumbent: are of a server, which --target names")
    if router and (wants_frontier or plot):
        raise click.UsageError("--router: --frontier and --plot need a new router for each run")
    if seed < 0:
        raise click.UsageError("--seed: must be 0 or more")
    require_policy(policy)
    spec = RouterSpec(
        objective=Objective(budget_usd_per_request, quality_value_usd),
        policy=policy,
        learner=LearnerKind(learner),
    )
    try:
        with ExitStack() as stack:
            traffic = Traffic(f"replay-{time.time_ns() // 1_000_000}", router.removeprefix("routers/"), incumbent)
            replay_file, play = _prepare(file, target, traffic, log, seed, stack)
            if wants_frontier or plot:
                points = _play_frontier(replay_file, play, spec, count, range(seed, seed + seeds))
                reference = table(replay_file, plan_of(replay_file, seed))
                _show_frontier(points, reference, as_json)
                if plot:
                    # Matplotlib is slow to load, and wants a home.
                    from server.replay.plot import plot_frontier  # noqa: PLC0415

                    plot_frontier(plot, file.name, points, reference)
                return
            with progress("playing", len(replay_file.rows)) as on_round:
                result = run(replay_file, play, spec, seed, on_round)
            _show_run(result, table(replay_file, plan_of(replay_file, seed)), as_json)
    except (ReplayFileError, TargetError) as error:
        raise click.ClickException(str(error)) from error


def _prepare(
    path: Path, target: str | None, traffic: Traffic, log: Path | None, seed: int, stack: ExitStack
) -> tuple[ReplayFile, Play]:
    with progress("reading", None) as on_line:
        file = read_replay(path, on_line)
    if target:
        channel = stack.enter_context(open_channel(target))
        return file, play_target(file, channel, traffic)
    with progress("featurising", len(file.rows)) as on_round:
        rounds = featurised(file, on_round)
    if not log:
        return file, play_here(file, rounds)
    prompts = [file.rows[row].prompt for row in plan_of(file, seed).order]
    return file, play_here(file, rounds, [LogWriter(stack.enter_context(_opened(log)), prompts)])


def _opened(log: Path) -> BinaryIO:
    return cast("BinaryIO", gzip.open(log, "wb")) if log.suffix == ".gz" else log.open("wb")


def _play_frontier(
    file: ReplayFile, play: Play, spec: RouterSpec, count: int, seeds: range
) -> list[FrontierPoint]:
    total = len(file.rows) * count * len(seeds)
    with progress("playing", total) as on_round:
        return frontier(file, play, spec, budgets(file, count), seeds, on_round)


def _show_run(result: Run, reference: Table, as_json: bool) -> None:
    measured = result.measured
    if as_json:
        values = {
            "n": measured.n,
            "quality": measured.quality,
            "cost_usd": measured.cost_usd,
            "utilization": result.utilization,
            "hull_quality": measured.hull_quality,
            "lift": measured.lift,
            "oracle_quality": measured.oracle_quality,
            "share": measured.share,
            "seconds": result.seconds,
        }
        click.echo(json.dumps(values))
        return
    grid = Grid(title=f"{measured.n} measured requests")
    for heading in ("", "quality", "USD a request", "share"):
        grid.add_column(heading, justify="left" if not heading else "right")
    grid.add_row("Pointsman", f"{measured.quality:.4f}", f"{measured.cost_usd:.3e}", "", style="bold")
    grid.add_row("hull at the same spend", f"{measured.hull_quality:.4f}", f"{measured.cost_usd:.3e}", "")
    for model, (cost, quality) in reference.fixed().items():
        grid.add_row(f"always {model}", f"{quality:.4f}", f"{cost:.3e}", f"{measured.share[model]:.1%}")
    cost, quality = reference.random()
    grid.add_row("random", f"{quality:.4f}", f"{cost:.3e}", "")
    grid.add_row("oracle", f"{measured.oracle_quality:.4f}", "", "")
    console = Console()
    console.print(grid)
    used = "" if result.utilization is None else f", {result.utilization:.3f} of the budget"
    console.print(f"lift {measured.lift:+.4f}{used}, {result.seconds:.1f} s", highlight=False)


def _show_frontier(points: list[FrontierPoint], reference: Table, as_json: bool) -> None:
    lifts = [each.lift for each in points]
    mean, worst = sum(lifts) / len(lifts), min(lifts)
    if as_json:
        values = {
            "points": [
                {
                    name: getattr(each, name)
                    for name in ("budget_usd", "quality", "cost_usd", "utilization", "lift")
                }
                for each in points
            ],
            "mean_lift": mean,
            "worst_lift": worst,
            "fixed": {
                model: {"cost_usd": cost, "quality": quality}
                for model, (cost, quality) in reference.fixed().items()
            },
            "oracle_quality": reference.oracle_quality(),
        }
        click.echo(json.dumps(values))
        return
    grid = Grid(title="means over the seeds")
    for heading in ("budget, USD a request", "spent", "utilisation", "quality", "lift"):
        grid.add_column(heading, justify="right")
    for each in points:
        grid.add_row(
            f"{each.budget_usd:.3e}",
            f"{each.cost_usd:.3e}",
            f"{each.utilization:.3f}",
            f"{each.quality:.4f}",
            f"{each.lift:+.4f}",
        )
    console = Console()
    console.print(grid)
    for model, (cost, quality) in reference.fixed().items():
        console.print(f"always {model}: quality {quality:.4f} at {cost:.3e}", highlight=False)
    console.print(f"mean lift {mean:+.4f}, worst {worst:+.4f}", highlight=False, style="bold")
