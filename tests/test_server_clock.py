"""The log's clock: never back, never still, and not ahead for a moment."""

from __future__ import annotations

import logging

import pytest
from clocks import MINUTE_US, YEARS_US

from server.clock import LogClock

HOUR_US = 60 * MINUTE_US
START_US = 1_700_000_000_000_000


class Hands:
    """Two clocks that stand until the test moves them."""

    def __init__(self) -> None:
        self.wall_us, self.monotonic_us = START_US, 0
        self.clock = LogClock(lambda: self.wall_us * 1000, lambda: self.monotonic_us * 1000)

    def run(self, us: int, steps: int = 10) -> int:
        """Lets time pass, and reads the clock meanwhile; gives how much it has moved."""
        before_us = self.clock()
        for _ in range(steps):
            self.wall_us += us // steps
            self.monotonic_us += us // steps
            self.clock()
        return self.clock() - before_us


def test_it_is_the_clock_of_the_machine_while_that_is_in_order() -> None:
    hands = Hands()
    assert hands.run(HOUR_US) == HOUR_US
    hands.wall_us += 30_000_000
    assert hands.clock() == hands.wall_us, "a small step ahead is taken at once"


def test_a_jump_ahead_that_is_taken_back_leaves_no_trace(caplog: pytest.LogCaptureFixture) -> None:
    hands = Hands()
    hands.wall_us += YEARS_US
    assert hands.run(4 * MINUTE_US) == 4 * MINUTE_US
    hands.wall_us -= YEARS_US
    hands.run(MINUTE_US)
    assert hands.clock() == hands.wall_us
    assert [each.levelno for each in caplog.records] == [logging.WARNING]
    hands.wall_us += YEARS_US
    assert hands.run(4 * MINUTE_US) == 4 * MINUTE_US, "a second jump is doubted as long as the first"


def test_a_jump_ahead_that_lasts_is_followed(caplog: pytest.LogCaptureFixture) -> None:
    hands = Hands()
    hands.wall_us += YEARS_US
    hands.run(5 * MINUTE_US)
    assert hands.clock() == hands.wall_us
    assert "follows it" in caplog.text


@pytest.mark.parametrize("back_us", [2 * MINUTE_US, HOUR_US, YEARS_US])
def test_set_back_it_goes_on_a_little_slower_and_never_back(
    back_us: int, caplog: pytest.LogCaptureFixture
) -> None:
    hands = Hands()
    before_us = hands.clock()
    hands.wall_us -= back_us
    assert hands.clock() == before_us
    assert hands.run(10 * MINUTE_US) == 9 * MINUTE_US
    assert caplog.text.count("somewhat slower") == 1
    hands.run(9 * back_us)
    assert (hands.clock() == hands.wall_us) == (9 * back_us + 10 * MINUTE_US >= 10 * back_us)


def test_it_goes_on_however_often_it_is_read() -> None:
    hands = Hands()
    hands.wall_us -= HOUR_US
    assert hands.run(1_000_000, steps=1_000_000) == 900_000


def test_it_goes_on_from_where_the_log_is() -> None:
    hands = Hands()
    hands.clock.reached(START_US - HOUR_US)
    assert hands.clock() == START_US
    hands.clock.reached(START_US + HOUR_US)
    assert hands.clock() == START_US + HOUR_US
    assert hands.run(10 * MINUTE_US) == 9 * MINUTE_US
