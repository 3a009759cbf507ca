"""Calls every method of a server with bytes as they are, and says what is wrong with an answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.descriptor import Descriptor, MethodDescriptor
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from grpc_status import rpc_status
from pointsman.v1 import policy_service_pb2, registry_service_pb2, router_service_pb2

_SECONDS_MAX = 30.0
_HEALTH = "/grpc.health.v1.Health/"
_DOCUMENTED = frozenset(
    {
        *("OK", "INVALID_ARGUMENT", "NOT_FOUND", "ALREADY_EXISTS", "FAILED_PRECONDITION", "ABORTED"),
        *("RESOURCE_EXHAUSTED", "UNAVAILABLE"),
    }
)
# Those of other services, of which docs/calls.md tells.
_DOCUMENTED_ELSEWHERE: Mapping[str, frozenset[str]] = {
    "/grpc.health.v1.Health/Check": frozenset({"OK", "NOT_FOUND", "INVALID_ARGUMENT"}),
    "/grpc.health.v1.Health/List": frozenset({"OK", "INVALID_ARGUMENT"}),
    "/grpc.health.v1.Health/Watch": frozenset({"OK", "INVALID_ARGUMENT"}),
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": frozenset({"OK", "INVALID_ARGUMENT"}),
}
# Where nothing is wrong with the server.
_UNAVAILABLE = frozenset({"EVALUATION_UNAVAILABLE"})


@dataclass(frozen=True, slots=True)
class Method:
    """A method by its path."""

    path: str
    request: Descriptor
    takes_stream: bool
    gives_stream: bool


def methods() -> list[Method]:
    """All that are served."""
    files = (
        *(router_service_pb2, registry_service_pb2, policy_service_pb2),
        *(health_pb2, reflection_pb2),
    )
    return [
        _method(service.full_name, each)
        for file in files
        for service in file.DESCRIPTOR.services_by_name.values()
        for each in service.methods
    ]


def _method(service: str, method: MethodDescriptor) -> Method:
    return Method(f"/{service}/{method.name}", method.input_type, method.client_streaming, method.server_streaming)


@dataclass(frozen=True, slots=True)
class Answer:
    """The code's name, and what is wrong with the answer, empty if nothing is."""

    code: str
    fault: str = ""


def called(channel: grpc.Channel, method: Method, sent: Sequence[bytes]) -> Answer:
    """What the server answers; `sent` is one message where the method takes one."""
    try:
        _exchange(channel, method, sent)
    except grpc.RpcError as error:
        return _judged(method, error)
    return Answer("OK")


def _exchange(channel: Any, method: Method, sent: Sequence[bytes]) -> None:
    if method.takes_stream and method.gives_stream:
        call = channel.stream_stream(method.path)(iter(sent), timeout=_SECONDS_MAX)
        _take(call)
    elif method.takes_stream:
        channel.stream_unary(method.path)(iter(sent), timeout=_SECONDS_MAX)
    elif method.gives_stream:
        _take(channel.unary_stream(method.path)(sent[0], timeout=_SECONDS_MAX))
    else:
        channel.unary_unary(method.path)(sent[0], timeout=_SECONDS_MAX)


def _take(call: Any) -> None:
    """The first answer of a stream, which may have no end."""
    next(call, None)
    call.cancel()


def _judged(method: Method, error: Any) -> Answer:
    code: str = error.code().name
    if code not in _DOCUMENTED_ELSEWHERE.get(method.path, _DOCUMENTED):
        return Answer(code, f"{code} is not documented: {error.details()}")
    if code == "NOT_FOUND" and method.path.startswith(_HEALTH):
        # The one answer that is grpcio's own, without details.
        return Answer(code)
    status = rpc_status.from_call(error)
    if status is None:
        return Answer(code, f"{code} comes without details: {error.details()}")
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for detail in status.details:
        detail.Unpack(info)
        detail.Unpack(bad)
    if info.domain != "pointsman" or not info.reason:
        return Answer(code, f"{code} has no reason of ours: {info}")
    if code == "INVALID_ARGUMENT" and not (bad.field_violations and bad.field_violations[0].field):
        return Answer(code, f"INVALID_ARGUMENT names no field: {status.message}")
    if code == "UNAVAILABLE" and info.reason not in _UNAVAILABLE:
        return Answer(code, f"UNAVAILABLE, {info.reason}, though nothing is away")
    return Answer(code)
