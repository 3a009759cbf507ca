"""The clocks and the source of ids, so that everything else can be handed others."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable

logger = logging.getLogger(__name__)

_SECOND_NS = 1_000_000_000
_STEP_NS = 60 * _SECOND_NS
_DOUBT_NS = 300 * _SECOND_NS


def now_us() -> int:
    """Microseconds since 1970, as the machine has them: they may jump."""
    return time.time_ns() // 1000


def new_decision_id(time_us: int) -> str:
    """32 hexadecimal digits: the time in milliseconds, so that ids sort and index well, and 80 random bits."""
    return f"{time_us // 1000:012x}{os.urandom(10).hex()}"


class LogClock:
    """The log's time in microseconds since 1970: never goes back, never stands still, and makes no sudden jump.

    It is the machine's clock while that is in order. A step ahead by more than a minute is believed once it has
    lasted for five minutes; until then the time goes on from where it was. Where the machine's clock is behind,
    the time goes on at nine tenths of its pace, until it is caught up with: so windows, back-offs, sessions and
    days of budgets end after the time they should, within a ninth. `reached` takes over what the log has come to,
    by other servers or before a restart. Safe to use from any thread.
    """

    def __init__(
        self, wall_ns: Callable[[], int] = time.time_ns, monotonic_ns: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._wall_ns, self._monotonic_ns = wall_ns, monotonic_ns
        self._time_ns, self._read_ns = wall_ns(), monotonic_ns()
        self._doubted_ns: int | None = None
        self._behind = False
        self._lock = threading.Lock()

    def __call__(self) -> int:
        """The time by now."""
        with self._lock:
            return self._now_ns() // 1000

    def reached(self, time_us: int) -> None:
        """The log has come to this time: the clock goes on from there."""
        with self._lock:
            self._time_ns = max(self._now_ns(), time_us * 1000)

    def require_believable(self, others_us: int) -> None:
        """Raises OSError if the machine's clock is ahead of this time, which others know, by over five minutes."""
        ahead_ns = self._wall_ns() - others_us * 1000
        if ahead_ns > _DOUBT_NS:
            raise OSError(
                f"this machine's clock is ahead of the database's, and of its log, by {ahead_ns // _SECOND_NS} s: "
                "set it right, then start again. The log's time would follow it for good, for every server, and "
                "all open windows and sessions would end"
            )

    def _now_ns(self) -> int:
        read_ns, wall_ns = self._monotonic_ns(), self._wall_ns()
        passed_ns, self._read_ns = read_ns - self._read_ns, read_ns
        ahead_ns = wall_ns - self._time_ns - passed_ns
        if ahead_ns > _STEP_NS and self._is_doubtful(read_ns, ahead_ns):
            self._time_ns += passed_ns
            return self._time_ns
        self._doubted_ns = None
        self._say_behind(-ahead_ns)
        self._time_ns = max(wall_ns, self._time_ns + passed_ns * 9 // 10)
        return self._time_ns

    def _is_doubtful(self, read_ns: int, ahead_ns: int) -> bool:
        seconds = ahead_ns / _SECOND_NS
        if self._doubted_ns is None:
            self._doubted_ns = read_ns
            logger.warning(
                "the clock is suddenly ahead by %.0f s: that is believed if it lasts for %d s",
                seconds,
                _DOUBT_NS // _SECOND_NS,
            )
        if read_ns - self._doubted_ns < _DOUBT_NS:
            return True
        logger.warning("the clock stays ahead by %.0f s: the log's time follows it", seconds)
        return False

    def _say_behind(self, behind_ns: int) -> None:
        behind = behind_ns > _STEP_NS
        if behind and not self._behind:
            logger.warning(
                "the clock is behind the log's time by %.0f s: that goes on, somewhat slower, from where it was",
                behind_ns / _SECOND_NS,
            )
        self._behind = behind
