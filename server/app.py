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
from grpc_reflection.v1alpha import reflection
from pointsman.v1 import (
    policy_service_pb2,
    policy_service_pb2_grpc,
    registry_service_pb2,
    registry_service_pb2_grpc,
    router_service_pb2,
    router_service_pb2_grpc,
)
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from policy.domain import DEFAULT_ROUTER, RouterSpec
from policy.features import Featuriser
from server.admission import Admission
from server.clock import LogClock, new_decision_id, now_us
from server.config_file import DeclaredRouter
from server.doors import Doors, is_loopback
from server.errors import AlreadyExistsError
from server.evaluation_loop import EvaluationLoop, Found
from server.history_loop import HistoryLoop
from server.http.door import HttpDoor
from server.key_watch import KeyWatch
from server.keys import KeyRing
from server.learner_loop import LearnerLoop
from server.metrics.endpoint import Metrics
from server.metrics.log import Following
from server.registry import Registry
from server.retention_loop import RetentionLoop
from server.services.access import METHODS
from server.services.call_meter import CallMeter
from server.services.gatekeeper import Gatekeeper
from server.services.health import HealthService
from server.services.policy_service import PolicyService
from server.services.registry_service import RegistryService
from server.services.router_service import RouterService
from server.settings import Settings
from server.storage import registry_store
from server.storage.bounded_reads import BoundedReads
from server.storage.codec import dump_spec, load_router_spec
from server.storage.engine import hurry, migrate, open_engine
from server.storage.group_commit import GroupCommit
from server.storage.policy_store import read_transitions
from server.storage.positions import log_time_us
from server.storage.reader import LogReader
from server.storage.retention import require_window
from server.storage.tail import LogTail
from server.storage.writes import Transact
from server.tracing.asked import open_tracing
from server.usecases.change_policies import ChangePolicies
from server.usecases.change_registry import ChangeRegistry
from server.usecases.get_decision import GetDecision
from server.usecases.get_history import GetHistory
from server.usecases.import_decisions import ImportDecisions
from server.usecases.promote_policy import PromotePolicy
from server.usecases.snapshots import Snapshots
from server.usecases.steward import Steward
from server.views import CandidateViews, Views

logger = logging.getLogger(__name__)

_IDLE_SECONDS = 60.0
# Where other servers write too, nobody says so.
_POLL_SECONDS = 0.5
EVALUATION_HEALTH = "pointsman.v1.evaluation"
LIVE_POLICY_HEALTH = "pointsman.v1.live_policy"

_DESCRIPTORS = (
    router_service_pb2.DESCRIPTOR.services_by_name["RouterService"],
    registry_service_pb2.DESCRIPTOR.services_by_name["RegistryService"],
    policy_service_pb2.DESCRIPTOR.services_by_name["PolicyService"],
)
_SERVICES = tuple(each.full_name for each in _DESCRIPTORS)


class App:
    """A router, a learner and an evaluation in one process. Make it, `start` and `stop` it in one event loop."""

    def __init__(
        self, settings: Settings, featuriser: Featuriser | None = None, clock: LogClock | None = None
    ) -> None:
        self._settings = settings
        self._clock = clock or LogClock()
        self._tracing = open_tracing(os.environ)
        self._engine: Engine = open_engine(settings.database_url, settings.durability)
        tail = LogTail()
        self._reader = LogReader(self._engine, tail)
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
            tail,
            on_batch=self._metrics.batches.add,
            on_time=self._clock.reached,
        )
        self._reads = BoundedReads(settings.storage_wait_seconds)
        self._change = ChangeRegistry(self._registry, self._log, settings.window_seconds_max)
        self._is_learning = False
        self._retention = RetentionLoop(
            self._engine, self._log, self._clock, settings.retention_days, lambda: self._is_learning
        )
        self._history = HistoryLoop(self._engine, self._log, self._clock)
        self._health = HealthService()
        self._loop = asyncio.get_running_loop()
        self._evaluation = EvaluationLoop(
            self._engine,
            self._registry,
            self._candidate_views,
            self._submit_from_thread,
            self._clock,
            lambda healthy: self._set_health(healthy, EVALUATION_HEALTH),
            lambda healthy: self._set_health(healthy, LIVE_POLICY_HEALTH),
            self._look_after,
            settings.evaluation_seconds,
        )
        self._promote = PromotePolicy(self._registry, self._change, self._evaluation.find)
        self._steward = Steward(self._registry, self._promote, self._clock)
        self._ring = KeyRing()
        self._key_watch = KeyWatch(self._engine, self._ring)
        self._gatekeeper = Gatekeeper(self._ring, Admission(time.monotonic), METHODS, now_us)
        self._server = self._build_server(featuriser or Featuriser())
        self._http = HttpDoor(
            settings, self._gatekeeper, (*_DESCRIPTORS, health_pb2.DESCRIPTOR.services_by_name["Health"])
        )
        self._tasks: set[asyncio.Task[Any]] = set()
        self._learner: LearnerLoop | None = None
        self._metrics.follow(self._following())
        self.port = 0

    @property
    def http_port(self) -> int:
        """Where JSON over HTTP is served, 0 if nowhere."""
        return self._http.port

    @property
    def metrics_port(self) -> int:
        """Where metrics are answered, 0 if nowhere."""
        return self._metrics.port

    async def start(self, declared: list[DeclaredRouter]) -> None:
        """Migrates, applies what a file declares, and serves. Raises OSError if the address is taken,
        InvalidFieldError if the doors are not as the settings need them.
        """
        doors = Doors(self._settings)
        await asyncio.to_thread(migrate, self._engine)
        self._clock.reached(await asyncio.to_thread(log_time_us, self._engine))
        await self._key_watch.refresh()
        doors.require_locked(self._ring.locked)
        for entry in await asyncio.to_thread(registry_store.load_entries, self._engine):
            self._registry.replace(entry.router.id, entry)
        self._spawn(self._log.run())
        await self._retention.prepare()
        self._spawn(self._key_watch.run())
        if self._registry.entry(DEFAULT_ROUTER) is None:
            await self._create_default()
        for router in declared:
            await self._apply(router)
        for entry in self._registry.entries():
            require_window(entry.router.spec, self._settings.window_seconds_max, f"routers.{entry.router.id}.")
        # Only from here on does a caller wait for storage: a start on a slow disk takes the time it needs.
        self._log.wait_seconds = self._settings.storage_wait_seconds
        learner = LearnerLoop(
            self._reader,
            self._views,
            self._submit_from_thread,
            self._clock,
            self._set_learning,
            self._settings.snapshot_seconds,
            self._refresh_registry,
            _POLL_SECONDS if self._engine.dialect.name == "postgresql" else _IDLE_SECONDS,
        )
        await self._report_health(False, "", *_SERVICES, EVALUATION_HEALTH)
        await self._report_health(True, LIVE_POLICY_HEALTH)
        address = f"{self._settings.host}:{self._settings.port}"
        try:
            self.port = doors.add_port(self._server, address)
        except RuntimeError as error:
            raise OSError(
                f"cannot listen on {address}: it is taken by another server, or no address of this machine"
            ) from error
        self._http.attach(self._server)
        if self._settings.metrics_port is not None:
            self._metrics.serve(self._settings.metrics_host, self._settings.metrics_port)
            if not is_loopback(self._settings.metrics_host):
                logger.warning("metrics on %s: anyone who reaches it may read them", self._settings.metrics_host)
        learner.start()
        self._learner = learner
        self._evaluation.start()
        self._spawn(self._retention.run())
        self._spawn(self._history.run())
        await self._server.start()
        await self._http.start(doors)
        doors.tell(self._ring.locked)

    async def stop(self) -> None:
        """Finishes what is in flight, learns it, saves a snapshot, and ends; without a database that answers, it
        ends about when the time of grace does.
        """
        hurry(self._engine, self._settings.grace_seconds)
        await self._health.enter_graceful_shutdown()
        await asyncio.gather(self._http.stop(), self._server.stop(self._settings.grace_seconds))
        # The learner first: what the evaluation saves is a position of the log that its snapshot need not know.
        if self._learner is not None:
            await asyncio.to_thread(self._learner.stop)
        await asyncio.to_thread(self._evaluation.stop)
        await asyncio.to_thread(self._metrics.stop)
        self._retention.close()
        self._history.close()
        self._key_watch.stop()
        self._reads.close()
        self._log.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._engine.dispose()
        await asyncio.to_thread(self._tracing.stop)

    async def wait(self) -> None:
        """Serves until `stop`."""
        await self._server.wait_for_termination()

    def _build_server(self, featuriser: Featuriser) -> grpc.aio.Server:
        largest = self._settings.message_bytes_max
        server = grpc.aio.server(
            interceptors=[
                *self._tracing.interceptors,
                CallMeter(self._metrics.calls, METHODS),
                self._gatekeeper,
            ],
            options=[
                ("grpc.max_receive_message_length", largest),
                ("grpc.max_send_message_length", largest),
                ("grpc.so_reuseport", 0),
            ],
        )
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
            self._evaluation.find,
            self._read_transitions,
            Snapshots(self._engine, self._reads, self._registry, self._change, self._log),
        )
        policy_service_pb2_grpc.add_PolicyServiceServicer_to_server(policies, server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        reflection.enable_server_reflection((*_SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
        return server

    async def _read_transitions(self, router_uid: int, after: tuple[int, str], limit: int) -> Sequence[Any]:
        return await self._reads(partial(read_transitions, self._engine, router_uid, after, limit))

    async def _create_default(self) -> None:
        """Another server that starts on the same empty database may be first."""
        try:
            await self._change.put_router(DEFAULT_ROUTER, RouterSpec(), create=True)
        except AlreadyExistsError:
            await self._change.refresh(DEFAULT_ROUTER, partial(registry_store.read_entry, self._engine))

    async def _apply(self, declared: DeclaredRouter) -> None:
        """Takes over what has changed in the file since it was last applied; what was changed here stays."""
        entry = self._registry.entry(declared.id)
        text = dump_spec(declared.spec)
        known = registry_store.declared_router(self._engine, declared.id)
        # Compared as specs: an older version wrote down fewer settings.
        if entry is None or known is None or load_router_spec(known) != declared.spec:
            await self._change.put_router(declared.id, declared.spec, create=entry is None, declared=text)
        for model_id, spec in declared.models.items():
            entry = self._registry.entry(declared.id)
            missing = entry is None or entry.model(model_id) is None
            text = dump_spec(spec)
            if registry_store.declared_model(self._engine, declared.id, model_id) != text:
                await self._change.put_model(declared.id, model_id, spec, create=missing, declared=text)

    def _following(self) -> Following:
        followers = {
            "learner": lambda: self._learner.position if self._learner and self._is_learning else None,
            "evaluation": lambda: self._evaluation.position,
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
        if self._learner is not None:
            self._learner.notify()
        self._evaluation.notify()

    def _submit_from_thread(self, write: Transact) -> object:
        return asyncio.run_coroutine_threadsafe(self._log.submit(write, math.inf), self._loop).result()

    def _look_after(self, router_id: str, found: Found | None) -> None:
        """From the evaluation's thread, which does not wait for it."""
        self._metrics.noted(router_id, found)
        if found is not None:
            self._loop.call_soon_threadsafe(lambda: self._spawn(self._steward(router_id, found)))

    def _refresh_registry(self, router_ids: set[str]) -> None:
        """From the learner's thread, which meets what every server has written."""

        async def refresh() -> None:
            try:
                for router_id in sorted(router_ids):
                    await self._change.refresh(router_id, partial(registry_store.read_entry, self._engine))
            except (
                SQLAlchemyError
            ) as error:  # The learner has the same trouble, and says all routers when it is over.
                logger.warning("the registry could not be read again: %s", error)

        self._loop.call_soon_threadsafe(lambda: self._spawn(refresh()))

    def _set_learning(self, healthy: bool) -> None:
        self._is_learning = healthy
        if healthy:
            self._metrics.level()
        self._set_health(healthy, "", *_SERVICES)

    def _set_health(self, healthy: bool, *services: str) -> None:
        """May be called from any thread."""
        self._loop.call_soon_threadsafe(lambda: self._spawn(self._report_health(healthy, *services)))

    async def _report_health(self, healthy: bool, *services: str) -> None:
        status = health_pb2.HealthCheckResponse
        for service in services:
            await self._health.set(service, status.SERVING if healthy else status.NOT_SERVING)

    def _spawn(self, coroutine: Any) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
