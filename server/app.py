"""The wiring: builds a server from its settings, starts it and stops it. The only file that knows all parts."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc
from pointsman.v1 import (
    policy_service_pb2,
    policy_service_pb2_grpc,
    registry_service_pb2,
    registry_service_pb2_grpc,
    router_service_pb2,
    router_service_pb2_grpc,
)

from policy.features import Featuriser
from server.admission import Admission
from server.alarm_watch import AlarmWatch
from server.clock import LogClock, new_decision_id, now_us
from server.config_file import DeclaredRouter
from server.declared import apply_declared
from server.doors import Doors, is_loopback
from server.election import Election
from server.evaluation_loop import Found
from server.history_loop import HistoryLoop
from server.http.door import HttpDoor
from server.key_watch import KeyWatch
from server.keys import KeyRing
from server.learner_process import LearnerProcess
from server.learning import Learning
from server.loops import Loops
from server.metrics.endpoint import Metrics
from server.metrics.log import Following
from server.metrics.roles import Roles
from server.registry import Registry
from server.retention_loop import RetentionLoop
from server.services.access import METHODS
from server.services.call_meter import CallMeter
from server.services.entrance import Entrance
from server.services.gatekeeper import Gatekeeper
from server.services.health import HealthService
from server.services.policy_service import PolicyService
from server.services.registry_service import RegistryService
from server.services.router_service import RouterService
from server.settings import Role, Settings
from server.statuses import Statuses
from server.storage import registry_store
from server.storage.bounded_reads import BoundedReads
from server.storage.database import Database
from server.storage.group_commit import GroupCommit
from server.storage.policy_store import read_transitions
from server.storage.positions import log_time_us
from server.storage.reader import LogReader
from server.storage.retention import require_window
from server.storage.tail import LogTail
from server.storage.writes import Transact
from server.stored_evaluation import StoredEvaluations
from server.tracing.asked import open_tracing
from server.usecases.change_policies import ChangePolicies
from server.usecases.change_registry import ChangeRegistry
from server.usecases.get_decision import GetDecision
from server.usecases.get_history import GetHistory
from server.usecases.import_decisions import ImportDecisions
from server.usecases.promote_policy import PromotePolicy
from server.usecases.snapshots import Snapshots
from server.usecases.steward import Steward
from server.view_watch import ViewWatch
from server.views import CandidateViews, Views

logger = logging.getLogger(__name__)

_DESCRIPTORS = (
    router_service_pb2.DESCRIPTOR.services_by_name["RouterService"],
    registry_service_pb2.DESCRIPTOR.services_by_name["RegistryService"],
    policy_service_pb2.DESCRIPTOR.services_by_name["PolicyService"],
)


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
        self._database = Database(settings.database_url, settings.durability, several=settings.several)
        self._engine, self._shared = self._database.engine, self._database.shared
        tails = LogTail(), LogTail()
        self._reader = LogReader(self._engine, tails[0], tails[1])
        self._registry = Registry()
        self._views = Views()
        self._candidate_views = CandidateViews()
        self._metrics = Metrics(self._registry, self._views, self._clock)
        self._log = GroupCommit(
            self._engine,
            self._registry,
            self._clock,
            self._notify_followers,
            settings.write_queue_max,
            tails,
            on_batch=self._metrics.batches.add,
            on_time=self._clock.reached,
        )
        self._reads = BoundedReads(settings.storage_wait_seconds)
        self._change = ChangeRegistry(self._registry, self._log, settings.window_seconds_max)
        self._history = HistoryLoop(self._engine, self._log, self._clock, lambda: self._learning.learns)
        self._health = HealthService()
        self._loop = asyncio.get_running_loop()
        stored = StoredEvaluations(self._engine, self._registry)
        self._learning = self._make_learning(LogReader(self._engine, tails[1]), stored)
        self._election = Election(
            self._engine, self._learning.begin, self._learning.abandon, lambda: not self._learning.died
        )
        self._learner_process = LearnerProcess(settings, self._tell_health) if settings.learner_process else None
        self._watch = ViewWatch(
            self._engine,
            self._views,
            self._candidate_views,
            self._clock,
            lambda: not self._learning.active,
            self._refresh_registry,
            self._tell_health,
        )
        self._alarms = AlarmWatch(
            self._engine, self._registry, stored.glance, lambda: not self._learning.active, self._tell_health
        )
        self._retention = RetentionLoop(
            self._engine, self._log, self._clock, settings.retention_days, lambda: self._learning.learns
        )
        self._promote = PromotePolicy(self._registry, self._change, self._learning.find)
        self._steward = Steward(self._registry, self._promote, self._clock)
        self._ring = KeyRing()
        self._key_watch = KeyWatch(self._engine, self._ring)
        self._gatekeeper = Gatekeeper(self._ring, Admission(time.monotonic), METHODS, now_us)
        answered = () if settings.role is Role.LEARNER else _DESCRIPTORS
        self._services = tuple(each.full_name for each in answered)
        self._server = self._build_server(featuriser)
        self._http = HttpDoor(
            settings, self._gatekeeper, (*answered, health_pb2.DESCRIPTOR.services_by_name["Health"])
        )
        self._statuses = Statuses(
            settings.role,
            self._services,
            self._registry,
            self._learning,
            self._watch if self._shared else None,
            self._alarms,
            self._learner_process,
            self._metrics,
        )
        self._tasks: set[asyncio.Task[Any]] = set()
        self._metrics.follow(self._following(), self._roles())
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
        database by a server that does not go with this one, InvalidFieldError if the doors are not as the settings
        need them.
        """
        doors = Doors(self._settings)
        await asyncio.to_thread(self._database.open)
        self._clock.reached(await asyncio.to_thread(log_time_us, self._engine))
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
        if self._learner_process is not None:
            await self._learner_process.require_port()
        self._begin_to_learn(head)
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
        if self._learner_process is not None:
            self._learner_process.let_end()
        await self._health.enter_graceful_shutdown()
        await asyncio.gather(self._http.stop(), self._server.stop(self._settings.grace_seconds))
        await asyncio.to_thread(self._learning.stop)
        # Only now may another server learn: it goes on from what was saved.
        await asyncio.to_thread(self._election.stop)
        if self._learner_process is not None:
            await self._learner_process.stop()
        await asyncio.to_thread(self._watch.stop)
        await asyncio.to_thread(self._metrics.stop)
        self._retention.close()
        self._history.close()
        self._key_watch.stop()
        self._alarms.stop()
        self._reads.close()
        self._log.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.to_thread(self._database.close)
        await asyncio.to_thread(self._tracing.stop)

    async def wait(self) -> None:
        """Serves until `stop`."""
        await self._server.wait_for_termination()

    def _build_server(self, featuriser: Featuriser | None) -> grpc.aio.Server:
        meter = CallMeter(self._metrics.calls, METHODS, self._tracing.give_up)
        entrance = Entrance(self._gatekeeper, meter)
        self._add_services(entrance, featuriser)
        largest = self._settings.message_bytes_max
        server = grpc.aio.server(
            interceptors=self._tracing.interceptors,
            options=[
                ("grpc.max_receive_message_length", largest),
                ("grpc.max_send_message_length", largest),
                ("grpc.so_reuseport", int(self._settings.share_port)),
            ],
        )
        server.add_generic_rpc_handlers((entrance,))
        return server

    def _add_services(self, server: Any, featuriser: Featuriser | None) -> None:
        """Adds what this server answers to an entrance, which generated code takes for a server."""
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        names = (*self._services, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflecting = reflection.aio.ReflectionServicer(names)
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(reflecting, server)  # type: ignore[no-untyped-call]
        if not self._services:
            return
        featuriser = featuriser or Featuriser()
        route = self._tracing.make_route(
            self._registry,
            self._views,
            self._candidate_views,
            featuriser,
            self._log,
            self._reader,
            self._reads,
            self._clock,
            new_decision_id,
            self._shared,
        )
        get_decision = GetDecision(self._reader, self._reads, self._registry, self._views)
        take_over = ImportDecisions(self._registry, featuriser, self._log, self._clock, new_decision_id)
        report_reward = self._tracing.make_report_reward(self._log, self._metrics.counted)
        data_plane = RouterService(route, report_reward, get_decision, take_over)
        control_plane = RegistryService(
            self._registry,
            self._views,
            self._change,
            GetHistory(self._engine, self._registry, self._reads, self._clock, lambda: self._history.position),
        )
        router_service_pb2_grpc.add_RouterServiceServicer_to_server(data_plane, server)
        registry_service_pb2_grpc.add_RegistryServiceServicer_to_server(control_plane, server)
        policies = PolicyService(
            self._registry,
            ChangePolicies(self._change),
            self._promote,
            self._learning.find,
            self._read_transitions,
            Snapshots(self._engine, self._reads, self._registry, self._change, self._log),
        )
        policy_service_pb2_grpc.add_PolicyServiceServicer_to_server(policies, server)

    async def _read_transitions(self, router_uid: int, after: tuple[int, str], limit: int) -> Sequence[Any]:
        return await self._reads(partial(read_transitions, self._engine, router_uid, after, limit))

    def _make_learning(self, evaluation_reader: LogReader, stored: StoredEvaluations) -> Learning:
        loops = Loops(
            self._engine,
            self._database.view_engine,
            (self._reader, evaluation_reader),
            self._registry,
            self._views,
            self._candidate_views,
            self._submit_from_thread,
            self._clock,
            self._settings.snapshot_seconds,
            self._settings.evaluation_seconds,
            self._shared,
        )
        return Learning(
            loops.learner,
            loops.evaluation,
            self._look_after,
            self._tell_health,
            stored.find if self._shared else lambda _: None,
            self._clock,
        )

    def _roles(self) -> Roles:
        return Roles(
            self._registry,
            self._views,
            lambda: self._learning.since_us,
            lambda: self._watch.unlearned if self._shared else None,
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

    def _begin_to_learn(self, head: int) -> None:
        if not self._shared:
            self._learning.begin()
            return
        self._watch.start(head)
        self._spawn(self._alarms.run())
        if self._learner_process is not None:
            self._spawn(self._learner_process.run())
        elif self._settings.role is not Role.ROUTER:
            self._election.start()

    def _notify_followers(self) -> None:
        self._learning.notify()

    def _submit_from_thread(self, write: Transact) -> object:
        return asyncio.run_coroutine_threadsafe(self._log.submit(write, math.inf), self._loop).result()

    def _look_after(self, router_id: str, found: Found | None) -> None:
        """From the evaluation's thread, which does not wait for it."""
        self._metrics.noted(router_id, found)
        if found is not None:
            self._loop.call_soon_threadsafe(lambda: self._spawn(self._steward(router_id, found)))

    def _refresh_registry(self, router_ids: set[str]) -> None:
        """From the watch's thread, which waits for it: where this raises, it asks again."""

        async def refresh() -> None:
            for router_id in sorted(router_ids):
                await self._change.refresh(router_id, partial(registry_store.read_entry, self._engine))

        asyncio.run_coroutine_threadsafe(refresh(), self._loop).result()

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
