"""The Connect protocol, so far as it is served: unary calls in JSON. https://connectrpc.com/docs/protocol"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf import json_format
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from policy.domain import InvalidFieldError
from server.services.status import to_status

CONTENT_TYPE = b"application/json"

_ERROR_DETAILS = error_details_pb2.DESCRIPTOR  # Read for its side effect: details are named by their types.
_HTTP_STATUS: Mapping[int, int] = {
    code_pb2.CANCELLED: 499,
    code_pb2.UNKNOWN: 500,
    code_pb2.INVALID_ARGUMENT: 400,
    code_pb2.DEADLINE_EXCEEDED: 504,
    code_pb2.NOT_FOUND: 404,
    code_pb2.ALREADY_EXISTS: 409,
    code_pb2.PERMISSION_DENIED: 403,
    code_pb2.RESOURCE_EXHAUSTED: 429,
    code_pb2.FAILED_PRECONDITION: 400,
    code_pb2.ABORTED: 409,
    code_pb2.OUT_OF_RANGE: 400,
    code_pb2.UNIMPLEMENTED: 501,
    code_pb2.INTERNAL: 500,
    code_pb2.UNAVAILABLE: 503,
    code_pb2.DATA_LOSS: 500,
    code_pb2.UNAUTHENTICATED: 401,
}
_TIMEOUT = re.compile(r"[0-9]{1,10}\Z")
_AT_FAULT = re.compile(r'has no field named "([^"]{1,100})"|[Ff]ailed to parse ([A-Za-z_0-9]{1,100}) field')
_AVAILABLE = " Available Fields(except extensions): "


@dataclass(frozen=True, slots=True)
class Method:
    """A method that is served: `path` is its name to gRPC and its path to HTTP alike."""

    path: str
    request: type[Message]
    response: type[Message]
    streams: bool


def methods_of(services: Iterable[Any]) -> dict[str, Method]:
    """The methods of services, given by their descriptors, by path."""
    found = [_method(service, each) for service in services for each in service.methods]
    return {each.path: each for each in found}


def _method(service: Any, method: MethodDescriptor) -> Method:
    return Method(
        f"/{service.full_name}/{method.name}",
        GetMessageClass(method.input_type),
        GetMessageClass(method.output_type),
        bool(method.client_streaming or method.server_streaming),
    )


def timeout_seconds(text: str) -> float | None:
    """The deadline of a connect-timeout-ms; None without one. Raises InvalidFieldError."""
    if not text:
        return None
    if not _TIMEOUT.match(text):
        raise InvalidFieldError(
            "connect-timeout-ms", "must be a whole number of milliseconds, of 10 digits at most"
        )
    return int(text) / 1000.0


def to_proto(method: Method, body: bytes) -> bytes:
    """The request in JSON as the message that gRPC takes. Raises InvalidFieldError naming the field."""
    message = method.request()
    # A list would pass as a message without fields.
    if not body.lstrip().startswith(b"{"):
        raise InvalidFieldError("request", "is no object in JSON: send {} at least")
    try:
        json_format.Parse(body.decode(), message)
        return message.SerializeToString()
    except UnicodeError as error:
        raise InvalidFieldError("request", "is not text in UTF-8") from error
    except json_format.ParseError as error:
        raise _misread(str(error)) from error
    except (RecursionError, ValueError, TypeError, AttributeError) as error:
        raise InvalidFieldError("request", f"is not a {method.request.DESCRIPTOR.full_name} in JSON") from error


def _misread(told: str) -> InvalidFieldError:
    at_fault = _AT_FAULT.search(told)
    field = next(filter(None, at_fault.groups())) if at_fault else "request"
    unknown = at_fault is not None and at_fault.group(1) is not None
    if unknown and _AVAILABLE in told:
        names = told.partition(_AVAILABLE)[2].strip(' []"').replace("'", "")
        return InvalidFieldError(field, f"is no field here; there are {names}")
    return InvalidFieldError(field, told)


def to_json(method: Method, data: bytes) -> bytes:
    """A response of gRPC in JSON; fields that are at their defaults are left out, as everywhere in proto3."""
    return _dumped(json_format.MessageToDict(method.response.FromString(data)))


def failed(error: grpc.aio.AioRpcError) -> tuple[int, bytes]:
    """The HTTP status and the JSON of a call that gRPC has answered with an error."""
    try:
        told = rpc_status.from_call(error)  # type: ignore[arg-type]
    except (ValueError, DecodeError):
        told = None
    if told is None:
        code = error.code().value[0]
        told = status_pb2.Status(code=code, message=error.details() or "")
    return _failure(told)


def refused(error: Exception) -> tuple[int, bytes]:
    """The HTTP status and the JSON of a call that does not get as far as gRPC."""
    return _failure(to_status(error))


def unimplemented(message: str) -> tuple[int, bytes]:
    """The same of one that is not served here."""
    return _failure(status_pb2.Status(code=code_pb2.UNIMPLEMENTED, message=message))


def cut_off(message: str) -> tuple[int, bytes]:
    """The same of one whose deadline is over."""
    return _failure(status_pb2.Status(code=code_pb2.DEADLINE_EXCEEDED, message=message))


def _failure(status: status_pb2.Status) -> tuple[int, bytes]:
    code = "canceled" if status.code == code_pb2.CANCELLED else code_pb2.Code.Name(status.code).lower()
    answer: dict[str, Any] = {"code": code, "message": status.message}
    if status.details:
        answer["details"] = [_detail(each) for each in status.details]
    return _HTTP_STATUS.get(status.code, 500), _dumped(answer)


def _detail(packed: Any) -> dict[str, Any]:
    """The type, the bytes for programs, and for people the same in JSON."""
    debug = json_format.MessageToDict(packed)
    debug.pop("@type", None)
    return {
        "type": packed.type_url.rpartition("/")[2],
        "value": base64.b64encode(packed.value).decode().rstrip("="),
        "debug": debug,
    }


def _dumped(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
