"""Who learns for a server: itself, in turn with those that share its database, or a process that it starts."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from typing import Any

from server.alarm_watch import AlarmWatch
from server.election import Election
from server.learner_process import LearnerProcess
from server.learning import Learning, OnFound
from server.loops import Loops
from server.parts import Parts
from server.settings import Role
from server.storage import registry_store
from server.storage.writes import Transact
from server.stored_evaluation import StoredEvaluations
from server.view_watch import ViewWatch


class Learners:
    """Made in the event loop of the server. `on_found` is called with what the evaluation has found, `on_change`
    after anything here has changed, both from any thread.

    `watch` takes over what others have learned, and is None where nobody shares the database; `process` is None
    unless it is asked for.
    """

    def __init__(self, parts: Parts, on_found: OnFound, on_change: Callable[[], object]) -> None:
        self._parts = parts
        self._event_loop = asyncio.get_running_loop()
        engine, shared = parts.engine, parts.database.shared
        stored = StoredEvaluations(engine, parts.registry)
        loops = self._loops()
        self.learning = Learning(
            loops.learner,
            loops.evaluation,
            on_found,
            on_change,
            stored.find if shared else lambda _: None,
            parts.clock,
        )
        self._election = Election(
            engine, self.learning.begin, self.learning.abandon, lambda: not self.learning.died
        )
        self.process = LearnerProcess(parts.settings, on_change) if parts.settings.learner_process else None
        self.watch = self._make_watch(on_change) if shared else None
        self.alarms = AlarmWatch(
            engine, parts.registry, stored.glance, lambda: not self.learning.active, on_change
        )

    async def require_port(self) -> None:
        """Raises OSError if where the metrics of a process are to be answered is taken."""
        if self.process is not None:
            await self.process.require_port()

    def begin(self, head: int) -> Iterator[Coroutine[Any, Any, None]]:
        """Begins to learn, or to follow who does, from the log's head on; gives what is to run until `stop`."""
        if self.watch is None:
            self.learning.begin()
            return
        self.watch.start(head)
        yield self.alarms.run()
        if self.process is not None:
            yield self.process.run()
        elif self._parts.settings.role is not Role.ROUTER:
            self._election.start()

    def let_end(self) -> None:
        """A process that ends from here on is not started again."""
        if self.process is not None:
            self.process.let_end()

    async def stop(self) -> None:
        """Learns what is in the log, saves it, and leaves the turn to another server."""
        await asyncio.to_thread(self.learning.stop)
        # Only now may another server learn: it goes on from what was saved.
        await asyncio.to_thread(self._election.stop)
        if self.process is not None:
            await self.process.stop()
        if self.watch is not None:
            await asyncio.to_thread(self.watch.stop)
        self.alarms.stop()

    def _loops(self) -> Loops:
        parts = self._parts
        return Loops(
            parts.engine,
            parts.database.view_engine,
            (parts.reader, parts.evaluation_reader),
            parts.registry,
            parts.views,
            parts.candidate_views,
            self._submit_from_thread,
            parts.clock,
            parts.settings.snapshot_seconds,
            parts.settings.evaluation_seconds,
            parts.database.shared,
        )

    def _make_watch(self, on_change: Callable[[], object]) -> ViewWatch:
        parts = self._parts
        return ViewWatch(
            parts.engine,
            parts.views,
            parts.candidate_views,
            parts.clock,
            lambda: not self.learning.active,
            self._refresh_registry,
            on_change,
        )

    def _submit_from_thread(self, write: Transact) -> object:
        written = self._parts.log.submit(write, math.inf)
        return asyncio.run_coroutine_threadsafe(written, self._event_loop).result()

    def _refresh_registry(self, router_id: str) -> None:
        """From the watch's thread, which waits for it: where this raises, it asks again."""
        read = partial(registry_store.read_entry, self._parts.engine)
        refreshed = self._parts.change.refresh(router_id, read)
        asyncio.run_coroutine_threadsafe(refreshed, self._event_loop).result()
