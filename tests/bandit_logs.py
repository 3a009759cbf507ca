"""Synthetic logs of a live policy, with a candidate whose true value is known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from policy.domain import FloatArray
from policy.evidence import Events, Metric, settled

MEANS = np.array([0.4, 0.6, 0.6, 0.8])
EVEN = np.array([0.4, 0.3, 0.2, 0.1])
SKEWED = np.array([0.6, 0.29, 0.1, 0.01])
GOOD = np.array([0.1, 0.2, 0.2, 0.5])
BAD = np.array([0.8, 0.1, 0.05, 0.05])
EQUAL = np.array([0.4, 0.2, 0.3, 0.1])  # As EVEN in value: the second and third model are as good.


@dataclass(frozen=True)
class Log:
    """Events of one metric, and for each the mean that it has under either policy, given its request."""

    events: Events
    value: FloatArray  # (events,)
    live_value: FloatArray  # (events,)


def log(
    seed: int, count: int, live: FloatArray, candidate: FloatArray, *, drift: float = 0.0, predictor: str = "good"
) -> Log:
    """Rewards of 0 or 1. Each request is easy or hard for all models and suits some; the policies react to it.

    `drift` is by how much all means have risen at the end. The predictor is good, wrong (says the opposite) or
    absent.
    """
    print(f"seed {seed}")
    generator = np.random.default_rng(seed)
    easy = generator.uniform(-0.15, 0.15, size=(count, 1))
    means = np.clip(MEANS + easy + drift * np.linspace(0.0, 1.0, count)[:, None], 0.0, 1.0)
    # On half of the requests both policies have the models in the order 1, 0, 3, 2.
    turned = (generator.uniform(size=count) < 0.5)[:, None]
    order = np.where(turned, [1, 0, 3, 2], [0, 1, 2, 3])
    propensities, probabilities = live[order], candidate[order]
    means = np.take_along_axis(means, order, axis=1)
    draws = generator.uniform(size=(count, 1))
    chosen = np.minimum((draws > propensities.cumsum(axis=1)).sum(axis=1), 3)
    rows = np.arange(count)
    rewards = (generator.uniform(size=count) < means[rows, chosen]).astype(np.float64)
    noisy = np.clip(means + generator.normal(size=means.shape) * 0.1, 0.0, 1.0)
    predictions = {"good": noisy, "wrong": 1.0 - noisy, "absent": np.zeros_like(noisy)}[predictor]
    (events,) = settled(
        (Metric.QUALITY,), propensities, probabilities[None], chosen, rewards[:, None], predictions[:, :, None]
    )
    return Log(events, (probabilities * means).sum(axis=1), (propensities * means).sum(axis=1))


def part(events: Events, low: int, high: int) -> Events:
    """The events from `low` to before `high`."""
    fields = {name: getattr(events, name)[low:high] for name in Events.__slots__ if name != "metrics"}
    return Events(metrics=events.metrics, **fields)


def single(events: Events) -> list[Events]:
    """Each event by itself."""
    return [part(events, number, number + 1) for number in range(len(events))]
