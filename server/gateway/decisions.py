"""Pointsman as the gateway meets it: the calls, how long they may take, and what their failures mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from pointsman.client import Connection
from pointsman.v1 import registry_service_pb2 as registry_pb
from pointsman.v1 import router_service_pb2 as pb
from pointsman.v1.registry_service_pb2_grpc import RegistryServiceStub
from pointsman.v1.router_service_pb2_grpc import RouterServiceStub

from server.gateway.problems import ApiError
from server.gateway.traces import trace_metadata

REPORT_SECONDS = 10.0

_LOOK_SECONDS = 2.0
_PAGE = 1000
_Code = grpc.StatusCode
_THE_CALLERS = {_Code.INVALID_ARGUMENT: 400, _Code.NOT_FOUND: 404, _Code.FAILED_PRECONDITION: 400}
# As the client wrote it, where it was not a header.
_FIELDS = {
    "constraints.allowed_models": "allowed_models",
    "constraints.denied_models": "denied_models",
    "constraints.required_capabilities": "required_capabilities",
    "constraints.max_cost_usd": "max_cost_usd",
    "constraints.max_latency": "max_latency",
    "preference.quality_value_usd": "quality_value_usd",
    "preference.latency_usd_per_second": "latency_usd_per_second",
}


class PointsmanAwayError(Exception):
    """Pointsman gave no decision, through no fault of the request."""


class Pointsman:
    """The calls of the contract that the gateway makes."""

    def __init__(self, connection: Connection, route_seconds: float) -> None:
        # No retries: a default model that answers at once is worth more than a decision a little later.
        self._channel = connection.aio_channel(retries=False)
        self._route_seconds = route_seconds
        self._metadata = connection.metadata
        self._router = RouterServiceStub(self._channel)
        self._registry = RegistryServiceStub(self._channel)

    async def close(self) -> None:
        """Closes the channel."""
        await self._channel.close()

    async def route(self, request: pb.RouteRequest) -> pb.RouteResponse:
        """Raises ApiError if the request is at fault, PointsmanAwayError for whatever else goes wrong."""
        metadata = (*self._metadata, *trace_metadata())
        try:
            return await self._router.Route(request, timeout=self._route_seconds, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            if error.code() in _THE_CALLERS:
                raise _refusal(error) from error
            raise PointsmanAwayError(error.code().name) from error

    async def activate(self, decision_id: str) -> None:
        """Makes a deferred decision count. Raises grpc.aio.AioRpcError."""
        request = pb.ActivateDecisionRequest(decision_id=decision_id)
        await self._router.ActivateDecision(request, timeout=REPORT_SECONDS, metadata=self._metadata)

    async def report(self, report: pb.ReportRewardRequest) -> str:
        """The disposition: RECORDED, DUPLICATE or LATE. Raises ApiError."""
        try:
            answer = await self._router.ReportReward(report, timeout=REPORT_SECONDS, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            if error.code() in _THE_CALLERS:
                raise _refusal(error) from error
            raise _away(error) from error
        return pb.Disposition.Name(answer.disposition).removeprefix("DISPOSITION_")

    async def report_batch(self, reports: Sequence[pb.ReportRewardRequest]) -> Sequence[pb.ReportResult]:
        """One result for each. Raises grpc.aio.AioRpcError."""
        request = pb.BatchReportRewardsRequest(requests=reports)
        answer = await self._router.BatchReportRewards(request, timeout=REPORT_SECONDS, metadata=self._metadata)
        return list(answer.results)

    async def decision(self, decision_id: str) -> pb.Decision:
        """Raises ApiError."""
        request = pb.GetDecisionRequest(decision_id=decision_id)
        try:
            answer = await self._router.GetDecision(request, timeout=REPORT_SECONDS, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            if error.code() in _THE_CALLERS:
                raise _refusal(error) from error
            raise _away(error) from error
        return answer.decision

    async def names(self, router: str) -> tuple[list[str], list[str]]:
        """The routers' ids, and the ids of the models of the given one. Raises PointsmanAwayError."""
        try:
            routers = await self._registry.ListRouters(
                registry_pb.ListRoutersRequest(page_size=_PAGE), timeout=_LOOK_SECONDS, metadata=self._metadata
            )
            models = await self._registry.ListModels(
                registry_pb.ListModelsRequest(parent=router, page_size=_PAGE),
                timeout=_LOOK_SECONDS,
                metadata=self._metadata,
            )
        except grpc.aio.AioRpcError as error:
            raise PointsmanAwayError(error.code().name) from error
        return (
            [each.name.removeprefix("routers/") for each in routers.routers],
            [each.name.rpartition("/")[2] for each in models.models],
        )


def _refusal(error: grpc.aio.AioRpcError) -> ApiError:
    """What Pointsman refuses, in OpenAI's form: its reason, the field, and each model's reason."""
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    call: Any = error
    status: Any = rpc_status.from_call(call)
    for detail in status.details if status is not None else ():
        detail.Unpack(info)
        detail.Unpack(bad)
    message = error.details() or error.code().name
    param = next((_FIELDS.get(each.field, each.field) for each in bad.field_violations), None)
    if info.reason == "NO_ELIGIBLE_MODEL":
        message += ": " + "; ".join(f"{model}: {why}" for model, why in sorted(info.metadata.items()))
    if info.reason in ("MODEL_NOT_FOUND", "ROUTER_NOT_FOUND"):
        return ApiError(404, message, code="model_not_found", param=param or "model")
    return ApiError(_THE_CALLERS[error.code()], message, code=info.reason.lower() or None, param=param)


def _away(error: grpc.aio.AioRpcError) -> ApiError:
    return ApiError(
        503,
        f"Pointsman answers {error.code().name}: try again",
        code="pointsman_away",
        headers={"retry-after": "1"},
    )
