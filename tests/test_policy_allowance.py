"""The allowance: a day's or month's budget lasts to its end, whatever the traffic; calls pay in their period."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest
from builders import DAY_US, SECOND_US

from policy.allowance import Allowance, span
from policy.domain import FloatArray, Period

SLOTS = 96
SLOT_US = DAY_US // SLOTS
SINE = 1.0 - 0.8 * np.cos(2 * np.pi * np.arange(SLOTS) / SLOTS)
REQUESTS = 1000
CHEAP, DEAR = 0.05, 10.0


def at(*when: int) -> int:
    return int(datetime(*when, tzinfo=UTC).timestamp()) * SECOND_US  # type: ignore[misc, arg-type]


@pytest.mark.parametrize(
    ("period", "when", "start", "end"),
    [
        (Period.DAY, (2024, 2, 29, 23, 59, 59), (2024, 2, 29), (2024, 3, 1)),
        (Period.DAY, (2024, 12, 31), (2024, 12, 31), (2025, 1, 1)),
        (Period.MONTH, (2024, 2, 10), (2024, 2, 1), (2024, 3, 1)),
        (Period.MONTH, (2023, 2, 28, 23, 59, 59), (2023, 2, 1), (2023, 3, 1)),
        (Period.MONTH, (2000, 2, 29), (2000, 2, 1), (2000, 3, 1)),
        (Period.MONTH, (2100, 2, 28), (2100, 2, 1), (2100, 3, 1)),
        (Period.MONTH, (2025, 4, 30), (2025, 4, 1), (2025, 5, 1)),
        (Period.MONTH, (2025, 12, 31, 23, 59, 59), (2025, 12, 1), (2026, 1, 1)),
        (Period.MONTH, (2026, 1, 1), (2026, 1, 1), (2026, 2, 1)),
        (Period.MONTH, (1970, 1, 1), (1970, 1, 1), (1970, 2, 1)),
    ],
)
def test_periods_are_the_calendars_in_utc(
    period: Period, when: tuple[int, ...], start: tuple[int, ...], end: tuple[int, ...]
) -> None:
    assert span(period, at(*when)) == (at(*start), at(*end))


def play(shape: FloatArray, amount: float, period: Period, first: int, seed: int = 1) -> dict[int, FloatArray]:
    """What each request spends, by period: what it may, between the cheapest model's cost and the dearest's.

    `shape` is the traffic of every quarter of an hour from the time `first` on, in requests.
    """
    generator = np.random.default_rng(seed)
    allowance, spent = Allowance(period), dict[int, list[float]]()
    for slot, rate in enumerate(shape):
        for offset in np.sort(generator.uniform(0, SLOT_US, generator.poisson(rate))):
            now = first + slot * SLOT_US + int(offset)
            may = allowance.standing(amount, 1.0).per_request_usd if allowance.begun else 1.0
            cost = min(DEAR, max(CHEAP, may))
            allowance.commit(now, cost)
            allowance.settle(now, cost, cost)
            spent.setdefault(span(period, now)[0], []).append(cost)
    return {start: np.array(costs) for start, costs in sorted(spent.items())}


def days(*factors: float, shape: FloatArray = SINE) -> FloatArray:
    return np.concatenate([factor * REQUESTS / SLOTS * shape for factor in factors])


def played(traffic: FloatArray, first: int = 20_000 * DAY_US) -> list[FloatArray]:
    return list(play(traffic, REQUESTS, Period.DAY, first).values())


def eighths(costs: FloatArray) -> list[float]:
    """What a request spends in each eighth of the requests, relative to the mean."""
    return [float(part.mean() / costs.mean()) for part in np.array_split(costs, 8)]


@pytest.mark.parametrize("shape", [np.ones(SLOTS), SINE, np.roll(SINE, 48)], ids=["flat", "sine", "peak at 0:00"])
def test_a_day_spends_its_budget_evenly_from_the_second_on_and_the_first_no_more(shape: FloatArray) -> None:
    first, *others = played(days(1, 1, 1, shape=shape))
    assert 0.9 * REQUESTS < first.sum() < 1.01 * REQUESTS
    for costs in others:
        assert costs.sum() == pytest.approx(REQUESTS, rel=0.02)
        assert 0.65 < min(eighths(costs)) <= max(eighths(costs)) < 1.4


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_bursts_leave_no_day_over_its_budget(seed: int) -> None:
    bursts = np.random.default_rng(seed).pareto(1.2, size=4 * SLOTS) * REQUESTS / SLOTS / 5
    for costs in played(bursts):
        assert costs.sum() < 1.03 * REQUESTS


def test_growing_traffic_is_followed() -> None:
    for costs in played(days(1, 1.5, 2.25, 3.4, 5))[1:]:
        assert costs.sum() == pytest.approx(REQUESTS, rel=0.02)
        assert max(eighths(costs)) < 2.0


def test_a_tenfold_day_does_not_break_the_budget_and_the_next_is_even_again() -> None:
    _, _, shock, after = played(days(1, 1, 10, 10))
    assert [shock.sum(), after.sum()] == pytest.approx([REQUESTS, REQUESTS], rel=0.03)
    assert 0.8 < min(eighths(after)) <= max(eighths(after)) < 1.25


def test_a_weekend_lets_requests_spend_more_and_monday_is_even() -> None:
    found = played(days(1, 1, 1, 1, 1, 0.2, 0.2, 1, 1))
    assert min(found[5].mean(), found[6].mean()) > 3.0
    assert max(each.sum() for each in found) < 1.02 * REQUESTS
    assert 0.75 < min(eighths(found[7])) <= max(eighths(found[7])) < 1.3


def test_days_without_traffic_are_passed_over() -> None:
    *_, back, after = played(days(1, 1, 0, 0, 0, 1, 1))
    assert back.sum() == pytest.approx(REQUESTS, rel=0.03)
    assert after.sum() == pytest.approx(REQUESTS, rel=0.02)
    assert 0.7 < min(eighths(back)) <= max(eighths(back)) < 1.3


@pytest.mark.parametrize("hour", [6, 18, 23])
def test_a_first_day_that_begins_late_has_the_part_of_the_budget_that_is_left_of_it(hour: int) -> None:
    traffic = days(1, 1, shape=np.ones(SLOTS))[4 * hour :]
    first, second = played(traffic, 20_000 * DAY_US + hour * 3600 * SECOND_US)
    assert first.sum() == pytest.approx(REQUESTS * (24 - hour) / 24, rel=0.1)
    assert second.sum() == pytest.approx(REQUESTS, rel=0.02)


def test_months_of_every_length_spend_their_budget() -> None:
    """From December on, by the weekend two fifths of the traffic; 2024 is a leap year."""
    count = (datetime(2024, 5, 1) - datetime(2023, 12, 1)).days
    weekdays = [(4 + day) % 7 for day in range(count)]  # 1 December 2023 was a Friday.
    traffic = days(*[0.012 if day >= 5 else 0.03 for day in weekdays])
    first, *others = play(traffic, REQUESTS, Period.MONTH, at(2023, 12, 1)).items()
    assert first[1].sum() < 1.03 * REQUESTS
    assert [start for start, _ in others] == [at(2024, month, 1) for month in (1, 2, 3, 4)]
    for _, costs in others:
        assert costs.sum() == pytest.approx(REQUESTS, rel=0.03)
        assert 0.6 < min(eighths(costs)) <= max(eighths(costs)) < 1.5


NOON = 20_000 * DAY_US + DAY_US // 2


def begun() -> Allowance:
    """An allowance of a whole day."""
    allowance = Allowance(Period.DAY)
    allowance.commit(20_000 * DAY_US, 0.0)
    return allowance


def test_a_call_in_flight_is_spent_at_its_prediction_corrected_by_how_predictions_have_been() -> None:
    allowance = begun()
    allowance.commit(NOON, 2.0)
    assert allowance.standing(100.0, 1.0).spent_usd == 2.0
    assert allowance.standing(100.0, 1.5).spent_usd == 3.0
    allowance.settle(NOON, 2.0, 5.0)
    assert allowance.standing(100.0, 1.5).spent_usd == 5.0
    allowance.charge(1.0)
    assert allowance.standing(100.0, 1.5).spent_usd == 6.0


def test_what_is_settled_when_its_day_is_over_is_not_charged_to_the_new_one() -> None:
    allowance = begun()
    allowance.commit(NOON, 2.0)
    allowance.commit(NOON + DAY_US, 1.0)
    allowance.settle(NOON, 2.0, 50.0)
    assert allowance.standing(100.0, 1.0).spent_usd == 1.0


def test_another_amount_is_for_the_whole_period_and_what_was_spent_stays_spent() -> None:
    allowance = begun()
    allowance.commit(NOON, 60.0)
    coming = 1.0 / allowance.standing(61.0, 1.0).per_request_usd
    for amount, left in ((100.0, 40.0), (200.0, 140.0), (50.0, 0.0)):
        standing = allowance.standing(amount, 1.0)
        assert (standing.budget_usd, standing.spent_usd) == (amount, 60.0)
        assert standing.per_request_usd == pytest.approx(left / coming)


def test_with_nothing_left_a_request_may_cost_nothing() -> None:
    allowance = begun()
    allowance.charge(1e9)
    assert allowance.standing(1.0, 1.0).per_request_usd == 0.0


@pytest.mark.parametrize("period", list(Period))
def test_a_restored_allowance_goes_on_to_the_same_bits(period: Period) -> None:
    whole, restored = Allowance(period), Allowance(period)
    generator = np.random.default_rng(7)
    now = 20_000 * DAY_US
    for number in range(600):
        now += int(generator.exponential(DAY_US / 50))
        if number == 300:
            restored.restore(whole.state())
        for each in (whole, restored) if number >= 300 else (whole,):
            each.commit(now, 0.1 + number * 1e-4)
            each.settle(now - DAY_US // 40, 0.1, 0.11)
    assert restored.standing(5.0, 1.1) == whole.standing(5.0, 1.1)
