"""Group commit: requests that arrive while a transaction runs share the next one."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import Engine
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, SQLAlchemyError

from policy.log import DecisionRecord
from server.errors import QueueFullError, StorageUnavailableError
from server.storage.recent import RecentDecisions
from server.storage.tail import LogTail
from server.storage.writes import Catalogue, Transact, Write, write_batch

logger = logging.getLogger(__name__)

_BATCH_MAX = 512
_GATHER_SECONDS = 0.001
_GATHER_SECONDS_MAX = 0.012
_FEW, _SOME, _SOME_WORTH = 6, 12, 2
_USUAL_OF_BATCHES = 30.0
_MAKE_SECONDS_MAX = 0.025
_SLOW_SECONDS = 0.05
# An event loop that was held up this long hears late what the writer has done, which is then not storage's fault.
_LATE_SECONDS = 0.05
_SECOND_LOOK_SECONDS = 0.25


@dataclass(slots=True, eq=False)
class _Pending:
    """A write that is waited for, or what makes it. Once `begun` nobody can take it back; once `dropped` it never
    begins.
    """

    write: Write | Callable[[], Write]
    done: asyncio.Future[Any]
    asked_at: float
    bounded: bool
    on_lost: Callable[[], object]
    begun: bool = False
    dropped: bool = False


class GroupCommit:
    """The one writer of the log. `submit` returns once the write is on disk.

    At most `queue_max` writes wait; one more is refused with QueueFullError, unless it is to wait as long as it
    takes, as the server's own few do. A write is waited for `wait_seconds` at most. Storage is away when a write
    fails, or none is finished for that long: then one write at a time finds out whether it is back, and all others
    are refused at once. Each of `tails` is given what a batch has written; `on_commit` is called in the event loop
    after it, and `on_batch` hears how many writes it had and how many seconds it took. `on_time` hears from the
    writer's thread to what time the log has come.
    """

    def __init__(
        self,
        engine: Engine,
        catalogue: Catalogue,
        clock_us: Callable[[], int],
        on_commit: Callable[[], None],
        queue_max: int,
        tails: Sequence[LogTail],
        wait_seconds: float = math.inf,
        on_batch: Callable[[int, float], object] = lambda _size, _seconds: None,
        on_time: Callable[[int], object] = lambda _time_us: None,
    ) -> None:
        self._engine = engine
        self._catalogue = catalogue
        self._clock_us = clock_us
        self._on_commit = on_commit
        self._on_batch = on_batch
        self._on_time = on_time
        self._queue_max = queue_max
        self._tails = tails
        self._recent = RecentDecisions()
        self.wait_seconds = wait_seconds
        self._pending: OrderedDict[_Pending, None] = OrderedDict()
        self._wake = asyncio.Event()
        self._closing = False
        self._committing = False
        self._began = 0.0
        self._stored_at = -math.inf
        self._away = False
        self._not_stored = 0
        self._usual = 0.0
        self._begins = threading.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="log-writer")

    @property
    def waiting(self) -> int:
        """How many writes wait for the next batch."""
        return len(self._pending)

    @property
    def is_away(self) -> bool:
        """Whether storage is away, as far as is known."""
        return self._away

    @property
    def is_slow(self) -> bool:
        """Whether a transaction takes so long that what waits may never be stored, or storage is away."""
        return self._away or (self._committing and time.perf_counter() - self._began > _SLOW_SECONDS)

    async def submit(
        self,
        write: Write | Callable[[], Write],
        wait_seconds: float | None = None,
        on_lost: Callable[[], object] = lambda: None,
    ) -> Any:
        """Writes and commits; gives the write's result or raises its refusal.

        A function is called in the event loop when the transaction is about to begin, one after another with those
        of all who share it: the same code for many in a row is done twice as fast as now and then for one, between
        whatever else a server does. What it raises is its caller's.

        Waits `wait_seconds`, if given, instead of what all wait; infinity is as long as it takes. A write whose
        caller is cancelled is not stored if its transaction has not begun. `on_lost` is called in the event loop
        if it is not stored and there is no caller any more to hear so.
        Raises QueueFullError, and StorageUnavailableError if nothing could be stored in that time, or if that is
        not known, which its message says.
        """
        seconds = self.wait_seconds if wait_seconds is None else wait_seconds
        bounded = math.isfinite(seconds)
        if self._closing:
            raise StorageUnavailableError
        if bounded and self._away and (self._committing or self._pending):
            self._not_stored += 1
            raise StorageUnavailableError
        if bounded and len(self._pending) >= self._queue_max:
            raise QueueFullError
        loop = asyncio.get_running_loop()
        pending = _Pending(write, loop.create_future(), loop.time(), bounded, on_lost)
        self._pending[pending] = None
        self._wake.set()
        if not bounded:
            return await self._outcome(pending)
        due = pending.asked_at + max(0.0, seconds)
        timer = loop.call_at(due, self._overdue, pending, due)
        try:
            return await self._outcome(pending)
        finally:
            timer.cancel()

    async def _outcome(self, pending: _Pending) -> Any:
        try:
            return await pending.done
        except asyncio.CancelledError:
            if self._drop(pending):
                pending.on_lost()
            raise

    def _drop(self, pending: _Pending) -> bool:
        """Takes a write back; False if its transaction has begun."""
        with self._begins:
            pending.dropped = not pending.begun
        self._pending.pop(pending, None)
        return pending.dropped

    def _overdue(self, pending: _Pending, due: float) -> None:
        """The caller of a write has waited long enough."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        if pending.done.done():
            return
        if now - due > _LATE_SECONDS:
            loop.call_later(_SECOND_LOOK_SECONDS, self._overdue, pending, math.inf)
            return
        waited = now - max(pending.asked_at, self._stored_at)
        if waited >= self.wait_seconds:
            self._say_not_stored(f"storage has not answered for {waited:.1f} s")
            self._refuse_waiting()
        if not pending.done.done():
            self._refuse(pending)

    def _refuse_waiting(self) -> None:
        for pending in [each for each in self._pending if each.bounded]:
            self._refuse(pending)

    def _refuse(self, pending: _Pending) -> None:
        self._not_stored += self._away
        unsure = not self._drop(pending)
        if not pending.done.done():
            pending.done.set_exception(StorageUnavailableError(unsure=unsure))

    async def run(self) -> None:
        """Commits batches until `close`; what is pending then is still written."""
        while self._pending or not self._closing:
            if not self._pending:
                self._wake.clear()
                await self._wake.wait()
                continue
            if not self._closing:
                await self._gather()
            self._usual += (len(self._pending) - self._usual) / _USUAL_OF_BATCHES
            await self._write(self._take())
        self._thread.shutdown()

    async def _write(self, batch: list[_Pending]) -> None:
        """Commits it and tells who waits. Here and not in `run`, which would hold it until the next one comes."""
        if not batch:
            return
        loop = asyncio.get_running_loop()
        self._committing, self._began = True, time.perf_counter()
        try:
            results = await loop.run_in_executor(self._thread, self._commit_all, batch)
            self._stored_at = loop.time()
            self._say_stored()
        except (SQLAlchemyError, OSError) as error:
            self._say_not_stored("", cause=error)
            self._not_stored += sum(not each.done.done() for each in batch)
            unsure = _is_unsure(error)
            results = [StorageUnavailableError(unsure=unsure and each.begun) for each in batch]
        except Exception as error:  # A fault of ours must not end the only writer.
            logger.exception("a batch of %d writes was not stored", len(batch))
            results = [error for _ in batch]
        self._on_batch(len(batch), time.perf_counter() - self._began)
        self._committing = False
        _settle(batch, results)
        self._on_commit()

    def _take(self) -> list[_Pending]:
        """The next batch, made: no more than can be in the time for which all else may wait.

        Changes come last, also by their positions: what is decided was decided before they are in force.
        """
        batch: list[_Pending] = []
        until = time.perf_counter() + _MAKE_SECONDS_MAX
        while self._pending and len(batch) < _BATCH_MAX and time.perf_counter() < until:
            pending, _ = self._pending.popitem(last=False)
            if _made(pending):
                batch.append(pending)
        return sorted(batch, key=_is_change)

    async def _gather(self) -> None:
        """Waits while more writes come, though not for long: callers come in numbers, and a commit costs about as
        much for fifty writes as for one.

        Where batches have been small there is time for a commit of each; also after something has held all up,
        when those who wait have waited enough. Where they have been larger, the next has to come quickly to be
        waited for; and where large, it is the processor that there is too little of.
        """
        if self._usual < _FEW:
            return
        loop = asyncio.get_running_loop()
        worth = _SOME_WORTH if self._usual < _SOME else 1
        until, known = loop.time() + _GATHER_SECONDS_MAX, -math.inf
        while len(self._pending) - known >= worth and loop.time() < until:
            known = len(self._pending)
            await asyncio.sleep(_GATHER_SECONDS)

    def _say_not_stored(self, why: str, cause: BaseException | None = None) -> None:
        """Once and not for each batch: a log of every failure would fill what is left of a full disk."""
        if self._away:
            return
        self._away = True
        tail = f": {why}" if why else ""
        logger.error("writes are not stored, and refused until they can be%s", tail, exc_info=cause)

    def _say_stored(self) -> None:
        if self._away:
            logger.warning("writes are stored again; %d were refused meanwhile", self._not_stored)
        self._away = False
        self._not_stored = 0

    def close(self) -> None:
        """Lets `run` end once everything pending is written."""
        self._closing = True
        self._wake.set()

    def _commit_all(self, batch: list[_Pending]) -> list[Any]:
        """One transaction; where what is written is refused, one for each write, so that only the guilty fail."""
        try:
            return self._commit(batch)
        except (IntegrityError, DataError):
            logger.exception("a batch of %d writes was refused: each is tried alone", len(batch))
        results: list[Any] = []
        for each in batch:
            try:
                results += self._commit([each])
            except (SQLAlchemyError, OSError) as error:
                logger.exception("a write was not stored")
                results.append(StorageUnavailableError(unsure=_is_unsure(error)))
        return results

    def _commit(self, batch: list[_Pending]) -> list[Any]:
        with self._engine.begin() as connection:
            # Only now: the database may have kept this waiting, and some callers may be gone.
            wanted = self._begin(batch)
            if not wanted:
                return [None] * len(batch)
            writes = [cast("Write", each.write) for each in wanted]  # All are made.
            written = write_batch(connection, writes, self._clock_us(), self._catalogue, self._recent)
        self._recent.put(each for each in written.results if isinstance(each, DecisionRecord))
        self._on_time(written.time_us)
        if written.page is not None:
            for tail in self._tails:
                tail.put(written.page)
        found = dict(zip(wanted, written.results, strict=True))
        return [found.get(each) for each in batch]

    def _begin(self, batch: list[_Pending]) -> list[_Pending]:
        """Those that are still wanted; from here on they are not taken back."""
        with self._begins:
            wanted = [each for each in batch if not each.dropped]
            for each in wanted:
                each.begun = True
        return wanted


def _made(pending: _Pending) -> bool:
    """Whether there is a write: it is made, unless nobody waits for it any more."""
    if pending.done.done():
        return False
    if callable(pending.write):
        try:
            pending.write = pending.write()
        except Exception as error:  # Whatever it is, it is told to who has asked.
            pending.done.set_exception(error)
            return False
    return True


def _is_unsure(error: Exception) -> bool:
    """A connection that is lost in the middle of a commit does not tell what has become of it."""
    return isinstance(error, DBAPIError) and error.connection_invalidated


def _is_change(pending: _Pending) -> bool:
    return isinstance(pending.write, Transact)


def _settle(batch: list[_Pending], results: list[Any]) -> None:
    for pending, result in zip(batch, results, strict=True):
        if isinstance(pending.write, Transact) and pending.begun and not isinstance(result, Exception):
            pending.write.stored(result)
        if pending.done.done():  # The caller has gone.
            if pending.begun and isinstance(result, Exception):
                pending.on_lost()
            continue
        if isinstance(result, Exception):
            pending.done.set_exception(result)
        else:
            pending.done.set_result(result)
