"""How well a signal agrees with rewards."""

from __future__ import annotations

import math

import numpy as np
import pytest

from policy.agreement import Pairs


def agreement(signal: list[float], reward: list[float]) -> Pairs:
    pairs = Pairs()
    for one, other in zip(signal, reward, strict=True):
        pairs.add(one, other)
    return pairs


def test_it_is_what_the_textbook_says() -> None:
    generator = np.random.default_rng(5)
    reward = generator.random(300)
    signal = 0.5 * reward + 0.4 * generator.random(300)
    found = agreement(signal.tolist(), reward.tolist()).agreement()

    assert found.pairs == 300
    assert found.difference.value == pytest.approx((signal - reward).mean())
    error = (signal - reward).std(ddof=1) / math.sqrt(300)
    assert found.difference.interval.width == pytest.approx(2 * 1.959964 * error)
    assert found.correlation.value == pytest.approx(np.corrcoef(signal, reward)[0, 1])
    assert found.correlation.interval.low < found.correlation.value < found.correlation.interval.high


def test_intervals_hold_as_often_as_they_say_also_for_thumbs() -> None:
    """Of 1,000 samples 95 % hold; fewer than 925 or more than 975 do by chance once in 3,000 runs."""
    generator = np.random.default_rng(9)
    truth, held = 0.5, 0
    for _ in range(1000):
        reward = (generator.random(200) < 0.6).astype(float)
        # A copy in half of the cases, and drawn alike in the others: the correlation is a half.
        other = (generator.random(200) < 0.6).astype(float)
        signal = np.where(generator.random(200) < truth, reward, other)
        interval = agreement(signal.tolist(), reward.tolist()).agreement().correlation.interval
        held += interval.low <= truth <= interval.high
    assert 925 <= held <= 975


def test_where_nothing_can_be_said_nothing_is() -> None:
    assert math.isnan(Pairs().agreement().difference.value)
    always = agreement([1.0] * 50, [0.1 * (each % 10) for each in range(50)]).agreement()
    assert math.isnan(always.correlation.value)
    few = agreement([0.0, 1.0, 1.0], [0.0, 1.0, 0.0]).agreement()
    assert math.isinf(few.correlation.interval.high)
    assert math.isinf(few.difference.interval.high)
    same = agreement([0.0, 1.0] * 20, [0.0, 1.0] * 20).agreement()
    assert same.correlation.value == pytest.approx(1.0)
