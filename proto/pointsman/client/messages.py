"""Requests to the server, made from Python's words."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, TypedDict

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from pointsman.client.failures import ModelFailure, error_value
from pointsman.client.usage import Usage
from pointsman.v1 import router_service_pb2 as pb

_PROMPT_BYTES_MAX = 1 << 20
_CHARACTERS_PER_TOKEN = 4


class RouteOptions(TypedDict, total=False):
    """What `route` takes beside the prompt: the fields of RouteRequest, flat. All may be left out."""

    router: str
    """Which router decides: "routers/support", or "support". The client's own if left out."""
    request_id: str
    """The same id gets the same decision again. Made by the client if left out."""
    embedding: Sequence[float]
    """Instead of the text's."""
    numeric_features: Mapping[str, float]
    categorical_features: Mapping[str, str]
    allowed_models: Sequence[str]
    denied_models: Sequence[str]
    required_capabilities: Sequence[str]
    max_cost_usd: float
    max_latency_seconds: float
    quality_value_usd: float
    """USD that quality going from 0 to 1 is worth on this request."""
    latency_usd_per_second: float
    exploit_only: bool
    input_tokens: int
    max_output_tokens: int
    session_id: str
    incumbent_model: str
    """What the caller's own rule would call."""
    defer_activation: bool
    """Asked ahead, perhaps never used: it counts only once something is reported of it."""


class ReportOptions(TypedDict, total=False):
    """What `report` takes beside the decision's id: the fields of ReportRewardRequest. At least one of the first
    five says something.
    """

    reward: float
    """Quality of the answer, in [0, 1]. Cost is never part of it."""
    signals: Mapping[str, float]
    usage: Usage
    latency_seconds: float
    error: ModelFailure
    served_model: str
    """The model that it is about, if not the chosen one."""
    report_id: str
    """The same id counts once. Made by the client if left out."""
    event_time: datetime
    """When it happened, if not now."""
    second: bool
    """Whether it is about the call of the decision's `second_model`."""


def new_id() -> str:
    """An id that nobody else makes."""
    return uuid.uuid4().hex


def route_request(prompt: str, given: RouteOptions) -> pb.RouteRequest:
    """Raises TypeError or ValueError for a value of the wrong type, and TypeError for a word that is none.

    A text that is longer than the server takes is cut; its cost is that of the whole.
    """
    text, length = _bounded(prompt)
    fields: dict[str, Any] = {**given}
    request = pb.RouteRequest(prompt=text, request_id=new_id())
    if length > len(text) and not fields.get("input_tokens"):
        request.input_tokens = length // _CHARACTERS_PER_TOKEN
    _move(fields, request.constraints, "allowed_models", "denied_models", "required_capabilities", "max_cost_usd")
    _move(fields, request.preference, "quality_value_usd", "latency_usd_per_second", "exploit_only")
    max_latency_seconds = fields.pop("max_latency_seconds", None)
    if max_latency_seconds is not None:
        request.constraints.max_latency.CopyFrom(_duration(max_latency_seconds))
    router = fields.pop("router", None)
    if router:
        fields["router"] = _router_name(router)
    _require_words(fields, RouteOptions)
    request.MergeFrom(pb.RouteRequest(**{name: value for name, value in fields.items() if value is not None}))
    return request


def report_request(decision_id: str, given: ReportOptions) -> pb.ReportRewardRequest:
    """Raises TypeError or ValueError, as `route_request` does."""
    fields: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    request = pb.ReportRewardRequest(decision_id=decision_id, report_id=new_id())
    usage, latency_seconds = given.get("usage"), given.get("latency_seconds")
    error, event_time = given.get("error"), given.get("event_time")
    for name in ("usage", "latency_seconds", "error", "event_time"):
        fields.pop(name, None)
    if usage is not None:
        request.usage.CopyFrom(
            pb.Usage(
                input_tokens=usage.input_tokens,
                output_tokens=usage.output_tokens,
                cached_input_tokens=usage.cached_input_tokens,
                cost_usd=usage.cost_usd,
            )
        )
    if latency_seconds is not None:
        request.latency.CopyFrom(_duration(latency_seconds))
    if error is not None:
        request.error = error_value(error)
    if event_time is not None:
        request.event_time.CopyFrom(_timestamp(event_time))
    _require_words(fields, ReportOptions)
    request.MergeFrom(pb.ReportRewardRequest(**fields))
    return request


def _bounded(prompt: str) -> tuple[str, int]:
    """The text as far as the server takes it, and its whole length in characters."""
    data = prompt.encode("utf-8", "replace")
    return data[:_PROMPT_BYTES_MAX].decode("utf-8", "ignore"), len(prompt)


def _router_name(router: str) -> str:
    return router if router.startswith("routers/") else f"routers/{router}"


def _move(fields: dict[str, Any], message: Any, *names: str) -> None:
    """Takes what is given of these fields into the message."""
    mine = {name: value for name in names if (value := fields.pop(name, None)) is not None}
    if mine:
        message.MergeFrom(type(message)(**mine))


def _require_words(fields: Mapping[str, object], known: type) -> None:
    """Raises TypeError for a word that is none, as a call with an unknown argument does."""
    for name in fields:
        if name not in known.__annotations__:
            raise TypeError(f"there is no argument {name!r}; there are {', '.join(sorted(known.__annotations__))}")


def _duration(seconds: float) -> Duration:
    message = Duration()
    message.FromTimedelta(timedelta(seconds=seconds))
    return message


def _timestamp(time: datetime) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(time)
    return message
