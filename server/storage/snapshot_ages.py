"""Which saved states are kept: the newest, and older ones ever further apart, to go back to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

NEWEST_KEPT = 3
_FIRST_US = 15_000_000
_FACTOR = 4.0
_DAY_US = 86_400 * 1_000_000
_OLDEST_US = 30 * _DAY_US
_STEP_MAX_US = 15 * _DAY_US


def kept(saved: Sequence[tuple[int, int]], now_us: int) -> set[int]:
    """Of states by position and time in microseconds, oldest first, the positions of those to keep.

    The three newest, and of each age up to 15 seconds, to a minute, to four minutes, and so on to 30 days, the
    oldest: so thirteen at most. From one state to the next counts as 15 days at most, so that one of the days
    before is there also after a clock has jumped ahead by years.
    """
    found = {seq for seq, _ in saved[-NEWEST_KEPT:]}
    times_us = [time_us for _, time_us in saved] + [now_us]
    steps_us = [min(after - before, _STEP_MAX_US) for before, after in pairwise(times_us)]
    ages: dict[int, int] = {}
    for index, (seq, _) in enumerate(saved):
        age_us = max(sum(steps_us[index:]), _FIRST_US // 2)
        if age_us <= _OLDEST_US:
            ages.setdefault(math.floor(math.log(age_us / _FIRST_US, _FACTOR)), seq)
    return found | set(ages.values())
