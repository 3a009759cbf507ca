"""Traffic: the requests still to come are forecast from nothing, from yesterday, and when today is different."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from builders import DAY_US, SECOND_US
from hypothesis import given
from hypothesis import strategies as st

from policy.domain import FloatArray
from policy.traffic import Traffic

SLOT_US = 15 * 60 * SECOND_US
SLOTS = 96
FLAT = np.full(SLOTS, 20.0)
SINE = 20.0 * (1.0 - 0.8 * np.cos(2 * np.pi * np.arange(SLOTS) / SLOTS))


def arrivals(counts: Sequence[float] | FloatArray, first_day: int = 20_000) -> list[int]:
    """Times of so many evenly spaced arrivals in each slot."""
    times = []
    for slot, count in enumerate(counts):
        start = first_day * DAY_US + slot * SLOT_US
        times += [start + int((each + 0.5) * SLOT_US / round(count)) for each in range(round(count))]
    return times


def fed(*days: FloatArray) -> Traffic:
    traffic = Traffic(SLOTS, SLOT_US)
    for time_us in arrivals(np.concatenate(days)):
        traffic.arrive(time_us)
    return traffic


def day_end(day: int) -> int:
    return (20_000 + day) * DAY_US


def test_before_any_arrival_nothing_is_expected() -> None:
    assert Traffic(SLOTS, SLOT_US).to_come(day_end(1)) == 0.0


@pytest.mark.parametrize("hour", [1, 6, 12, 23])
def test_on_the_first_day_the_mean_rate_so_far_goes_on(hour: int) -> None:
    traffic = fed(FLAT[: 4 * hour])
    assert traffic.to_come(day_end(1)) == pytest.approx(80.0 * (24 - hour), rel=0.05)


@pytest.mark.parametrize("minutes_to_midnight", [10, 1439])
def test_a_single_request_is_taken_for_some_traffic_but_not_for_a_flood(minutes_to_midnight: int) -> None:
    traffic = Traffic(SLOTS, SLOT_US)
    traffic.arrive(day_end(1) - minutes_to_midnight * 60 * SECOND_US)
    expected = traffic.to_come(day_end(1))
    assert minutes_to_midnight < expected < 20 * minutes_to_midnight


def test_a_first_burst_is_forgiven_within_the_hour() -> None:
    traffic = Traffic(SLOTS, SLOT_US)
    for number in range(100):
        traffic.arrive(day_end(0) + number * 10_000)
    flooded = traffic.to_come(day_end(1))
    traffic.arrive(day_end(0) + 3600 * SECOND_US)
    assert traffic.to_come(day_end(1)) < 0.01 * flooded
    assert traffic.to_come(day_end(1)) == pytest.approx(23 * 101, rel=0.05)


@pytest.mark.parametrize("hour", [0.5, 6, 12, 18, 23])
def test_from_the_second_day_on_the_shape_of_the_day_is_known(hour: float) -> None:
    slots = int(4 * hour)
    traffic = fed(SINE, SINE[:slots])
    assert traffic.to_come(day_end(2)) == pytest.approx(SINE[slots:].sum(), rel=0.1, abs=10)


@pytest.mark.parametrize(
    ("factor", "morning", "noon", "day_after"),
    [(0.1, 3.5, 1.7, 1.4), (10.0, 0.8, 0.9, 1.0)],
    ids=["less", "more"],
)
def test_a_day_unlike_yesterday_is_recognised_by_its_morning_and_expected_the_day_after(
    factor: float, morning: float, noon: float, day_after: float
) -> None:
    """With a tenth or tenfold the traffic: what is expected at three, at noon and the day after at six, over
    what comes. Where fewer come more are expected for longer, which is the safe side.
    """
    today = factor * FLAT
    for expected, days, slots in (
        (morning, [FLAT] * 2, 12),
        (noon, [FLAT] * 2, 48),
        (day_after, [FLAT, today], 24),
    ):
        found = fed(*days, today[:slots]).to_come(day_end(3)) / today[slots:].sum()
        assert found == pytest.approx(expected, rel=0.15)


def test_after_a_quiet_weekend_monday_is_expected_as_busy_as_the_week_was() -> None:
    quiet = 0.1 * SINE
    traffic = fed(*[SINE] * 5, quiet, quiet, SINE[:1])
    assert traffic.to_come(day_end(8)) > 0.7 * SINE.sum()


def test_a_quiet_time_of_days_does_not_change_what_is_expected_after_it() -> None:
    traffic = fed(SINE, SINE, *[np.zeros(SLOTS)] * 3, np.concatenate([np.zeros(40), SINE[40:44]]))
    assert traffic.to_come(day_end(6)) == pytest.approx(SINE[44:].sum(), rel=0.1)


def test_a_day_without_a_request_does_not_wipe_out_the_days_before() -> None:
    traffic = fed(FLAT, np.zeros(SLOTS), FLAT[:8])
    assert traffic.to_come(day_end(3)) == pytest.approx(FLAT[8:].sum(), rel=0.2)


def test_one_request_every_other_day_is_not_taken_for_a_flood() -> None:
    traffic = Traffic(SLOTS, SLOT_US)
    for number in range(20):
        traffic.arrive(day_end(2 * number) + 10)
    assert traffic.to_come(day_end(39)) < 5.0


def test_a_batch_that_comes_at_the_same_time_every_day_is_known_to_be_the_whole_day() -> None:
    batch = np.zeros(SLOTS)
    batch[36] = 1000.0
    before, after = (fed(batch, batch, batch[:slots], np.array([1.0])) for slots in (34, 40))
    assert before.to_come(day_end(3)) == pytest.approx(1000.0, rel=0.2)
    assert after.to_come(day_end(3)) < 200.0


def test_weeks_have_their_own_shape_where_the_cycle_is_a_week() -> None:
    week = np.repeat([100.0, 100.0, 100.0, 100.0, 100.0, 10.0, 10.0], 24) / 24
    traffic = Traffic(168, 3600 * SECOND_US)
    start = 20_000 - 20_000 % 7  # Cycles of a week begin on Thursdays, as 1970 did.
    for hour, count in enumerate(np.concatenate([week, week[:120]])):
        for each in range(round(24 * count)):
            traffic.arrive(start * DAY_US + hour * 3600 * SECOND_US + int(each * 3600 * SECOND_US / (24 * count)))
    coming = traffic.to_come((start + 21) * DAY_US)
    assert coming == pytest.approx(24 * (week[120:].sum() + week.sum()), rel=0.1)


def test_a_clock_that_steps_back_loses_no_arrival() -> None:
    traffic = fed(FLAT[:8])
    before = traffic.to_come(day_end(1))
    for _ in range(160):
        traffic.arrive(day_end(0))
    assert traffic.to_come(day_end(1)) == pytest.approx(2 * before, rel=0.02)


gaps = st.one_of(st.integers(0, 10**6), st.integers(0, 40 * DAY_US))


@given(st.lists(gaps, min_size=1, max_size=60), st.integers(1, 59))
def test_forecasts_are_finite_and_a_restored_one_goes_on_to_the_same_bits(waits: list[int], cut: int) -> None:
    whole, restored, now = Traffic(SLOTS, SLOT_US), Traffic(SLOTS, SLOT_US), day_end(0)
    for number, wait in enumerate(waits):
        now += wait
        if number == cut:
            restored.restore(whole.state())
        whole.arrive(now)
        end = (now // DAY_US + 1) * DAY_US
        assert 0.0 <= whole.to_come(end) < math.inf
        if number >= cut:
            restored.arrive(now)
            assert restored.to_come(end) == whole.to_come(end)
