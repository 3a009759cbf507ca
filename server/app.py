"""The wiring: builds a server from its settings, starts it and stops it."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from typing import Any

from grpc_health.v1 import health_pb2

from policy.features import Featuriser
from server.admission import Admission
from server.clock import LogClock, now_us
from server.config_file import DeclaredRouter
from server.declared import apply_declared
from server.doors import Doors, is_loopback
from server.evaluation_loop import Found
from server.grpc_server import GrpcServer, answered
from server.history_loop import HistoryLoop
from server.http.door import HttpDoor
from server.key_watch import KeyWatch
from server.keys import KeyRing
from server.learners import Learners
from server.metrics.log import Following
from server.metrics.roles import Roles
from server.parts import make_parts
from server.retention_loop import RetentionLoop
from server.services.access import METHODS
from server.services.gatekeeper import Gatekeeper
from server.services.health import HealthService
from server.settings import Settings
from server.statuses import Statuses
from server.storage import registry_store
from server.storage.positions import database_time_us, log_time_us
from server.storage.retention import require_window
from server.tracing.asked import open_tracing
from server.usecases.promote_policy import PromotePolicy
from server.usecases.steward import Steward
from server.views import Views

logger = logging.getLogger(__name__)


class App:
    """A router, a learner and an evaluation in one process, or a part of them by its role. Make it, `start` and
    `stop` it in one event loop.

    `of_another` is the learner of a server that has started it, and that says itself who is served.
    """

    def __init__(
        self,
        settings: Settings,
        featuriser: Featuriser | None = None,
        clock: LogClock | None = None,
        *,
        of_another: bool = False,
    ) -> None:
        self._settings = settings
        self._of_another = of_another
        self._clock = clock or LogClock()
        self._tracing = open_tracing(os.environ)
        parts = make_parts(settings, self._clock, self._notify_followers)
        self._database, self._engine = parts.database, parts.engine
        self._reader, self._reads, self._log = parts.reader, parts.reads, parts.log
        self._registry, self._change, self._metrics = parts.registry, parts.change, parts.metrics
        self._loop = asyncio.get_running_loop()
        self._learners = Learners(parts, self._look_after, self._tell_health)
        self._learning = self._learners.learning
        self._history = HistoryLoop(self._engine, self._log, self._clock, lambda: self._learning.learns)
        self._retention = RetentionLoop(
            self._engine, self._log, self._clock, settings.retention_days, lambda: self._learning.learns
        )
        promote = PromotePolicy(self._registry, self._change, self._learning.find)
        self._steward = Steward(self._registry, promote, self._clock)
        self._ring = KeyRing()
        self._key_watch = KeyWatch(self._engine, self._ring)
        gatekeeper = Gatekeeper(self._ring, Admission(time.monotonic), METHODS, now_us)
        self._health = HealthService()
        self._server = GrpcServer(
            parts,
            self._tracing,
            gatekeeper,
            self._health,
            promote,
            self._learning.find,
            lambda: self._history.position,
        ).build(featuriser)
        services = answered(settings.role)
        self._http = HttpDoor(settings, gatekeeper, (*services, health_pb2.DESCRIPTOR.services_by_name["Health"]))
        self._statuses = Statuses(
            settings.role,
            [each.full_name for each in services],
            self._registry,
            self._learning,
            self._learners.watch,
            self._learners.alarms,
            self._learners.process,
            self._metrics,
        )
        self._tasks: set[asyncio.Task[Any]] = set()
        self._metrics.follow(self._following(), self._roles(parts.views))
        self.port = 0
        self.died = asyncio.Event()
        """Set once a fault of ours has ended the learner of this server."""

    @property
    def http_port(self) -> int:
        """Where JSON over HTTP is served, 0 if nowhere."""
        return self._http.port

    @property
    def metrics_port(self) -> int:
        """Where metrics are answered, 0 if nowhere."""
        return self._metrics.port

    async def start(self, declared: list[DeclaredRouter]) -> None:
        """Migrates, applies what a file declares, and serves. Raises OSError if the address is taken, or the
        database by a server that does not go with this one, or if the clock is far ahead of the database's, and
        InvalidFieldError if the doors are not as the settings need them.
        """
        doors = Doors(self._settings)
        await asyncio.to_thread(self._database.open)
        await asyncio.to_thread(self._set_clock)
        await self._key_watch.refresh()
        doors.require_locked(self._ring.locked)
        head = await asyncio.to_thread(self._reader.head)  # What is changed from here on, the watch will see.
        for entry in await asyncio.to_thread(registry_store.load_entries, self._engine):
            self._registry.replace(entry.router.id, entry)
        self._spawn(self._log.run())
        self._database.look_after()
        await self._retention.prepare()
        self._spawn(self._key_watch.run())
        await apply_declared(self._engine, self._registry, self._change, declared)
        for entry in self._registry.entries():
            require_window(entry.router.spec, self._settings.window_seconds_max, f"routers.{entry.router.id}.")
        # Only from here on does a caller wait for storage: a start on a slow disk takes the time it needs.
        self._log.wait_seconds = self._settings.storage_wait_seconds
        await self._report_health()
        address = f"{self._settings.host}:{self._settings.port}"
        try:
            self.port = doors.add_port(self._server, address)
        except RuntimeError as error:
            raise OSError(
                f"cannot listen on {address}: it is taken by another server, or no address of this machine"
            ) from error
        # Whatever may be taken is asked for before a learner is begun, which would have to be ended again.
        self._http.open(doors)
        self._http.attach(self._server)
        if self._settings.metrics_port is not None:
            self._metrics.serve(self._settings.metrics_host, self._settings.metrics_port)
            if not is_loopback(self._settings.metrics_host):
                logger.warning("metrics on %s: anyone who reaches it may read them", self._settings.metrics_host)
        await self._learners.require_port()
        for following in self._learners.begin(head):
            self._spawn(following)
        self._spawn(self._retention.run())
        self._spawn(self._history.run())
        await self._server.start()
        self._http.start()
        if not self._of_another:
            doors.tell(self._ring.locked)

    async def stop(self) -> None:
        """Finishes what is in flight, learns it, saves a snapshot, and ends; without a database that answers, it
        ends about when the time of grace does.
        """
        self._database.hurry(self._settings.grace_seconds)
        self._learners.let_end()
        await self._health.enter_graceful_shutdown()
        await asyncio.gather(self._http.stop(), self._server.stop(self._settings.grace_seconds))
        await self._learners.stop()
        await asyncio.to_thread(self._metrics.stop)
        self._retention.close()
        self._history.close()
        self._key_watch.stop()
        self._reads.close()
        self._log.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.to_thread(self._database.close)
        await asyncio.to_thread(self._tracing.stop)

    async def wait(self) -> None:
        """Serves until `stop`."""
        await self._server.wait_for_termination()

    def _set_clock(self) -> None:
        logged_us, database_us = log_time_us(self._engine), database_time_us(self._engine)
        if database_us is not None:
            self._clock.require_believable(max(logged_us, database_us))
        self._clock.reached(logged_us)

    def _roles(self, views: Views) -> Roles:
        watch = self._learners.watch
        return Roles(
            self._registry,
            views,
            lambda: self._learning.since_us,
            lambda: None if watch is None else watch.unlearned,
        )

    def _following(self) -> Following:
        followers = {
            "learner": lambda: self._learning.learned_upto,
            "evaluation": lambda: self._learning.evaluated_upto,
        }
        return Following(
            self._engine,
            self._clock,
            lambda: self._log.waiting,
            self._settings.write_queue_max,
            followers,
            lambda: self._log.is_away,
        )

    def _notify_followers(self) -> None:
        self._learning.notify()

    def _look_after(self, router_id: str, found: Found | None) -> None:
        """From the evaluation's thread, which does not wait for it."""
        self._metrics.noted(router_id, found)
        if found is not None:
            self._loop.call_soon_threadsafe(lambda: self._spawn(self._steward(router_id, found)))

    def _tell_health(self) -> None:
        """May be called from any thread."""
        self._loop.call_soon_threadsafe(lambda: self._spawn(self._report_health()))

    async def _report_health(self) -> None:
        await self._health.tell(self._statuses())
        if self._learning.died:
            self.died.set()

    def _spawn(self, coroutine: Any) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
