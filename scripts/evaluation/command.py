"""The command line of the benchmark of evaluations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import click
from rich.console import Console
from rich.markdown import Markdown
from rich.progress import Progress
from threadpoolctl import threadpool_limits

from policy.candidates import CandidateSpec, Threshold
from policy.domain import Objective, RouterSpec
from policy.evaluation import EvaluationSettings
from policy.verdict import Requirements
from scripts.evaluation.experiments import Coverage, Race, coverage, race
from scripts.evaluation.synthetic import Speed, measure_file, measure_live
from scripts.evaluation.truth import Case
from server.replay.file import ReplayFile, ReplayFileError, read_replay
from server.replay.run import featurised

_UTILITY_ALONE = Requirements(
    quality_loss_max=None, cost_factor_max=None, latency_factor_max=None, error_increase_max=None
)
_LOOKS = 5


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--budget-usd-per-request", type=float, help="The live policy's.")
@click.option("--quality-value-usd", type=float, help="The live policy's.")
@click.option("--policy", default="learned", show_default=True, help="The live policy.")
@click.option("--runs", default=300, show_default=True, help="For coverage and gate, seeds from 0 on.")
@click.option("--decisions", default=300, show_default=True, help="Of each of those runs.")
@click.option("--races", default=3, show_default=True, help="Runs over the whole file, for power and ranking.")
@click.option(
    "--speed-decisions", default=1_000_000, show_default=True, help="Synthetic ones, for speed and memory."
)
def main(
    file: Path,
    budget_usd_per_request: float | None,
    quality_value_usd: float | None,
    policy: str,
    runs: int,
    decisions: int,
    races: int,
    speed_decisions: int,
) -> None:
    """Show how far evaluations of logs that a policy makes of FILE can be trusted.

    FILE is a replay file, as for `pointsman replay`. Prints a Markdown table.
    """
    threadpool_limits(limits=1, user_api="blas")
    try:
        replay = read_replay(file)
    except ReplayFileError as error:
        raise click.UsageError(str(error)) from error
    spec = RouterSpec(objective=Objective(budget_usd_per_request, quality_value_usd), policy=policy)
    # First, while nothing else is in memory.
    speeds = _speeds(speed_decisions) if speed_decisions else {}
    models = _by_cost(replay)
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("playing", total=runs + races)
        rounds = featurised(replay, lambda: None)
        plain = Case(replay, rounds, spec, (), EvaluationSettings(_UTILITY_ALONE))
        covered = coverage(plain, range(runs), decisions, decisions // _LOOKS, lambda: progress.advance(task))
        full = Case(replay, rounds, spec, _thresholds(models), EvaluationSettings(_UTILITY_ALONE))
        ranked = [
            *(f"fixed:{model}" for model in replay.models),
            "uniform",
            *(each.id for each in full.candidates),
        ]
        found = []
        for seed in range(races):
            found.append(race(full, seed, 100, ranked, (f"fixed:{models[-2]}", f"fixed:{models[0]}")))
            progress.advance(task)
    text = markdown(replay, covered, found, speeds)
    shown = Console()
    shown.print(Markdown(text)) if shown.is_terminal else click.echo(text)


def _speeds(count: int) -> dict[str, Speed]:
    """A file and the live log with the standing comparators alone, and a file with one candidate that learns."""
    with TemporaryDirectory(prefix="pointsman-evaluation-") as folder:
        return {
            "a file": measure_file(Path(folder), count),
            "the live log": measure_live(count),
            "a file, one candidate that learns": measure_file(
                Path(folder), max(1000, count // 200), [CandidateSpec("learned")]
            ),
        }


def _by_cost(replay: ReplayFile) -> list[str]:
    """The models, the cheapest in the mean first."""
    return sorted(replay.models, key=lambda model: sum(row.outcomes[model].cost_usd for row in replay.rows))


def _thresholds(models: Sequence[str]) -> tuple[CandidateSpec, ...]:
    cheap, strong, dear = models[0], models[-2], models[-1]
    pairs = {"threshold 0.1": (strong, cheap, 0.1), "threshold dear 0.02": (dear, strong, 0.02)}
    return tuple(
        CandidateSpec(name, threshold=Threshold(*each)) for name, each in pairs.items() if each[0] != each[1]
    )


def markdown(replay: ReplayFile, covered: Coverage, races: Sequence[Race], speeds: Mapping[str, Speed]) -> str:
    """The table: a row for each thing that was measured."""
    rows = [("what", "measured"), ("---", "---")]
    runs = covered.runs
    for name, right in covered.intervals.items():
        wrong = covered.sequences[name]
        rows.append(
            (f"{name}: 95 % intervals right, sequences ever wrong", f"{right / runs:.1%}, {wrong / runs:.1%}")
        )
    rows.append(
        ("worse candidates that ever passed the gate", f"{covered.worse_passed} of {covered.worse} in {runs} runs")
    )
    if races:
        rows += _races(replay, races)
    for name, speed in speeds.items():
        size = f"{speed.peak_bytes / 2**20:.0f} MiB"
        rows.append(
            (
                f"{name}, {speed.decisions:,} decisions: decisions a second, largest size",
                f"{speed.rate:,.0f}, {size}",
            )
        )
    return "\n".join(f"| {left} | {right} |" for left, right in rows)


def _races(replay: ReplayFile, races: Sequence[Race]) -> list[tuple[str, str]]:
    medians = (f"{median(each.propensity_medians[at] for each in races):.2g}" for at in range(len(replay.models)))
    return [
        ("median propensities, " + ", ".join(replay.models), ", ".join(medians)),
        ("second dearest and cheapest model told apart after", _listed([each.told_apart for each in races])),
        ("the best passed the gate after", _listed([each.passed for each in races])),
        ("the best is better by", ", ".join(f"{each.gap:+.4f} ({each.best})" for each in races)),
        ("Kendall's tau of six candidates", ", ".join(f"{each.tau:.2f}" for each in races)),
    ]


def _listed(decisions: Sequence[int | None]) -> str:
    return ", ".join("never" if each is None else str(each) for each in decisions)
