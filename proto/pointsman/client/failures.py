"""What failed: of a model's call, in the words of the reports; of a call to Pointsman, as an exception."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any, Literal, TypeAlias

import grpc
from google.rpc import error_details_pb2, status_pb2

from pointsman.v1 import router_service_pb2 as pb

ModelFailure: TypeAlias = Literal["UNAVAILABLE", "TIMEOUT", "RATE_LIMITED", "REFUSED", "INVALID_OUTPUT"]
"""Why a model's call failed: the ModelError of the protos without its prefix."""

_BY_STATUS: dict[int, ModelFailure] = {
    401: "UNAVAILABLE",  # the provider's key is no good: whoever asks, this model will not answer
    402: "UNAVAILABLE",
    403: "UNAVAILABLE",
    404: "UNAVAILABLE",
    408: "TIMEOUT",
    429: "RATE_LIMITED",
    504: "TIMEOUT",
}
_BY_NAME: dict[str, ModelFailure] = {
    # openai, anthropic, litellm
    "APITimeoutError": "TIMEOUT",
    "Timeout": "TIMEOUT",
    "RateLimitError": "RATE_LIMITED",
    "APIConnectionError": "UNAVAILABLE",
    "ServiceUnavailableError": "UNAVAILABLE",
    "InternalServerError": "UNAVAILABLE",
    "ContentPolicyViolationError": "REFUSED",
    "ContentFilterFinishReasonError": "REFUSED",
    "ContextWindowExceededError": "REFUSED",
    "LengthFinishReasonError": "INVALID_OUTPUT",
    "JSONSchemaValidationError": "INVALID_OUTPUT",
    "APIResponseValidationError": "INVALID_OUTPUT",
    # httpx, httpcore, requests, aiohttp, urllib3
    "TimeoutException": "TIMEOUT",
    "NetworkError": "UNAVAILABLE",
    "RemoteProtocolError": "UNAVAILABLE",
    "ClientConnectionError": "UNAVAILABLE",
    # pydantic
    "ValidationError": "INVALID_OUTPUT",
}
_BY_CODE: dict[str, ModelFailure] = {"content_filter": "REFUSED", "context_length_exceeded": "REFUSED"}
_BY_GRPC: dict[grpc.StatusCode, ModelFailure] = {
    grpc.StatusCode.UNAVAILABLE: "UNAVAILABLE",
    grpc.StatusCode.INTERNAL: "UNAVAILABLE",
    grpc.StatusCode.DEADLINE_EXCEEDED: "TIMEOUT",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "RATE_LIMITED",
}


def model_failure(error: BaseException) -> ModelFailure | None:
    """What an exception of a model's call says of the model; None where it says nothing of it.

    None are a bug in the calling code, a request that the provider calls bad (400, 413, 422), and a cancellation:
    the model may be in the best of health.
    """
    for each in _with_causes(error):
        found = _failure_of(each)
        if found is not None:
            return found
    return None


def _with_causes(error: BaseException) -> Iterator[BaseException]:
    """The exception and what it was raised from, to a bound."""
    each: BaseException | None = error
    for _ in range(8):
        if each is None:
            return
        yield each
        each = each.__cause__


def _failure_of(error: BaseException) -> ModelFailure | None:
    if isinstance(error, asyncio.CancelledError) or not isinstance(error, Exception):
        return None
    code = getattr(error, "code", None)
    if isinstance(code, str) and code in _BY_CODE:
        return _BY_CODE[code]
    for kind in type(error).__mro__:
        if kind.__name__ in _BY_NAME:
            return _BY_NAME[kind.__name__]
    status = _http_status(error)
    if status is not None:
        return _BY_STATUS.get(status) or ("UNAVAILABLE" if status >= 500 else None)
    if isinstance(error, grpc.RpcError) and callable(code):
        return _BY_GRPC.get(code())
    if isinstance(error, TimeoutError):
        return "TIMEOUT"
    if isinstance(error, ConnectionError):
        return "UNAVAILABLE"
    return "INVALID_OUTPUT" if isinstance(error, json.JSONDecodeError) else None


def _http_status(error: BaseException) -> int | None:
    response = getattr(error, "response", None)
    for holder, name in ((error, "status_code"), (error, "status"), (response, "status_code")):
        value = getattr(holder, name, None)
        if isinstance(value, int) and 100 <= value < 600:
            return value
    return None


def error_value(failure: ModelFailure) -> pb.ModelError.ValueType:
    """The failure on the wire. Raises ValueError for a word that is none."""
    return pb.ModelError.Value(f"MODEL_ERROR_{failure}")


class RouteError(Exception):
    """Pointsman gave no decision, and there was no default model to go on with.

    `code` is the canonical status, `reason` and `metadata` are of its google.rpc.ErrorInfo, `fields` what its
    google.rpc.BadRequest says is wrong, by the field.
    """

    def __init__(self, code: grpc.StatusCode, message: str, details: bytes = b"") -> None:
        super().__init__(f"{code.name}: {message}")
        self.code = code
        self.message = message
        self.reason = ""
        self.metadata: dict[str, str] = {}
        self.fields: dict[str, str] = {}
        info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        for detail in status_pb2.Status.FromString(details).details:
            if detail.Unpack(info):
                self.reason, self.metadata = info.reason, dict(info.metadata)
            elif detail.Unpack(bad):
                self.fields = {each.field: each.description for each in bad.field_violations}

    @classmethod
    def of(cls, error: grpc.RpcError) -> RouteError:
        """What a failed call says, of either kind of channel."""
        call: Any = error
        for name, value in call.trailing_metadata() or ():
            if name == "grpc-status-details-bin":
                return cls(call.code(), call.details() or "", value)
        return cls(call.code(), call.details() or "")

    @property
    def is_the_callers(self) -> bool:
        """Whether the request is at fault, rather than the server or the way there.

        A default would hide the mistake, or break a limit that the caller set.
        """
        return self.code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION)
