"""A session's last model is remembered, for so many sessions and no more."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pointsman.v1.registry_service_pb2 import DeleteRouterRequest
from servers import Running, refusal, storing_no_decisions

from policy.choices import Turn
from server.sessions import LastTurn, Sessions


def last(model: str, time_us: int) -> LastTurn:
    return LastTurn(Turn(model, 0.0), time_us)


def test_nothing_is_known_of_a_session_that_was_never_put() -> None:
    assert Sessions().get(1, "s") is None


def test_a_session_is_remembered_with_its_model_and_its_time() -> None:
    sessions = Sessions()
    sessions.put(1, "s", last("a", 5))
    assert sessions.get(1, "s") == last("a", 5)


def test_a_later_model_takes_the_place_of_the_earlier() -> None:
    sessions = Sessions()
    sessions.put(1, "s", last("a", 5))
    sessions.put(1, "s", last("b", 6))
    assert sessions.get(1, "s") == last("b", 6)


def test_sessions_of_one_name_on_two_routers_are_two() -> None:
    sessions = Sessions()
    sessions.put(1, "s", last("a", 1))
    sessions.put(2, "s", last("b", 2))
    assert sessions.get(1, "s") == last("a", 1)
    assert sessions.get(2, "s") == last("b", 2)


def test_the_session_that_was_put_longest_ago_is_the_first_to_go() -> None:
    sessions = Sessions(size_max=2)
    for session in ("first", "second", "third"):
        sessions.put(1, session, last("a", 1))
    assert [sessions.get(1, each) is None for each in ("first", "second", "third")] == [True, False, False]


def test_a_session_that_is_put_again_outlives_those_put_before() -> None:
    sessions = Sessions(size_max=2)
    for session in ("first", "second", "first", "third"):
        sessions.put(1, session, last("a", 1))
    assert [sessions.get(1, each) is None for each in ("first", "second", "third")] == [False, True, False]


def test_a_known_session_put_into_a_full_memory_drives_none_out() -> None:
    sessions = Sessions(size_max=2)
    for session in ("first", "second", "second"):
        sessions.put(1, session, last("a", 1))
    assert sessions.get(1, "first") == last("a", 1)


def test_sessions_of_all_routers_share_one_bound() -> None:
    sessions = Sessions(size_max=1)
    sessions.put(1, "s", last("a", 1))
    sessions.put(2, "s", last("a", 1))
    assert sessions.get(1, "s") is None


def test_what_was_remembered_cannot_be_changed_by_who_reads_it() -> None:
    sessions = Sessions()
    sessions.put(1, "s", last("a", 1))
    with pytest.raises(FrozenInstanceError):
        sessions.get(1, "s").time_us = 2  # type: ignore[misc, union-attr]


@given(size=st.integers(1, 5), puts=st.lists(st.tuples(st.integers(1, 3), st.sampled_from("stu")), max_size=40))
def test_exactly_the_sessions_put_last_are_remembered(size: int, puts: list[tuple[int, str]]) -> None:
    sessions = Sessions(size)
    for time_us, (router, session) in enumerate(puts):
        sessions.put(router, session, last("a", time_us))
    times = {key: time_us for time_us, key in enumerate(puts)}
    kept = dict(sorted(times.items(), key=lambda each: each[1])[-size:])
    for router, session in times:
        found = sessions.get(router, session)
        assert (found.time_us if found else None) == kept.get((router, session))


async def test_one_session_id_on_two_routers_keeps_a_model_on_each(server: Running) -> None:
    other = await server.create_router("other")
    for router in ("routers/default", other):
        await server.create_models(router, a={}, b={})
    first = await server.route(session_id="s", constraints={"allowed_models": ["a"]})
    second = await server.route(router=other, session_id="s", constraints={"allowed_models": ["b"]})
    assert (first.model, second.model) == ("a", "b")
    for _ in range(5):
        assert (await server.route(session_id="s")).model == "a"
        assert (await server.route(router=other, session_id="s")).model == "b"


async def test_a_request_sent_again_does_not_move_its_session_back(server: Running) -> None:
    await server.create_models(a={}, b={})
    earlier = await server.route(session_id="s", request_id="r", constraints={"allowed_models": ["a"]})
    moved = await server.route(session_id="s", constraints={"allowed_models": ["b"]})
    again = await server.route(session_id="s", request_id="r", constraints={"allowed_models": ["a"]})
    if (earlier.model, moved.model, again.decision_id) != ("a", "b", earlier.decision_id):
        raise RuntimeError("the session is not where the question begins")
    assert (await server.route(session_id="s")).model == "b"


@pytest.mark.parametrize("request_id", ["", "r"])
async def test_a_decision_that_could_not_be_stored_does_not_move_its_session(
    server: Running, monkeypatch: pytest.MonkeyPatch, request_id: str
) -> None:
    await server.create_models(a={}, b={})
    only = {each: {"allowed_models": [each]} for each in "ab"}
    assert (await server.route(session_id="s", constraints=only["a"])).model == "a"
    with storing_no_decisions(server, monkeypatch):
        moved = server.route(session_id="s", request_id=request_id, constraints=only["b"])
        assert (await refusal(moved)).code is grpc.StatusCode.UNAVAILABLE
    assert (await server.route(session_id="s")).model == "a"


async def test_a_router_created_again_does_not_keep_the_sessions_of_its_namesake(server: Running) -> None:
    for model in ("b", "a"):
        name = await server.create_router("again", policy=f"fixed:{model}")
        await server.create_models(name, a={}, b={})
        assert (await server.route(router=name, session_id="s")).model == model
        await server.registry.DeleteRouter(DeleteRouterRequest(name=name))
