"""Follows what the evaluation of another process has found of the live policies, for the health of this one."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from server.errors import PointsmanError
from server.evaluation_loop import Found
from server.registry import Registry
from server.storage.evaluation_store import evaluated_positions

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 5.0
# A state of many models takes half a second of the interpreter that answers: the dearer the more rarely.
_READING_SHARE = 0.05
_LOOK_SECONDS_MAX = 20.0
_PAUSES = 9.0
_PAUSES_SECONDS_MAX = 10.0


class AlarmWatch:
    """Looks every five seconds, as long as `looks` says so. A state is read again only when a later one was saved.

    `read` gives what a router's saved evaluation has found. `on_change` is called when `satisfied` has changed.
    While the database is away, what was known last stays.
    """

    def __init__(
        self,
        engine: Engine,
        registry: Registry,
        read: Callable[[str], Found | None],
        looks: Callable[[], bool],
        on_change: Callable[[], object],
    ) -> None:
        self._engine = engine
        self._registry = registry
        self._read = read
        self._looks = looks
        self._on_change = on_change
        self._upto: dict[str, int] = {}
        self._worse: set[str] = set()
        self._failing = False
        self._stopped = asyncio.Event()

    @property
    def satisfied(self) -> bool:
        """Whether no model alone was known to be better than a live policy when that was last saved."""
        return not self._worse

    async def run(self) -> None:
        """Until `stop`. Never raises: what cannot be read is looked for again."""
        while not self._stopped.is_set():
            spent = 0.0
            if self._looks():
                try:
                    spent = await self.look()
                    self._failing = False
                except (SQLAlchemyError, PointsmanError):
                    pass  # The view watch, which looks more often, says that the database is away.
                except Exception:  # A fault of ours must not end it.
                    if not self._failing:
                        logger.exception("what the evaluation has saved was not taken over")
                    self._failing = True
            await self._wait(min(max(_LOOK_SECONDS, spent / _READING_SHARE), _LOOK_SECONDS_MAX))

    async def look(self) -> float:
        """Takes over what was saved since the last look; gives the seconds that it has read for.

        Raises SQLAlchemyError or StorageUnavailableError.
        """
        before = self.satisfied
        positions = await asyncio.to_thread(evaluated_positions, self._engine)
        there = {each.router.id for each in self._registry.entries()} & set(positions)
        self._upto = {router: seq for router, seq in self._upto.items() if router in there}
        self._worse &= there
        total = 0.0
        try:
            later = sorted(router for router in there if self._upto.get(router) != positions[router])
            for router in later:
                began = time.perf_counter()
                found = await asyncio.to_thread(self._read, router)
                spent = time.perf_counter() - began
                total += spent
                self._upto[router] = positions[router]
                self._worse = self._worse | {router} if found and found.worse_than else self._worse - {router}
                await self._wait(min(_PAUSES * spent, _PAUSES_SECONDS_MAX / len(later)))
        finally:
            if self.satisfied != before:
                self._on_change()
        return total

    def stop(self) -> None:
        """Ends `run`."""
        self._stopped.set()

    async def _wait(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopped.wait(), seconds)
