"""What came of a call, from the wire: usage, errors and times, as reports and imported decisions have them."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp
from pointsman.v1 import router_service_pb2 as pb

from policy.domain import InvalidFieldError, ModelError
from policy.log import Usage
from server.services.times import time_us_of

_ERRORS = {pb.ModelError.Value(f"MODEL_ERROR_{each.name}"): each for each in ModelError}
ERROR_VALUES = {each: value for value, each in _ERRORS.items()}
"""The errors on the wire."""


def usage_of(message: pb.Usage) -> Usage:
    """What a call used."""
    return Usage(
        message.input_tokens,
        message.output_tokens,
        message.cost_usd if message.HasField("cost_usd") else None,
        message.cached_input_tokens,
    )


def error_of(value: pb.ModelError.ValueType) -> ModelError | None:
    """Why a call failed, None if it did not. Raises InvalidFieldError for a value that is none."""
    if value and value not in _ERRORS:
        raise InvalidFieldError("error", f"must be a MODEL_ERROR value, not {value}")
    return _ERRORS[value] if value else None


def event_time_us_of(time: Timestamp) -> int:
    """Microseconds since 1970. Raises InvalidFieldError."""
    return time_us_of("event_time", time)
