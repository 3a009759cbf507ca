"""Which of the older snapshots are kept."""

from __future__ import annotations

import pytest
from servers import DAY_US

from server.storage.snapshot_ages import kept


@pytest.mark.parametrize("count", [1, 3, 20, 400])
def test_older_snapshots_are_kept_ever_further_apart(count: int) -> None:
    """Saved every five seconds, thinned out each time."""
    saved: list[tuple[int, int]] = []
    for number in range(count):
        saved.append((number, number * 5_000_000))
        left = kept(saved, number * 5_000_000)
        saved = [each for each in saved if each[0] in left]
    ages = [(count - 1 - seq) * 5 for seq, _ in saved]
    assert ages[-min(3, count) :] == [10, 5, 0][-min(3, count) :]
    assert len(ages) <= 13
    if count == 400:
        assert max(ages) > 400
    assert kept([(1, 0)], 40 * DAY_US) == {1}
    daily = [(day, day * DAY_US) for day in range(41)]
    assert 8 not in kept(daily, 40 * DAY_US)


def test_a_clock_that_jumps_by_years_leaves_the_snapshots_before_it() -> None:
    saved = [(seq, 4**seq * 15_000_000) for seq in range(1, 6)]
    years_us = 10 * 365 * DAY_US
    after = [(seq, years_us + seq * 5_000_000) for seq in (10, 11, 12)]
    left = kept(saved + after, years_us + 60_000_000)
    assert left & {1, 2, 3, 4, 5}, "one can go back to what was known before the jump"


def test_saved_a_hundred_times_a_second_there_is_still_one_of_seconds_ago() -> None:
    saved: list[tuple[int, int]] = []
    for number in range(5000):
        saved.append((number, number * 10_000))
        left = kept(saved, number * 10_000)
        saved = [each for each in saved if each[0] in left]
    assert any(1_000_000 < 49_990_000 - time_us < 15_000_000 for _, time_us in saved)
