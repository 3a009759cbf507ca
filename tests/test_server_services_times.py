"""Times and durations go over the wire and back without loss."""

from __future__ import annotations

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from server.services.times import duration, seconds, timestamp

FIRST_US = -62_135_596_800_000_000
LAST_US = 253_402_300_799_999_999
DAY_SECONDS = 86_400
NANOS = 1_000_000_000


def test_a_time_is_told_to_the_microsecond() -> None:
    assert timestamp(1_700_000_000_123_456).ToJsonString() == "2023-11-14T22:13:20.123456Z"


def test_time_zero_is_1970() -> None:
    assert timestamp(0) == Timestamp()


def test_a_time_before_1970_has_nanos_that_count_forward() -> None:
    assert timestamp(-1) == Timestamp(seconds=-1, nanos=999_999_000)


@pytest.mark.parametrize(
    ("time_us", "text"),
    [(FIRST_US, "0001-01-01T00:00:00Z"), (LAST_US, "9999-12-31T23:59:59.999999Z")],
)
def test_the_first_and_the_last_time_of_the_wire_can_be_told(time_us: int, text: str) -> None:
    assert timestamp(time_us).ToJsonString() == text


@given(st.integers(FIRST_US, LAST_US))
def test_every_time_comes_back_exactly(time_us: int) -> None:
    message = timestamp(time_us)
    assert 0 <= message.nanos < NANOS
    assert message.ToMicroseconds() == time_us


@given(st.integers(FIRST_US, LAST_US), st.integers(FIRST_US, LAST_US))
def test_times_keep_their_order(one_us: int, other_us: int) -> None:
    one, other = timestamp(one_us), timestamp(other_us)
    assert ((one.seconds, one.nanos) < (other.seconds, other.nanos)) == (one_us < other_us)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (Duration(), 0.0),
        (Duration(seconds=3), 3.0),
        (Duration(nanos=250_000_000), 0.25),
        (Duration(seconds=DAY_SECONDS, nanos=500_000_000), 86_400.5),
        (Duration(seconds=-1, nanos=-500_000_000), -1.5),
    ],
)
def test_a_duration_is_read_in_seconds(message: Duration, expected: float) -> None:
    assert seconds(message) == expected
    assert duration(expected) == message


def test_the_shortest_duration_is_a_nanosecond() -> None:
    assert duration(1e-9) == Duration(nanos=1)
    assert duration(0.4e-9) == Duration()
    assert seconds(Duration(nanos=1)) == 1e-9


def test_a_duration_is_rounded_to_the_nearest_nanosecond() -> None:
    assert duration(1.9999999996) == Duration(seconds=2)
    assert duration(0.1 + 0.2) == Duration(nanos=300_000_000)


def test_a_duration_below_zero_has_both_parts_below_zero() -> None:
    assert duration(-1.5) == Duration(seconds=-1, nanos=-500_000_000)
    assert duration(-0.5) == Duration(nanos=-500_000_000)


@given(st.integers(0, DAY_SECONDS), st.integers(0, NANOS - 1))
def test_a_duration_of_up_to_a_day_comes_back_to_the_nanosecond(whole: int, nanos: int) -> None:
    message = Duration(seconds=whole, nanos=nanos)
    assert duration(seconds(message)) == message


@given(st.floats(-1e9, 1e9))
def test_seconds_come_back_as_near_as_a_nanosecond(value_seconds: float) -> None:
    assert seconds(duration(value_seconds)) == pytest.approx(value_seconds, rel=1e-15, abs=1e-9)


def test_whole_milliseconds_come_back_as_the_same_float() -> None:
    milliseconds = [each / 1000 for each in range(1000)]
    assert [seconds(duration(each)) for each in milliseconds] == milliseconds
