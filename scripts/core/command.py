"""The command line of the benchmark of the core."""

from __future__ import annotations

import time
from dataclasses import dataclass

import click
from threadpoolctl import threadpool_limits

from scripts.core.contestants import Play, Rounds, paretobandit, played, pointsman
from scripts.decisions.pareto import why_missing

_WARM_UP = 200
_TURNS = 10


@dataclass
class _Timed:
    """A contestant with the processor and the wall time that its rounds took."""

    name: str
    play: Play
    processor_seconds: float = 0.0
    seconds: float = 0.0
    reward: float = 0.0

    def turn(self, numbers: range) -> None:
        """Plays some rounds more."""
        began, worked = time.perf_counter(), time.thread_time()
        self.reward += played(self.play, numbers) * len(numbers)
        self.seconds += time.perf_counter() - began
        self.processor_seconds += time.thread_time() - worked


@click.command()
@click.option("--rounds", type=click.IntRange(1000, 10_000_000), default=20_000, show_default=True)
@click.option("--features", type=click.IntRange(2, 4096), multiple=True, default=(26, 256), show_default=True)
@click.option("--models", type=click.IntRange(2, 128), default=3, show_default=True)
@click.option("--page", type=click.IntRange(1, 10_000), default=16, show_default=True, help="Rounds for a view.")
@click.option("--seed", type=int, default=0, show_default=True)
def main(rounds: int, features: tuple[int, ...], models: int, page: int, seed: int) -> None:
    """Time a decision and the learning of its outcome, in one thread, beside ParetoBandit on the same data.

    Both take turns, so that a machine that is slower for a while is so for both. Rounds a second by processor time
    are those of a machine that does nothing else.
    """
    with threadpool_limits(1):
        for size in features:
            data = Rounds.drawn(rounds + _WARM_UP, size, models, seed)
            timed = [_Timed("Pointsman", pointsman(data, page))]
            if why_missing() is None:
                timed.append(_Timed("ParetoBandit", paretobandit(data, seed)))
            for each in timed:
                played(each.play, range(_WARM_UP))
            step = rounds // _TURNS
            for turn in range(_TURNS):
                for each in timed:
                    each.turn(range(_WARM_UP + turn * step, _WARM_UP + (turn + 1) * step))
            for each in timed:
                click.echo(_line(each, size, models, step * _TURNS))
    if why_missing() is not None:
        click.echo(f"ParetoBandit was not played: {why_missing()}", err=True)


def _line(timed: _Timed, features: int, models: int, rounds: int) -> str:
    by_processor, by_clock = rounds / timed.processor_seconds, rounds / timed.seconds
    return (
        f"{timed.name:<13}{features:>5} features, {models} models: {by_processor:>7.0f} rounds/s by processor "
        f"time, {by_clock:>7.0f} by the clock, mean reward {timed.reward / rounds:.3f}"
    )
