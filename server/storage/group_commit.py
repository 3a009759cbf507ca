"""Group commit: requests that arrive while a transaction runs share the next one."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError

from server.errors import QueueFullError, StorageUnavailableError
from server.storage.tail import LogTail
from server.storage.writes import Catalogue, Write, write_batch

logger = logging.getLogger(__name__)

_BATCH_MAX = 512
_GATHER_SECONDS = 0.01

Pending = tuple[Write, "asyncio.Future[Any]"]


class GroupCommit:
    """The one writer of the log. `submit` returns once the write is on disk.

    At most `queue_max` writes wait; one more is refused with QueueFullError. `on_commit` is called
    in the event loop after every batch, and `on_batch` hears how many writes it had and how many seconds it took.
    """

    def __init__(
        self,
        engine: Engine,
        catalogue: Catalogue,
        clock_us: Callable[[], int],
        on_commit: Callable[[], None],
        queue_max: int,
        tail: LogTail,
        on_batch: Callable[[int, float], object] = lambda _size, _seconds: None,
    ) -> None:
        self._engine = engine
        self._catalogue = catalogue
        self._clock_us = clock_us
        self._on_commit = on_commit
        self._on_batch = on_batch
        self._queue_max = queue_max
        self._tail = tail
        self._pending: deque[Pending] = deque()
        self._wake = asyncio.Event()
        self._closing = False
        self._not_stored = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="log-writer")

    @property
    def waiting(self) -> int:
        """How many writes wait for the next batch."""
        return len(self._pending)

    async def submit(self, write: Write) -> Any:
        """Writes and commits; gives the write's result or raises its refusal.

        Raises QueueFullError, and StorageUnavailableError if nothing could be stored.
        """
        if self._closing:
            raise StorageUnavailableError
        if len(self._pending) >= self._queue_max:
            raise QueueFullError
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._pending.append((write, done))
        self._wake.set()
        return await done

    async def run(self) -> None:
        """Commits batches until `close`; what is pending then is still written."""
        loop = asyncio.get_running_loop()
        together = 0
        while self._pending or not self._closing:
            if not self._pending:
                self._wake.clear()
                await self._wake.wait()
                continue
            if together > 1 and not self._closing:
                # Callers come in numbers: a commit costs about as much for fifty writes as for one.
                await asyncio.sleep(_GATHER_SECONDS)
            together = len(self._pending)
            batch = [self._pending.popleft() for _ in range(min(_BATCH_MAX, len(self._pending)))]
            began = time.perf_counter()
            try:
                writes = [write for write, _ in batch]
                results = await loop.run_in_executor(self._thread, self._commit_all, writes)
                self._say_stored()
            except (SQLAlchemyError, OSError):
                self._say_not_stored(len(batch))
                results = [StorageUnavailableError() for _ in batch]
            except Exception as error:  # A fault of ours must not end the only writer.
                logger.exception("a batch of %d writes was not stored", len(batch))
                results = [error for _ in batch]
            self._on_batch(len(batch), time.perf_counter() - began)
            _settle(batch, results)
            self._on_commit()
        self._thread.shutdown()

    def _say_not_stored(self, count: int) -> None:
        """Once and not for each batch: a log of every failure would fill what is left of a full disk."""
        if not self._not_stored:
            logger.exception("writes are not stored, and refused until they can be")
        self._not_stored += count

    def _say_stored(self) -> None:
        if self._not_stored:
            logger.warning("writes are stored again; %d were refused meanwhile", self._not_stored)
        self._not_stored = 0

    def close(self) -> None:
        """Lets `run` end once everything pending is written."""
        self._closing = True
        self._wake.set()

    def _commit_all(self, writes: list[Write]) -> list[Any]:
        """One transaction; where what is written is refused, one for each write, so that only the guilty fail."""
        try:
            return self._commit(writes)
        except (IntegrityError, DataError):
            if len(writes) == 1:
                raise
            logger.exception("a batch of %d writes was refused: each is tried alone", len(writes))
        results: list[Any] = []
        for write in writes:
            try:
                results += self._commit([write])
            except (SQLAlchemyError, OSError):
                logger.exception("a write was not stored")
                results.append(StorageUnavailableError())
        return results

    def _commit(self, writes: list[Write]) -> list[Any]:
        with self._engine.begin() as connection:
            written = write_batch(connection, writes, self._clock_us(), self._catalogue)
        if written.page is not None:
            self._tail.put(written.page)
        return written.results


def _settle(batch: list[Pending], results: list[Any]) -> None:
    for (_, done), result in zip(batch, results, strict=True):
        if done.done():
            continue  # The caller has gone; what it asked for is stored all the same.
        if isinstance(result, Exception):
            done.set_exception(result)
        else:
            done.set_result(result)
