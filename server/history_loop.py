"""The history at work: counts the log behind everyone else, a step at a time."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from server.errors import PointsmanError
from server.storage.group_commit import GroupCommit
from server.storage.history_store import Cursor, Step, prune, read_cursor, read_step, store_step
from server.storage.writes import Transact

logger = logging.getLogger(__name__)

_EVERY_SECONDS = 2.0
_STEP = 1000
# Read in so small parts since other threads have to wait for the interpreter meanwhile.
_PART = 100
# With nothing to count the cursor is stored only now and then: each time makes the log longer.
_UNSTORED_MAX = 100_000
# While it has much to catch up with, nine tenths of the time are the others'.
_PAUSES_BUSY = 9.0
_PRUNE_US = 3_600_000_000

T = TypeVar("T")


class HistoryLoop:
    """A task beside the log's writer. What was counted is stored in one transaction with how far.

    Of several servers the one counts that learns, as `is_learning` says.
    """

    def __init__(
        self, engine: Engine, log: GroupCommit, clock_us: Callable[[], int], is_learning: Callable[[], bool]
    ) -> None:
        self._engine = engine.execution_options(read_only=True)
        self._log = log
        self._clock_us = clock_us
        self._is_learning = is_learning
        self._closing = asyncio.Event()
        self._failing = False
        self._stored: Cursor | None = None
        self._counted: Cursor | None = None
        self._prune_us = 0

    async def run(self) -> None:
        """Counts what is new every two seconds, until `close`."""
        while not self._closing.is_set():
            more = False
            try:
                more = await self.count()
                self._failing = False
            except (SQLAlchemyError, OSError, PointsmanError) as error:
                if not self._failing:
                    logger.warning("the history cannot reach the log, and tries again: %s", error)
                self._failing = True
                self._stored = None
            if not more:
                await self._pause(_EVERY_SECONDS)

    def close(self) -> None:
        """Lets `run` end. What is not counted yet is counted after the next start."""
        self._closing.set()

    @property
    def position(self) -> int:
        """Up to where the log is counted, as far as this server knows. What was counted is stored."""
        return self._counted.seq if self._counted else 0

    async def count(self) -> bool:
        """Counts a part of the log; says whether there is more."""
        if not self._is_learning():
            self._stored = self._counted = None
            return False
        if self._stored is None or self._counted is None:
            self._stored = self._counted = await self._ask(read_cursor)
        step = await self._read(self._counted)
        while step.more and step.after.seq - self._counted.seq < _STEP and not self._closing.is_set():
            step = step.then(await self._read(step.after))
        if step.counts or step.after.seq - self._stored.seq > _UNSTORED_MAX:
            await self._store(self._stored, step)
        else:
            self._counted = step.after
        if self._clock_us() >= self._prune_us:
            self._prune_us = self._clock_us() + _PRUNE_US
            await self._log.submit(Transact(prune, logs=False), math.inf)
        return step.more

    async def _read(self, after: Cursor) -> Step:
        """The next part of the log; leaves the processor to others if there is more."""
        began = time.perf_counter()
        step = await self._ask(lambda connection: read_step(connection, after, _PART))
        if step.more:
            await self._pause(_PAUSES_BUSY * (time.perf_counter() - began))
        return step

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._closing.wait(), seconds)

    async def _store(self, stored: Cursor, step: Step) -> None:
        """If another server was first it is known by the next step how far that has come."""
        was_mine = await self._log.submit(Transact(store_step(stored, step), logs=False), math.inf)
        self._stored = self._counted = step.after if was_mine else None

    async def _ask(self, question: Callable[[Connection], T]) -> T:
        def ask() -> T:
            with self._engine.connect() as connection:
                return question(connection)

        return await asyncio.to_thread(ask)
