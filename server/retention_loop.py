"""The retention at work: drops what is old in small steps, and makes PostgreSQL's partitions ahead."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from functools import partial
from typing import Any

from sqlalchemy import Connection, Engine, select
from sqlalchemy.exc import SQLAlchemyError

from server.errors import PointsmanError
from server.storage import partitions
from server.storage.group_commit import GroupCommit
from server.storage.retention import drop_old, horizon_us, is_look_due, is_old, note_look, oldest
from server.storage.schema import log_head
from server.storage.writes import Transact

logger = logging.getLogger(__name__)

_DAY_US = 86_400_000_000
_EVERY_SECONDS = 60.0
_PAUSE_SECONDS = 0.1
_PARTITIONS_KEPT = 12
_PARTITION_DAYS_FOREVER = 30


class RetentionLoop:
    """A task beside the log's writer. `retention_days` is how long decisions are kept, None for ever.

    Nothing is dropped while `is_learning` says no: the learner may still need all of the log then.
    """

    def __init__(
        self,
        engine: Engine,
        log: GroupCommit,
        clock_us: Callable[[], int],
        retention_days: float | None,
        is_learning: Callable[[], bool],
    ) -> None:
        self._engine = engine.execution_options(read_only=True)
        self._log = log
        self._clock_us = clock_us
        self._retention_us = None if retention_days is None else round(retention_days * _DAY_US)
        self._partition_days = partition_days(retention_days)
        self._is_learning = is_learning
        self._closing = asyncio.Event()
        self._failing = False
        self._held = False

    async def run(self) -> None:
        """Looks every minute, until `close`."""
        while not self._closing.is_set():
            pause = _EVERY_SECONDS
            try:
                await self.prepare()
                if await self.drop():
                    pause = _PAUSE_SECONDS
                self._failing = False
            except (SQLAlchemyError, OSError, PointsmanError) as error:
                if not self._failing:
                    logger.warning("the retention cannot reach the log, and tries again: %s", error)
                self._failing = True
            try:
                await asyncio.wait_for(self._closing.wait(), pause)
            except TimeoutError:
                continue

    def close(self) -> None:
        """Lets `run` end."""
        self._closing.set()

    async def prepare(self) -> None:
        """Makes the partitions that will be needed soon, if the log has any, and notes that it is looked after."""
        if await asyncio.to_thread(self._is_short):
            await self._log.submit(Transact(self._extend), math.inf)
        look_due = partial(is_look_due, now_us=self._clock_us())
        if self._retention_us is not None and await asyncio.to_thread(self._ask, look_due):
            await self._log.submit(Transact(note_look(self._retention_us)), math.inf)

    async def drop(self) -> int:
        """Drops a small part of the log if it is old; gives 0 if nothing could be dropped."""
        if self._retention_us is None or not self._is_learning():
            return 0
        horizon = partial(horizon_us, now_us=self._clock_us(), retention_us=self._retention_us)
        before_us = await asyncio.to_thread(self._ask, horizon)
        if not await asyncio.to_thread(self._ask, partial(is_old, before_us=before_us)):
            await self._warn_if_held(before_us - (self._partition_days + 1) * _DAY_US)
            return 0
        count: int = await self._log.submit(Transact(drop_old(self._retention_us)), math.inf)
        return count

    async def _warn_if_held(self, before_us: int) -> None:
        """Says so, once, if what is much too old has to stay."""
        oldest_us = await asyncio.to_thread(self._ask, oldest)
        held = oldest_us is not None and oldest_us < before_us
        if held and not self._held:
            logger.warning(
                "the retention drops nothing: a snapshot, an evaluation or an open window still needs it"
            )
        self._held = held

    def _is_short(self) -> bool:
        until: str = self._ask(_partitioned_until)
        return until < partitions.first_id(self._clock_us() + self._partition_days * _DAY_US)

    def _extend(self, connection: Connection, _seq: int, time_us: int) -> None:
        partitions.extend_ahead(connection, _partitioned_until(connection), time_us, self._partition_days)

    def _ask(self, question: Callable[[Connection], Any]) -> Any:
        with self._engine.connect() as connection:
            return question(connection)


def partition_days(retention_days: float | None) -> int:
    """How long a partition is: what is kept should be a dozen of them, and a day is the shortest."""
    if retention_days is None:
        return _PARTITION_DAYS_FOREVER
    return max(1, math.ceil(retention_days / _PARTITIONS_KEPT))


def _partitioned_until(connection: Connection) -> str:
    return str(connection.execute(select(log_head.c.partitioned_until)).scalar_one())
