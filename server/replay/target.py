"""Plays a replay file through a running server, route by route and report by report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

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


def play_target(file: ReplayFile, channel: grpc.Channel, name: str) -> Play:
    """Plays against the server behind `channel`, each run in a new router NAME-1, NAME-2, ... that is left there.

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
        return _play(file, channel, f"{name}-{count}", spec, order)

    return play


def _play(
    file: ReplayFile, channel: grpc.Channel, router_id: str, spec: RouterSpec, order: Sequence[int]
) -> Iterator[str]:
    routers = router_grpc.RouterServiceStub(channel)
    try:
        _create_router(file, channel, router_id, spec)
        for row in order:
            yield _play_row(file, routers, f"routers/{router_id}", row)
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


def _play_row(file: ReplayFile, routers: router_grpc.RouterServiceStub, router: str, row: int) -> str:
    decision = routers.Route(
        router_pb.RouteRequest(router=router, prompt=file.rows[row].prompt), timeout=_DEADLINE_SECONDS
    )
    outcome = file.rows[row].outcomes[decision.model]
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
