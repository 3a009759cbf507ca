"""Plays a replay file through a running server, route by route and report by report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import grpc
from pointsman.v1 import registry_service_pb2 as registry_pb
from pointsman.v1 import registry_service_pb2_grpc as registry_grpc
from pointsman.v1 import router_service_pb2 as router_pb
from pointsman.v1 import router_service_pb2_grpc as router_grpc

from policy.domain import RouterSpec
from server.replay.file import ReplayFile
from server.replay.run import Play
from server.services.specs import router_spec_to_proto

_DEADLINE_SECONDS = 30.0
_CONNECT_SECONDS = 10.0


class TargetError(Exception):
    """The server to play through is not there, or has failed a call."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """Where a file is played: in a router that is there, or, without, in new ones NAME-1, NAME-2, ... that are
    left there. `incumbent_model` is what the caller says that its own rule would call, if it says anything.
    """

    name: str
    router: str = ""
    incumbent_model: str = ""


def play_target(file: ReplayFile, channel: grpc.Channel, traffic: Traffic) -> Play:
    """Plays against the server behind `channel`. A router that is there stays as it is, whatever spec is played.

    Raises TargetError with the server's message if a call fails.
    """
    try:
        grpc.channel_ready_future(channel).result(timeout=_CONNECT_SECONDS)
    except grpc.FutureTimeoutError as error:
        raise TargetError("there is no server at the target") from error
    count = 0

    def play(spec: RouterSpec, order: Sequence[int], _seed: int) -> Iterator[str]:
        nonlocal count
        count += 1
        if traffic.router:
            return _play(file, channel, traffic.router, traffic.incumbent_model, None, order)
        return _play(file, channel, f"{traffic.name}-{count}", traffic.incumbent_model, spec, order)

    return play


def _play(
    file: ReplayFile,
    channel: grpc.Channel,
    router_id: str,
    incumbent_model: str,
    spec: RouterSpec | None,
    order: Sequence[int],
) -> Iterator[str]:
    """In a new router of this spec, or without one in a router that is there."""
    routers = router_grpc.RouterServiceStub(channel)
    try:
        if spec:
            _create_router(file, channel, router_id, spec)
        for row in order:
            request = router_pb.RouteRequest(
                router=f"routers/{router_id}", prompt=file.rows[row].prompt, incumbent_model=incumbent_model
            )
            yield _play_row(file, routers, request, row)
    except grpc.RpcError as error:
        answer = f"{error.code().name}: {error.details()}" if isinstance(error, grpc.Call) else str(error)
        raise TargetError(f"the target answers {answer}") from error


def _create_router(file: ReplayFile, channel: grpc.Channel, router_id: str, spec: RouterSpec) -> None:
    registry = registry_grpc.RegistryServiceStub(channel)
    registry.CreateRouter(
        registry_pb.CreateRouterRequest(router_id=router_id, router=router_spec_to_proto(spec)),
        timeout=_DEADLINE_SECONDS,
    )
    for model in file.models:
        registry.CreateModel(
            registry_pb.CreateModelRequest(parent=f"routers/{router_id}", model_id=model),
            timeout=_DEADLINE_SECONDS,
        )


def _play_row(
    file: ReplayFile, routers: router_grpc.RouterServiceStub, request: router_pb.RouteRequest, row: int
) -> str:
    decision = routers.Route(request, timeout=_DEADLINE_SECONDS)
    outcome = file.rows[row].outcomes.get(decision.model)
    if outcome is None:
        raise TargetError(f"{request.router} chose {decision.model}, of which the file has no outcomes")
    report = router_pb.ReportRewardRequest(
        decision_id=decision.decision_id,
        report_id="replay",
        reward=outcome.quality,
        usage=router_pb.Usage(
            input_tokens=outcome.input_tokens,
            output_tokens=outcome.output_tokens,
            cost_usd=outcome.cost_usd,
        ),
    )
    routers.ReportReward(report, timeout=_DEADLINE_SECONDS)
    return decision.model
