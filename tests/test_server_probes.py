"""One probe at a time, between two views of the learner too, and over gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import grpc
import pytest
from clocks import Machine
from engines import SQLITE
from pointsman.v1 import router_service_pb2 as pb
from servers import Running, eventually, refusal, running_app, storing_no_decisions
from test_storage_away import locked

from policy.circuit import BACK_OFF_US, FAILURES_TO_OPEN, PROBE_US
from policy.features import Featuriser
from server.audit import audit
from server.probes import Probes
from server.storage.engine import open_engine
from server.storage.reader import LogReader

KEYS = frozenset({"a#1"})


def test_a_probe_is_in_flight_until_a_view_knows_of_its_decision() -> None:
    probes = Probes()
    probe = probes.begin(1, "a#1", 0)
    assert probes.in_flight(1, 10**9, 1) == KEYS
    probe.seq = 50
    assert [probes.in_flight(1, each, 1) for each in (49, 50)] == [KEYS, frozenset()]


def test_a_probe_of_which_nothing_becomes_known_stops_counting() -> None:
    probes = Probes()
    probes.begin(1, "a#1", 0)
    assert [probes.in_flight(1, 0, each) for each in (PROBE_US - 1, PROBE_US)] == [KEYS, frozenset()]


def test_a_probe_that_was_not_stored_is_put_back_and_only_by_who_began_it() -> None:
    probes = Probes()
    first = probes.begin(1, "a#1", 0)
    second = probes.begin(1, "a#1", 5)
    probes.end(1, "a#1", first)
    assert probes.in_flight(1, 0, 6) == KEYS
    probes.end(1, "a#1", second)
    assert probes.in_flight(1, 0, 6) == frozenset()


def test_probes_of_two_routers_are_apart() -> None:
    probes = Probes()
    probes.begin(1, "a#1", 0)
    assert probes.in_flight(2, 0, 1) == frozenset()


@pytest.fixture
def clock() -> Machine:
    return Machine()


@pytest.fixture
async def running(clock: Machine, url: str, featuriser: Featuriser) -> AsyncIterator[Running]:
    """A server whose favourite, "a", has just failed so often that it is left out."""
    async with running_app(url, featuriser, clock=clock.log_clock()) as served:
        await served.update_router(policy="fixed:a")
        await served.create_models(a={}, b={}, c={})
        for _ in range(FAILURES_TO_OPEN):
            await served.report(await served.route(), error="MODEL_ERROR_UNAVAILABLE")
        await served.settled()
        yield served


async def storm(running: Running, requests: int = 40) -> list[pb.RouteResponse]:
    """Many requests at once."""
    return list(await asyncio.gather(*(running.route(prompt=f"{each}") for each in range(requests))))


def to_a(answers: Sequence[pb.RouteResponse]) -> list[pb.RouteResponse]:
    return [each for each in answers if each.model == "a"]


async def test_an_open_circuit_leaves_the_model_out_and_says_so(running: Running) -> None:
    answer = await running.route()
    left_out = next(each for each in answer.candidates if each.model == "a")
    assert left_out.exclusion == pb.EXCLUSION_UNHEALTHY
    assert "tried again in" in left_out.exclusion_detail
    assert "a" not in (answer.model, *answer.fallback_models)
    assert not (await running.get_model("a")).statistics.healthy


async def test_of_many_requests_at_once_one_is_the_probe_and_no_more_follow_until_it_is_reported(
    running: Running, clock: Machine, url: str
) -> None:
    clock.pass_us(BACK_OFF_US)
    answers = await storm(running)
    (probe,) = to_a(answers)
    assert probe.probability == 1.0
    assert not any("a" in each.fallback_models for each in answers)
    await running.settled()
    assert not to_a(await storm(running))
    await running.report(probe, error="MODEL_ERROR_TIMEOUT")
    await running.settled()
    clock.pass_us(BACK_OFF_US)
    assert not to_a(await storm(running))
    clock.pass_us(BACK_OFF_US)
    (probe,) = to_a(await storm(running))
    await running.report(probe, usage={"input_tokens": 10, "output_tokens": 10})
    await running.settled()
    assert len(to_a(await storm(running))) == 40
    assert (await running.get_model("a")).statistics.healthy


async def test_a_probe_that_is_never_reported_makes_room_for_another(running: Running, clock: Machine) -> None:
    clock.pass_us(BACK_OFF_US)
    assert len(to_a(await storm(running))) == 1
    clock.pass_us(PROBE_US)
    assert len(to_a(await storm(running))) == 1


async def test_a_request_sent_again_is_no_second_probe_and_takes_no_turn(running: Running, clock: Machine) -> None:
    earlier = await running.route(request_id="r")
    clock.pass_us(BACK_OFF_US)
    assert (await running.route(request_id="r")).decision_id == earlier.decision_id
    assert len(to_a(await storm(running))) == 1


async def test_a_probe_that_could_not_be_stored_takes_no_turn(
    running: Running, clock: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock.pass_us(BACK_OFF_US)
    with storing_no_decisions(running, monkeypatch):
        assert (await refusal(running.route())).code is grpc.StatusCode.UNAVAILABLE
    assert len(to_a(await storm(running))) == 1


@SQLITE
async def test_a_probe_that_its_caller_gave_up_before_it_was_stored_takes_no_turn(
    running: Running, clock: Machine, url: str
) -> None:
    assert running.app is not None
    log = running.app._log
    clock.pass_us(BACK_OFF_US)

    async def is_made() -> bool:
        return log._committing

    with locked(url):
        probing = running.router.Route(pb.RouteRequest(prompt="given up"))
        await eventually(is_made)
        probing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await probing
        # The server has heard of it once another call on the same connection is answered.
        await running.get_router()
    assert len(to_a(await storm(running))) == 1


async def test_a_circuit_is_as_it_was_after_a_restart_and_the_log_verifies(
    clock: Machine, url: str, featuriser: Featuriser
) -> None:
    async with running_app(url, featuriser, clock=clock.log_clock()) as served:
        await served.update_router(policy="fixed:a")
        await served.create_models(a={}, b={})
        for _ in range(FAILURES_TO_OPEN):
            await served.report(await served.route(), error="MODEL_ERROR_UNAVAILABLE")
        await served.settled()
        clock.pass_us(BACK_OFF_US)
        (probe,) = to_a(await storm(served))
    async with running_app(url, featuriser, clock=clock.log_clock()) as served:
        await served.settled()
        assert not to_a(await storm(served))
        await served.report(probe, error="MODEL_ERROR_TIMEOUT")
        await served.settled()
        clock.pass_us(2 * BACK_OFF_US - 1_000_000)
        assert not to_a(await storm(served))
        clock.pass_us(1_000_000)
        assert len(to_a(await storm(served))) == 1
    engine = open_engine(url)
    try:
        result = audit(LogReader(engine), lambda _: None)
        assert result.passed, result.examples
        assert result.draws_wrong == 0 < result.snapshots
    finally:
        engine.dispose()
