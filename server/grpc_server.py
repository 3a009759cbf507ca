"""The wiring of what is answered by gRPC: the services of a server's role, over the use cases that they ask."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1 import health, health_pb2_grpc
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
from server.clock import new_decision_id
from server.learning import Find
from server.parts import Parts
from server.services.access import METHODS
from server.services.call_meter import CallMeter
from server.services.entrance import Entrance
from server.services.gatekeeper import Gatekeeper
from server.services.health import HealthService
from server.services.policy_service import PolicyService
from server.services.registry_service import RegistryService
from server.services.router_service import RouterService
from server.settings import Role
from server.storage.policy_store import read_transitions
from server.tracing.asked import Untraced
from server.usecases.change_policies import ChangePolicies
from server.usecases.get_decision import GetDecision
from server.usecases.get_history import GetHistory
from server.usecases.import_decisions import ImportDecisions
from server.usecases.promote_policy import PromotePolicy
from server.usecases.snapshots import Snapshots

if TYPE_CHECKING:
    from server.tracing.spans import Tracing

_DESCRIPTORS = (
    router_service_pb2.DESCRIPTOR.services_by_name["RouterService"],
    registry_service_pb2.DESCRIPTOR.services_by_name["RegistryService"],
    policy_service_pb2.DESCRIPTOR.services_by_name["PolicyService"],
)

# A caller that is gone without a word keeps its streams until it is asked whether it is there.
_KEEPALIVE_SECONDS = 60.0


def answered(role: Role) -> tuple[Any, ...]:
    """The descriptors of the services that a server of this role answers, health and reflection aside."""
    return () if role is Role.LEARNER else _DESCRIPTORS


@dataclass(frozen=True, slots=True)
class GrpcServer:
    """Builds it. `find` is what the evaluation knows of a router, `counted_upto` the position of the log up to
    which its history is counted.
    """

    parts: Parts
    tracing: Tracing | Untraced
    gatekeeper: Gatekeeper
    health: HealthService
    promote: PromotePolicy
    find: Find
    counted_upto: Callable[[], int]

    def build(self, featuriser: Featuriser | None) -> grpc.aio.Server:
        """One that has not started, and has no address yet. Loads a featuriser where it needs one."""
        meter = CallMeter(self.parts.metrics.calls, METHODS, self.tracing.give_up)
        entrance: Any = Entrance(self.gatekeeper, meter)  # Which generated code takes for a server.
        services = answered(self.parts.settings.role)
        health_pb2_grpc.add_HealthServicer_to_server(self.health, entrance)
        names = (*(each.full_name for each in services), health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflecting = reflection.aio.ReflectionServicer(names)
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(reflecting, entrance)  # type: ignore[no-untyped-call]
        if services:
            data_plane = self._data_plane(featuriser or Featuriser())
            router_service_pb2_grpc.add_RouterServiceServicer_to_server(data_plane, entrance)
            registry_service_pb2_grpc.add_RegistryServiceServicer_to_server(self._control_plane(), entrance)
            policy_service_pb2_grpc.add_PolicyServiceServicer_to_server(self._policies(), entrance)
        largest = self.parts.settings.message_bytes_max
        server = grpc.aio.server(
            interceptors=self.tracing.interceptors,
            options=[
                ("grpc.max_receive_message_length", largest),
                ("grpc.max_send_message_length", largest),
                ("grpc.so_reuseport", int(self.parts.settings.share_port)),
                ("grpc.keepalive_time_ms", round(1000 * _KEEPALIVE_SECONDS)),
            ],
        )
        server.add_generic_rpc_handlers((entrance,))
        return server

    def _data_plane(self, featuriser: Featuriser) -> RouterService:
        parts = self.parts
        route = self.tracing.make_route(
            parts.registry,
            parts.views,
            parts.candidate_views,
            featuriser,
            parts.log,
            parts.reader,
            parts.reads,
            parts.clock,
            new_decision_id,
            parts.database.shared,
        )
        report_reward = self.tracing.make_report_reward(parts.log, parts.metrics.counted)
        get_decision = GetDecision(parts.reader, parts.reads, parts.registry, parts.views)
        take_over = ImportDecisions(parts.registry, featuriser, parts.log, parts.clock, new_decision_id)
        return RouterService(route, report_reward, get_decision, take_over)

    def _control_plane(self) -> RegistryService:
        parts = self.parts
        get_history = GetHistory(parts.engine, parts.registry, parts.reads, parts.clock, self.counted_upto)
        return RegistryService(parts.registry, parts.views, parts.change, get_history)

    def _policies(self) -> PolicyService:
        parts = self.parts
        return PolicyService(
            parts.registry,
            ChangePolicies(parts.change),
            self.promote,
            self.find,
            self._read_transitions,
            Snapshots(parts.engine, parts.reads, parts.registry, parts.change, parts.log),
        )

    async def _read_transitions(self, router_uid: int, after: tuple[int, str], limit: int) -> Sequence[Any]:
        return await self.parts.reads(partial(read_transitions, self.parts.engine, router_uid, after, limit))
