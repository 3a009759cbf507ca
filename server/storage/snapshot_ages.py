"""Which saved states are kept: the newest, and older ones ever further apart, to go back to."""

from __future__ import annotations

import math
from collections.abc import Sequence

NEWEST_KEPT = 3
_FIRST_US = 15_000_000
_FACTOR = 4.0
_OLDEST_US = 30 * 86_400 * 1_000_000


def kept(saved: Sequence[tuple[int, int]], now_us: int) -> set[int]:
    """Of states by position and time in microseconds, oldest first, the positions of those to keep.

    The three newest, and of each age up to 15 seconds, to a minute, to four minutes, and so on to 30 days, the
    oldest: so thirteen at most.
    """
    found = {seq for seq, _ in saved[-NEWEST_KEPT:]}
    ages: dict[int, int] = {}
    for seq, time_us in saved:
        age_us = max(now_us - time_us, _FIRST_US // 2)
        if age_us <= _OLDEST_US:
            ages.setdefault(math.floor(math.log(age_us / _FIRST_US, _FACTOR)), seq)
    return found | set(ages.values())
