"""Reads of the database for requests: off the event loop, and each waited for so long and no longer."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from sqlalchemy.exc import SQLAlchemyError

from server.errors import StorageUnavailableError

T = TypeVar("T")

_THREADS = 4


class BoundedReads:
    """Threads of its own: a database that hangs must not take those that others need.

    As long as a read hangs that nobody waits for any more, the next ones are refused at once.
    """

    def __init__(self, wait_seconds: float = math.inf) -> None:
        self.wait_seconds = wait_seconds
        self._hanging = 0
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="log-reader")

    async def __call__(self, read: Callable[[], T], wait_seconds: float | None = None) -> T:
        """What the read gives, or raises.

        Raises StorageUnavailableError if the database fails, or does not answer in `wait_seconds`, if given, or
        else in what all wait.
        """
        if self._hanging:
            raise StorageUnavailableError
        seconds = self.wait_seconds if wait_seconds is None else max(0.0, wait_seconds)
        reading = asyncio.get_running_loop().run_in_executor(self._threads, read)
        try:
            timeout = seconds if math.isfinite(seconds) else None
            return await asyncio.wait_for(asyncio.shield(reading), timeout)
        except (SQLAlchemyError, OSError) as error:  # A TimeoutError is an OSError.
            if not reading.done():
                self._hanging += 1
                reading.add_done_callback(self._returned)
            raise StorageUnavailableError from error

    def _returned(self, reading: asyncio.Future[Any]) -> None:
        self._hanging -= 1
        if not reading.cancelled():
            reading.exception()  # Which nobody waits for.

    def close(self) -> None:
        """Takes no more reads, and waits for none."""
        self._threads.shutdown(wait=False, cancel_futures=True)
