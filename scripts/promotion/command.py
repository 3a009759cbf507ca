"""The command line of the benchmark of promotions."""

from __future__ import annotations

from dataclasses import replace

import click
import numpy as np
from rich.console import Console
from rich.markdown import Markdown
from rich.progress import Progress

from policy.guard import DECISIONS_PER_FALSE_ALARM
from scripts.promotion.world import GOOD_DECISIONS, Left, Outcomes, Promotion

_GOOD = Outcomes()
_BAD = {
    "quality 0.8 to 0.7": replace(_GOOD, quality=0.7),
    "quality 0.8 to 0.65": replace(_GOOD, quality=0.65),
    "quality 0.8 to 0.6": replace(_GOOD, quality=0.6),
    "quality 0.8 to 0.5": replace(_GOOD, quality=0.5),
    "failed calls 2 % to 10 %": replace(_GOOD, failing=0.1),
    "failed calls 2 % to 20 %": replace(_GOOD, failing=0.2),
    "cost x 1.5": replace(_GOOD, cost_usd=1.5 * _GOOD.cost_usd),
    "cost x 2": replace(_GOOD, cost_usd=2.0 * _GOOD.cost_usd),
    "cost x 3": replace(_GOOD, cost_usd=3.0 * _GOOD.cost_usd),
    "latency x 2": replace(_GOOD, latency_seconds=2.0),
}
_SOON = 300
_MOST = 3000


@click.command()
@click.option("--runs", default=100, show_default=True, help="Of each kind of change, seeds from 0 on.")
@click.option("--holdback", default=0.1, show_default=True, help="The former policy's share of the traffic.")
@click.option("--quiet-runs", default=100, show_default=True, help="Runs in which nothing is wrong.")
@click.option("--quiet-decisions", default=10_000, show_default=True, help="Of each of those.")
@click.option("--sequences/--guard-alone", default=True, help="Whether sequences may end a run as well.")
def main(runs: int, holdback: float, quiet_runs: int, quiet_decisions: int, sequences: bool) -> None:
    """Promote a policy, make the model that it calls nine times in ten worse, and count decisions until the router
    has gone back; and count how often it does so where nothing is wrong. Prints a Markdown table.

    What comes of a decision is reported before the next. Runs where nothing is wrong are by the guard alone: that
    a sequence is ever wrong has a probability of 0.025 at most for each of the three that are asked.
    """
    console = Console(stderr=True)
    lines = [
        "| what turns bad | left within 300 | half of them within | nine of ten | by the guard | too early |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("playing", total=runs * len(_BAD) + 2 * quiet_runs)
        for name, bad in _BAD.items():
            found: list[Left | None] = []
            early = 0
            for seed in range(runs):
                played = Promotion(seed, holdback, sequences=sequences)
                if played.until_left(_GOOD, GOOD_DECISIONS):
                    early += 1
                else:
                    found.append(played.until_left(bad, _MOST))
                progress.advance(task)
            lines.append(_row(name, found, early))
        for name, drift in (("nothing", 0.0), ("quality of all models falls slowly by 0.05", 0.05)):
            alarms = 0
            for seed in range(quiet_runs):
                played = Promotion(seed, holdback, sequences=False)
                alarms += played.until_left(_GOOD, quiet_decisions, drift) is not None
                progress.advance(task)
            lines.append(f"| {name} | left in {alarms} of {quiet_runs} runs of {quiet_decisions:,} | | | | |")
    lines += ["", f"By its bound the guard may be wrong once in {DECISIONS_PER_FALSE_ALARM:,} decisions."]
    shown = Console()
    text = "\n".join(lines)
    shown.print(Markdown(text)) if shown.is_terminal else click.echo(text)


def _row(name: str, found: list[Left | None], early: int) -> str:
    counts = np.array([np.inf if each is None else each.decisions for each in found])
    soon = float((counts <= _SOON).mean())
    guarded = sum(each is not None and each.by_guard for each in found)
    half, most = (np.quantile(counts, share, method="higher") for share in (0.5, 0.9))
    return f"| {name} | {soon:.0%} | {_number(half)} | {_number(most)} | {guarded} of {len(found)} | {early} |"


def _number(value: float) -> str:
    return "never" if np.isinf(value) else f"{value:,.0f}"
