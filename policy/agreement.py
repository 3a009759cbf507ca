"""How well a cheap signal agrees with what users say themselves, where both are known of the same answer."""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from policy.domain import FloatArray
from policy.estimators import LEVEL, Estimate
from policy.evidence import Interval

# Fewer pairs than this say nothing of how sure a number is.
_PAIRS_MIN = 10


@dataclass(frozen=True, slots=True)
class Agreement:
    """Of one signal with rewards. `difference` is signal less reward, on average; nan is where there is none.

    `correlation` is Pearson's, with an interval that asks nothing of how they are distributed: thumbs are 0 or 1.
    """

    pairs: int
    signal_mean: float
    reward_mean: float
    difference: Estimate
    correlation: Estimate


class Pairs:
    """Takes pairs of a signal and a reward: 16 bytes each."""

    def __init__(self) -> None:
        self._signals, self._rewards = array("d"), array("d")

    def add(self, signal: float, reward: float) -> None:
        """One more answer of which both are known."""
        self._signals.append(signal)
        self._rewards.append(reward)

    def agreement(self, level: float = LEVEL) -> Agreement:
        """What the pairs say, with intervals of this level for one time chosen beforehand."""
        signals, rewards = np.array(self._signals), np.array(self._rewards)  # (pairs,)
        deviations = NormalDist().inv_cdf((1.0 + level) / 2.0)
        count = len(signals)
        means = (float(signals.mean()), float(rewards.mean())) if count else (math.nan, math.nan)
        return Agreement(
            count, *means, _difference(signals - rewards, deviations), _correlation(signals, rewards, deviations)
        )


def _difference(differences: FloatArray, deviations: float) -> Estimate:
    count = len(differences)
    value = float(differences.mean()) if count else math.nan
    if count < _PAIRS_MIN:
        return Estimate(value, Interval())
    margin = deviations * float(differences.std(ddof=1)) / math.sqrt(count)
    return Estimate(value, Interval(value - margin, value + margin))


def _correlation(signals: FloatArray, rewards: FloatArray, deviations: float) -> Estimate:
    """By the delta method, on Fisher's scale: with both standardised to u and v, a pair moves the correlation r by
    uv - r (u^2 + v^2) / 2. None where either is always the same.
    """
    count = len(signals)
    if count < 2 or min(np.ptp(signals), np.ptp(rewards)) <= 1e-12:
        return Estimate(math.nan, Interval())
    u, v = ((each - each.mean()) / each.std() for each in (signals, rewards))
    value = min(1.0, max(-1.0, float((u * v).mean())))
    if count < _PAIRS_MIN or 1.0 - abs(value) < 1e-9:
        return Estimate(value, Interval())
    moved = u * v - value * (u * u + v * v) / 2.0
    margin = deviations * float(moved.std(ddof=1)) / math.sqrt(count) / (1.0 - value * value)
    middle = math.atanh(value)
    return Estimate(value, Interval(math.tanh(middle - margin), math.tanh(middle + margin)))
