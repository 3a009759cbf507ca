"""A machine whose clock a test sets: time passes as always, and more if the test says so."""

from __future__ import annotations

import time

from server.clock import LogClock

MINUTE_US = 60_000_000
DAY_US = 1440 * MINUTE_US
YEARS_US = 3652 * DAY_US
"""Ten of them."""


class Machine:
    """Its two clocks, in nanoseconds: the one of the day, which can be set wrong, and the one that only runs."""

    def __init__(self) -> None:
        self._passed_ns, self._wrong_ns = 0, 0

    def wall_ns(self) -> int:
        return time.time_ns() + self._passed_ns + self._wrong_ns

    def monotonic_ns(self) -> int:
        return time.monotonic_ns() + self._passed_ns

    def log_clock(self) -> LogClock:
        """The clock of a server that starts on it."""
        return LogClock(self.wall_ns, self.monotonic_ns)

    def pass_us(self, us: int) -> None:
        """Lets so much time pass at once."""
        self._passed_ns += us * 1000

    def jump_us(self, us: int) -> None:
        """Sets the clock of the day ahead, or back, by so much."""
        self._wrong_ns += us * 1000
