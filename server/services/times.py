"""Times and durations on the wire."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from policy.domain import InvalidFieldError


def timestamp(time_us: int) -> Timestamp:
    """Microseconds since 1970 as a Timestamp."""
    return Timestamp(seconds=time_us // 1_000_000, nanos=time_us % 1_000_000 * 1000)


def time_us_of(field: str, time: Timestamp) -> int:
    """A Timestamp of this field in microseconds since 1970. Raises InvalidFieldError."""
    if not 0 <= time.nanos < 1_000_000_000 or not 0 <= time.seconds < 253_402_300_800:
        raise InvalidFieldError(field, "must be a time between 1970 and 9999")
    return time.seconds * 1_000_000 + time.nanos // 1000


def seconds(duration: Duration) -> float:
    """A Duration in seconds."""
    return float(duration.seconds) + duration.nanos / 1e9


def duration(value_seconds: float) -> Duration:
    """Seconds as a Duration."""
    message = Duration()
    message.FromNanoseconds(round(value_seconds * 1e9))
    return message
