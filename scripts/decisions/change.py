"""Measures of change: quality and spend by phase, how soon a newcomer is adopted, how an outage is borne."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from policy.domain import FloatArray
from policy.simulation import measure
from scripts.decisions.worlds import FORMER_ROUNDS, Steady

WINDOW_ROUNDS = 50
"""A share after a change is taken over the last so many rounds."""

_LEFT_ROUNDS = 20


@dataclass(frozen=True, slots=True)
class Phase:
    """What was earned and spent in a stretch; lift is over the hull of the same stretch."""

    quality: float
    cost_usd: float
    lift: float


def phase(world: Steady, first: int, last: int) -> Phase:
    """Measures rounds first to last - 1 of a played world."""
    found = measure(world.table(first, last), world.chosen[first:last])
    return Phase(found.quality, found.cost_usd, found.lift)


def share(chosen: Sequence[str], model: str, first: int, last: int) -> float:
    """The share of a model among rounds first to last - 1."""
    part = chosen[max(0, first) : last]
    return part.count(model) / len(part) if part else 0.0


def former_share(chosen: Sequence[str], model: str, position: int) -> float:
    """A model's share over the 200 rounds before a change."""
    return share(chosen, model, position - FORMER_ROUNDS, position)


def rounds_until_share(chosen: Sequence[str], model: str, since: int, wanted: float) -> int | None:
    """How many rounds from `since` on it takes until the model's share of the last 50 rounds is as wanted.

    The window reaches back before `since` at first, so a model that had no calls then needs at least
    50 * wanted rounds. None if it never comes to that.
    """
    calls = np.array([each == model for each in chosen], dtype=np.int64)
    sums = np.concatenate([[0], np.cumsum(calls)])
    for position in range(since + 1, len(chosen) + 1):
        window = min(WINDOW_ROUNDS, position)
        if sums[position] - sums[position - window] >= wanted * window:
            return position - since
    return None


@dataclass(frozen=True, slots=True)
class Borne:
    """How an outage was borne. `probes_share` and `back_rounds` are None where it does not come to that."""

    failed_calls: int
    left_after_calls: int | None
    probes_share: float | None
    back_rounds: int | None


def bear(chosen: Sequence[str], model: str, first: int, last: int) -> Borne:
    """Measures an outage of a model in rounds first to last - 1.

    It is left at the first round after which 20 go by without a call to it. `left_after_calls` are
    the failed calls until then, None if it is never left; probes are the calls after, as a share of
    the rounds after. It is back when its share of the last 50 rounds is half of what it was in the
    200 before the outage; who never left is not back.
    """
    failing = [each == model for each in chosen[first:last]]
    left = next(
        (at for at in range(len(failing) - _LEFT_ROUNDS + 1) if not any(failing[at : at + _LEFT_ROUNDS])), None
    )
    wanted = former_share(chosen, model, first) / 2
    return Borne(
        failed_calls=sum(failing),
        left_after_calls=None if left is None else sum(failing[:left]),
        probes_share=None if left is None else sum(failing[left:]) / (len(failing) - left),
        back_rounds=None if left is None else rounds_until_share(chosen, model, last, wanted),
    )


def earned(world: Steady) -> tuple[FloatArray, FloatArray]:
    """Quality, and spend in USD, of each round of a played world: two of (rounds,)."""
    outcomes = [world.outcome(position, model) for position, model in enumerate(world.chosen)]
    return np.array([each.quality for each in outcomes]), np.array([each.cost_usd for each in outcomes])


def rolling(values: FloatArray, window: int, points: int) -> list[float]:
    """Means over the last `window` values, at so many evenly spaced places: for a plot."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.linspace(1, len(values), points).astype(int)
    starts = np.maximum(0, ends - window)
    return [float(each) for each in (sums[ends] - sums[starts]) / (ends - starts)]
