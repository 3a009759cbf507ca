"""The command line of the benchmark of evaluations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median

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
from scripts.evaluation.synthetic import Speed, measure
from scripts.evaluation.truth import Case
from server.replay.file import ReplayFile, ReplayFileError, read_replay
from server.replay.run import featurised

_UTILITY_ALONE = Requirements(
    quality_loss_max=None, cost_factor_max=None, latency_factor_max=None, error_increase_max=None
)
_LOOKS = 5
# Between the cheapest model and the second dearest, by the gap of quality at which the dearer one is called.
_AFFORDABLE = {"threshold 0.05": 0.05, "threshold 0.1": 0.1, "threshold 0.2": 0.2}
# Between the two dearest.
_DEAR = "threshold dear 0.02"
_GAIN = 0.02


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
    speed = measure(speed_decisions) if speed_decisions else None
    models = _by_cost(replay)
    if len(models) < 3:
        raise click.UsageError("FILE must have at least 3 models, a cheap one and two dearer ones")
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("playing", total=runs + races)
        rounds = featurised(replay, lambda: None)
        plain = Case(replay, rounds, spec, (), EvaluationSettings(_UTILITY_ALONE))
        covered = coverage(plain, range(runs), decisions, decisions // _LOOKS, lambda: progress.advance(task))
        full = Case(replay, rounds, spec, _thresholds(models), EvaluationSettings(_UTILITY_ALONE))
        cheap, strong, dear = (f"fixed:{models[index]}" for index in (0, -2, -1))
        affordable = [cheap, strong, "uniform", *_AFFORDABLE]
        groups = affordable, [cheap, strong, dear, "uniform", "threshold 0.1", _DEAR]
        found = []
        for seed in range(races):
            found.append(race(full, seed, 100, groups, (strong, cheap)))
            progress.advance(task)
    text = markdown(replay, covered, found, speed)
    shown = Console()
    shown.print(Markdown(text)) if shown.is_terminal else click.echo(text)


def _by_cost(replay: ReplayFile) -> list[str]:
    """The models, the cheapest in the mean first."""
    return sorted(replay.models, key=lambda model: sum(row.outcomes[model].cost_usd for row in replay.rows))


def _thresholds(models: Sequence[str]) -> tuple[CandidateSpec, ...]:
    cheap, strong, dear = models[0], models[-2], models[-1]
    found = [CandidateSpec(name, threshold=Threshold(strong, cheap, gap)) for name, gap in _AFFORDABLE.items()]
    return *found, CandidateSpec(_DEAR, threshold=Threshold(dear, strong, 0.02))


def markdown(replay: ReplayFile, covered: Coverage, races: Sequence[Race], speed: Speed | None) -> str:
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
    if speed:
        size = f"{speed.peak_bytes / 2**20:.0f} MiB"
        rows.append(("decisions a second, 7 comparators", f"{speed.decisions / speed.seconds:,.0f}"))
        rows.append((f"largest size, {speed.decisions:,} decisions", size))
    return "\n".join(f"| {left} | {right} |" for left, right in rows)


def _races(replay: ReplayFile, races: Sequence[Race]) -> list[tuple[str, str]]:
    medians = (f"{median(each.propensity_medians[at] for each in races):.2g}" for at in range(len(replay.models)))
    return [
        ("median propensities, " + ", ".join(replay.models), ", ".join(medians)),
        ("second dearest and cheapest model told apart after", _listed([each.told_apart for each in races])),
        (f"the candidate that is better by about {_GAIN} passed the gate after", _listed(_gate(races))),
        ("it is better by", ", ".join(f"{each.gains[each.nearest(_GAIN)]:+.4f}" for each in races)),
        *(
            (f"Kendall's tau of six candidates{which}", _means([each.taus[group] for each in races]))
            for group, which in enumerate(("", ", with the dearest model"))
        ),
    ]


def _gate(races: Sequence[Race]) -> list[int | None]:
    return [each.passed.get(each.nearest(_GAIN)) for each in races]


def _means(values: Sequence[float]) -> str:
    return f"{sum(values) / len(values):.2f} ({', '.join(f'{each:.2f}' for each in values)})"


def _listed(decisions: Sequence[int | None]) -> str:
    return ", ".join("never" if each is None else str(each) for each in decisions)
