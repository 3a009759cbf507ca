"""Reads of the database for requests: off the event loop, and each waited for so long and no longer."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from server.errors import StorageUnavailableError

T = TypeVar("T")

logger = logging.getLogger(__name__)

_THREADS = 4
_SAY_SECONDS = 30.0
"""Refusals come by the thousand while a database is away: the log has a line of them at most so often."""


class BoundedReads:
    """Threads of its own: a database that hangs must not take those that others need.

    As long as a read hangs that nobody waits for any more, the next ones are refused at once. It hangs once it has
    taken as long as all wait, and not when someone with less time has given it up.
    """

    def __init__(self, wait_seconds: float = math.inf, clock: Callable[[], float] = time.monotonic) -> None:
        self.wait_seconds = wait_seconds
        self._clock = clock
        self._said = -math.inf
        self._refused = 0
        self._hanging = 0
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="log-reader")

    async def __call__(self, read: Callable[[], T], wait_seconds: float | None = None) -> T:
        """What the read gives, or raises.

        Raises StorageUnavailableError if the database fails, or does not answer in `wait_seconds`, if given, or
        else in what all wait.
        """
        if self._hanging:
            self._say("an earlier one still hangs")
            raise StorageUnavailableError
        seconds = self.wait_seconds if wait_seconds is None else max(0.0, wait_seconds)
        loop = asyncio.get_running_loop()
        usual = loop.time() + self.wait_seconds
        reading = loop.run_in_executor(self._threads, read)
        reading.add_done_callback(_heard)
        try:
            timeout = seconds if math.isfinite(seconds) else None
            return await asyncio.wait_for(asyncio.shield(reading), timeout)
        except (SQLAlchemyError, OSError) as error:  # A TimeoutError is an OSError.
            if not reading.done():
                if seconds >= self.wait_seconds:
                    self._hangs(reading)
                elif math.isfinite(usual):
                    loop.call_at(usual, self._hangs, reading)
                self._say(f"no answer within {seconds:g} s")
            else:
                self._say(_cause(error))
            raise StorageUnavailableError from error

    def _say(self, why: str) -> None:
        """Counts a refusal, and says so in the log if that has not been said just now."""
        self._refused += 1
        now = self._clock()
        if now - self._said >= _SAY_SECONDS:
            logger.warning(
                "reads of the database are refused, %d since the last such line: %s", self._refused, why
            )
            self._said, self._refused = now, 0

    def _hangs(self, reading: asyncio.Future[Any]) -> None:
        if not reading.done():
            self._hanging += 1
            reading.add_done_callback(self._returned)

    def _returned(self, _reading: asyncio.Future[Any]) -> None:
        self._hanging -= 1

    def close(self) -> None:
        """Takes no more reads, and waits for none."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _heard(reading: asyncio.Future[Any]) -> None:
    """Takes note of how a read failed, whose caller may have gone."""
    if not reading.cancelled():
        reading.exception()


def _cause(error: Exception) -> str:
    """What the driver says, without the statement and its values."""
    said = str(error.orig if isinstance(error, DBAPIError) else "").strip()
    return f"{type(error).__name__} {said.splitlines()[0] if said else ''}".strip()
