"""The command line of the benchmark of evaluations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import click
from rich.console import Console
from rich.markdown import Markdown
from rich.progress import Progress
from threadpoolctl import threadpool_limits

from policy.candidates import CandidateSpec, Threshold
from policy.domain import PAID_SHADOW_SHARE_MAX, Objective, PaidShadow, RouterSpec
from policy.evaluation import EvaluationSettings
from policy.verdict import Requirements
from scripts.evaluation.experiments import Coverage, Race, coverage, race
from scripts.evaluation.pairs import Pairing, Tries, pairing
from scripts.evaluation.synthetic import Speed, measure_file, measure_live
from scripts.evaluation.truth import Case
from server.replay.file import ReplayFile, ReplayFileError, read_replay
from server.replay.run import featurised

_UTILITY_ALONE = Requirements(
    quality_loss_max=None, cost_factor_max=None, latency_factor_max=None, error_increase_max=None
)
_LOOKS = 5
_NO_CAP_USD = 1e6
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
@click.option("--paid-runs", default=100, show_default=True, help="With second calls, seeds from 0 on.")
@click.option("--paid-decisions", default=2000, show_default=True, help="Of each of those runs.")
@click.option(
    "--paid-share",
    type=click.FloatRange(0.0, PAID_SHADOW_SHARE_MAX, min_open=True),
    default=0.05,
    show_default=True,
    help="Of their decisions that have a second call.",
)
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
    paid_runs: int,
    paid_decisions: int,
    paid_share: float,
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
    if len(models) < 3:
        raise click.UsageError("FILE must have at least 3 models, a cheap one and two dearer ones")
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("playing", total=runs + races + paid_runs)
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
        paid = replace(spec, paid_shadow=PaidShadow(paid_share, _NO_CAP_USD))
        pairs = pairing(
            Case(replay, rounds, paid, (), EvaluationSettings(_UTILITY_ALONE)),
            range(paid_runs),
            paid_decisions,
            paid_decisions // _LOOKS,
            lambda: progress.advance(task),
        )
    text = "\n\n".join([markdown(replay, covered, found, speeds), *([paired(replay, pairs)] if paid_runs else [])])
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
    found = [CandidateSpec(name, threshold=Threshold(strong, cheap, gap)) for name, gap in _AFFORDABLE.items()]
    return *found, CandidateSpec(_DEAR, threshold=Threshold(dear, strong, 0.02))


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


def paired(replay: ReplayFile, found: Pairing) -> str:
    """The table of second calls: a row for each model alone."""
    rows = [
        (
            f"gain in utility, {median(found.pairs):.0f} second calls",
            "95 % intervals right",
            "sequences ever wrong",
            "false alarms",
            "width",
            "width by all single calls",
            "of those right",
        ),
        ("---",) * 7,
        *(_tries(f"fixed:{model}", found.candidates[f"fixed:{model}"], found.runs) for model in _by_cost(replay)),
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _tries(name: str, tries: Tries, runs: int) -> tuple[str, ...]:
    told = tries.intervals > 0
    return (
        name,
        f"{tries.right} of {tries.intervals}",
        f"{tries.sequences} of {runs}",
        f"{tries.alarms} of {runs}",
        f"{median(tries.paired_widths):.4f}" if told else "too few to tell",
        f"{median(tries.single_widths):.4f}" if told else "",
        f"{tries.single_right} of {tries.intervals}" if told else "",
    )


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
