"""The command line of the benchmark of decisions."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path

import click
import numpy as np
from rich.console import Console
from rich.markdown import Markdown
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from threadpoolctl import threadpool_limits

from policy.domain import FloatArray
from scripts.decisions.jobs import run_all
from scripts.decisions.pareto import published_features, why_not_warm
from scripts.decisions.plan import Options, jobs
from scripts.decisions.plots import write_plots
from scripts.decisions.policies import PARETO_WARM, PEERS, why_skipped
from scripts.decisions.problem import Problem, load
from scripts.decisions.report import Circumstances, write
from scripts.decisions.summary import Results
from server.replay.file import ReplayFileError
from server.replay.run import OnRound

_CASES = ("frontier", "saving", "apgr", "price", "price-untold", "regression", "newcomer", "outage", "rewards")
_QUICK_BUDGETS = 3
_QUICK_REASON = "its encoder takes minutes, and this was a quick run"


@click.command(name="scripts/benchmark_decisions")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--seeds", type=click.IntRange(1, 100), default=5, show_default=True, help="0 and those after it.")
@click.option("--peer-seeds", type=click.IntRange(1, 100), help="For the peers, where fewer will do.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("decisions"), show_default=True)
@click.option("--cases", default=",".join(_CASES), show_default=True, help="What to run, with commas between.")
@click.option("--peers", default=",".join(PEERS), show_default=True, help="With commas between; 'none' for none.")
@click.option("--at-budget", "at_budgets", type=float, multiple=True, help="A further budget, USD a request.")
@click.option("--regressing", default="", help="The model of the case 'regression'; default the second dearest.")
@click.option("--regressed-to", type=float, default=0.75, show_default=True, help="Its quality's factor.")
@click.option("--copied", default="", help="The model that a newcomer copies; default the favourite of then.")
@click.option(
    "--change-in",
    type=click.Choice(["whole", "measured"]),
    default="whole",
    show_default=True,
    help="Whether changes divide the whole stream or only its measured part, after the learn part.",
)
@click.option("--jobs", "processes", type=click.IntRange(1, 64), default=2, show_default=True)
@click.option("--quick", is_flag=True, help="1 seed, 3 budgets, 1 budget a change: to try it out.")
def main(
    files: tuple[Path, ...],
    seeds: int,
    peer_seeds: int | None,
    out: Path,
    cases: str,
    peers: str,
    at_budgets: tuple[float, ...],
    regressing: str,
    regressed_to: float,
    copied: str,
    change_in: str,
    processes: int,
    quick: bool,
) -> None:
    """Play FILES with Pointsman and its peers side by side, and write decisions.md, decisions.json and plots.

    FILES are replay files: JSON lines, optionally gzipped, as for `pointsman replay`.
    """
    started = time.perf_counter()
    wanted = () if peers == "none" else _listed("--peers", peers, PEERS)
    skipped = {each: reason for each in wanted if (reason := why_skipped(each))}
    options = Options(
        seeds=1 if quick else seeds,
        peer_seeds=1 if quick else peer_seeds or seeds,
        budgets=_QUICK_BUDGETS if quick else 7,
        at_budgets_usd=at_budgets,
        cases=_listed("--cases", cases, _CASES),
        peers=tuple(each for each in wanted if each not in skipped),
        regressing=regressing,
        regressed_to=regressed_to,
        copied=copied,
        whole=change_in == "whole",
        change_budgets=1 if quick else 3,
    )
    problems = _load(files)
    for option, model in (("--regressing", regressing), ("--copied", copied)):
        if model and not any(model in problem.models for problem in problems):
            raise click.UsageError(f"{option}: no file has a model {model!r}")
    _make(out)
    if PARETO_WARM in options.peers:
        problems, cold = _warmed(problems, out, quick=quick)
        skipped |= cold
    planned = jobs(problems, options)
    with _progress("playing", len(planned)) as on_job:
        results = Results(run_all(problems, planned, processes, lambda _: on_job()))
    command = "scripts/benchmark_decisions " + shlex.join(_named(each) for each in sys.argv[1:])
    how = Circumstances(command, os.cpu_count() or 1, time.perf_counter() - started, skipped)
    try:
        text = write(out, problems, results, options, how)
        write_plots(out, problems, results, options)
    except OSError as error:
        raise click.ClickException(f"cannot write to {out}: {error}") from error
    console = Console()
    console.print(Markdown(text)) if console.is_terminal else click.echo(text)
    click.echo(f"written to {out}", err=True)


def _make(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise click.ClickException(f"cannot make the folder {out}: {error}") from error


def _warmed(problems: Sequence[Problem], out: Path, *, quick: bool) -> tuple[list[Problem], dict[str, str]]:
    """The problems, with ParetoBandit's own features where its priors apply; and why not, for the others."""
    reasons = {each.name: _QUICK_REASON if quick else why_not_warm(each.models) for each in problems}
    warmed = [
        each if reasons[each.name] else replace(each, published_features=_published(each, out))
        for each in problems
    ]
    return warmed, {f"{PARETO_WARM} on {name}": reason for name, reason in reasons.items() if reason}


def _published(problem: Problem, out: Path) -> FloatArray:
    """ParetoBandit's own features, kept in the folder, since its encoder takes minutes."""
    digest = blake2b("\0".join(problem.prompts).encode(), digest_size=8).hexdigest()
    kept = out / f"published-features-{digest}.npy"
    if not kept.exists():
        # Its products of small matrices are quicker on one core than shared out.
        with (
            threadpool_limits(limits=1, user_api="blas"),
            _progress(f"encoding {problem.name}", len(problem.prompts)) as on_prompt,
        ):
            np.save(kept, published_features(problem.prompts, on_prompt))
    features: FloatArray = np.load(kept)
    return features


def _named(argument: str) -> str:
    """An argument as the report shows it: a file or folder by its name, wherever it lies."""
    return Path(argument).name if Path(argument).exists() else argument


def _load(files: Sequence[Path]) -> list[Problem]:
    problems: list[Problem] = []
    for path in files:
        try:
            with _progress(f"reading {path.name}", None) as on_round:
                problem = load(path, on_round)
        except ReplayFileError as error:
            raise click.ClickException(str(error)) from error
        if problem.name in [each.name for each in problems]:
            raise click.UsageError(f"two files are named {problem.name}")
        if len(problem.models) < 2:
            raise click.UsageError(f"{path}: has one model only, which leaves nothing to decide")
        problems.append(problem)
    return problems


def _listed(option: str, text: str, known: Sequence[str]) -> tuple[str, ...]:
    found = tuple(each.strip() for each in text.split(",") if each.strip())
    for each in found:
        if each not in known:
            raise click.UsageError(f"{option}: must be among {', '.join(known)}, not {each!r}")
    return found


@contextmanager
def _progress(what: str, total: int | None) -> Iterator[OnRound]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=total)
        yield lambda: progress.advance(task)
