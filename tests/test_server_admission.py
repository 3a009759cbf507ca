"""A key gets its burst, then its rate, and never more at once than it may."""

from __future__ import annotations

from contextlib import ExitStack, suppress

import pytest

from server.admission import Admission
from server.errors import LimitExceededError
from server.keys import ApiKey, Scope


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def key(key_id: str = "a", **limits: float) -> ApiKey:
    return ApiKey(key_id, "", b"", frozenset(Scope), 0, **limits)


def ask(admission: Admission, who: ApiKey) -> LimitExceededError | None:
    try:
        with admission.request(who):
            return None
    except LimitExceededError as refusal:
        return refusal


def test_a_burst_passes_and_then_one_each_interval() -> None:
    clock = Clock()
    admission, who = Admission(clock), key(requests_per_second=2.0, burst=3)
    assert [ask(admission, who) is None for _ in range(4)] == [True, True, True, False]
    refusal = ask(admission, who)
    assert refusal is not None
    assert (refusal.reason, refusal.retry_seconds) == ("RATE_LIMITED", 0.5)
    clock.seconds += refusal.retry_seconds
    assert ask(admission, who) is None
    assert ask(admission, who) is not None
    clock.seconds += 1000.0
    assert [ask(admission, who) is None for _ in range(4)] == [True, True, True, False]


def test_over_a_long_time_the_rate_is_kept_exactly() -> None:
    clock = Clock()
    admission, who = Admission(clock), key(requests_per_second=5.0)
    passed = 0
    for _ in range(10_000):
        clock.seconds += 0.01
        passed += ask(admission, who) is None
    assert abs(passed - (5 * 100 + 5)) <= 1


def test_less_than_one_a_second_is_a_rate_too() -> None:
    clock = Clock()
    admission, who = Admission(clock), key(requests_per_second=0.1)
    assert ask(admission, who) is None
    refusal = ask(admission, who)
    assert refusal is not None
    assert refusal.retry_seconds == pytest.approx(10.0)
    clock.seconds += 10.0
    assert ask(admission, who) is None


def test_what_is_in_flight_counts_until_it_is_over_however_it_ends() -> None:
    admission, who = Admission(Clock()), key(concurrent_max=2)
    with ExitStack() as first:
        first.enter_context(admission.request(who))
        with suppress(ZeroDivisionError), admission.request(who):
            refusal = ask(admission, who)
            assert refusal is not None
            assert refusal.reason == "CONCURRENCY_LIMITED"
            raise ZeroDivisionError
        assert ask(admission, who) is None
    assert ask(admission, who) is None


def test_what_is_refused_for_being_too_many_at_once_takes_nothing_from_the_rate() -> None:
    admission, who = Admission(Clock()), key(concurrent_max=1, requests_per_second=2.0)
    with admission.request(who):
        assert all(ask(admission, who) is not None for _ in range(5))
    assert ask(admission, who) is None


def test_keys_do_not_share_and_one_without_limits_has_none() -> None:
    admission = Admission(Clock())
    assert ask(admission, key("a", requests_per_second=1.0)) is None
    assert ask(admission, key("a", requests_per_second=1.0)) is not None
    assert ask(admission, key("b", requests_per_second=1.0)) is None
    assert all(ask(admission, key("c")) is None for _ in range(100))
