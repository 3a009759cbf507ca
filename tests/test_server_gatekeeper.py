"""No call but a health check without a key; with one, what its scopes and routers allow, and nothing else."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import product
from pathlib import Path
from typing import Any

import grpc
import pytest
from every_call import NO_ROUTER_IN_THE_REQUEST, REFLECTION, REQUESTS, may, naming
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from grpc_status import rpc_status
from locks import add_key, bearer, outcome
from pointsman.v1 import registry_service_pb2 as registry_pb
from pointsman.v1 import router_service_pb2 as pb
from servers import Running, eventually, refusal, running_app

from policy.features import Featuriser
from server.admission import Admission
from server.clock import now_us
from server.keys import ApiKey, KeyRing, Scope, digest_of, new_key_text
from server.metrics.calls import Calls
from server.services.access import ANY_SCOPE, METHODS, Access
from server.services.call_meter import CallMeter
from server.services.entrance import Entrance
from server.services.gatekeeper import Gatekeeper
from server.storage.engine import open_engine
from server.storage.key_store import revoke_key

Code = grpc.StatusCode


@pytest.fixture
async def locked(url: str, featuriser: Featuriser) -> AsyncIterator[tuple[Running, str]]:
    """A server with keys, and one that may do all; of the default router the models are a and b."""
    async with running_app(url, featuriser) as server:
        await server.create_models(a={}, b={})
        everything = add_key(url)
        await server.app._key_watch.refresh()
        yield server, everything


async def added(server: Running, *scopes: Scope, **fields: Any) -> str:
    """A key that the server knows."""
    text = await asyncio.to_thread(add_key, server.url, *scopes, **fields)
    await server.app._key_watch.refresh()
    return text


def test_every_method_of_every_service_has_its_access() -> None:
    assert set(METHODS) == {*REQUESTS, REFLECTION}
    assert {method.rpartition("/")[2] for method in REQUESTS if not METHODS[method].router} == (
        NO_ROUTER_IN_THE_REQUEST
    )


async def test_every_method_is_open_to_its_scopes_and_to_no_other(locked: tuple[Running, str]) -> None:
    server, _ = locked
    keys = {scope.value: await added(server, scope) for scope in Scope}
    for method, (scope, key) in product(REQUESTS, keys.items()):
        code, reason = await outcome(server.channel, method, b"", bearer(key))
        if may(scope, method):
            assert code not in (Code.UNAUTHENTICATED, Code.PERMISSION_DENIED, Code.UNIMPLEMENTED), (method, scope)
        else:
            assert (code, reason) == (Code.PERMISSION_DENIED, "SCOPE_MISSING"), (method, scope)


async def test_every_method_refuses_who_has_no_good_key(locked: tuple[Running, str]) -> None:
    server, good = locked
    expired = await added(server, expire_us=now_us() - 1)
    revoked = await added(server, revoke_us=now_us() - 1)
    cases = {
        "KEY_MISSING": [],
        "KEY_INVALID": bearer(new_key_text()[1]),
        "KEY_EXPIRED": bearer(expired),
        "KEY_REVOKED": bearer(revoked),
    }
    for method, (reason, metadata) in product([*REQUESTS, REFLECTION, "/no.Such/Method"], cases.items()):
        assert await outcome(server.channel, method, b"", metadata) == (Code.UNAUTHENTICATED, reason), method
    for metadata in (
        *([("authorization", good)], [("authorization", f"Basic {good}")], [("authorization", "Bearer ")]),
        *([("authorization", "Bearer")], bearer(f"{good} x"), bearer(good) * 2, [("x-api-key", good)]),
    ):
        code, _ = await outcome(server.channel, "/pointsman.v1.RouterService/Route", b"", metadata)
        assert code is Code.UNAUTHENTICATED, metadata


async def test_a_message_that_is_none_is_not_even_parsed_without_a_key(locked: tuple[Running, str]) -> None:
    server, good = locked
    route, nonsense = "/pointsman.v1.RouterService/Route", b"\xff" * 100
    assert await outcome(server.channel, route, nonsense) == (Code.UNAUTHENTICATED, "KEY_MISSING")
    assert await outcome(server.channel, route, nonsense, bearer(good)) == (Code.INVALID_ARGUMENT, "INVALID_FIELD")


async def test_a_stranger_who_opens_a_stream_and_sends_nothing_is_refused_all_the_same(
    locked: tuple[Running, str],
) -> None:
    server, _ = locked
    call = server.channel.stream_unary("/pointsman.v1.PolicyService/ImportSnapshot")()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asyncio.wait_for(call, 10.0)
    assert caught.value.code() is Code.UNAUTHENTICATED


async def test_bytes_that_are_no_message_are_a_bad_request_to_every_method(server: Running) -> None:
    for method in REQUESTS:
        answer = await outcome(server.channel, method, b"\xff" * 100)
        assert answer == (Code.INVALID_ARGUMENT, "INVALID_FIELD"), method


async def test_what_names_another_router_is_refused_whether_there_is_one_or_not(
    locked: tuple[Running, str],
) -> None:
    server, everything = locked
    bound = await added(server, routers=["mine"])
    request = registry_pb.CreateRouterRequest(router_id="theirs")
    await server.registry.CreateRouter(request, metadata=bearer(everything))
    for method, router in product(
        (each for each in REQUESTS if METHODS[each].router), ("theirs", "default", "nowhere", "")
    ):
        answer = await outcome(server.channel, method, naming(method, router) if router else b"", bearer(bound))
        assert answer == (Code.PERMISSION_DENIED, "ROUTER_NOT_PERMITTED"), (method, router)
    for method in REQUESTS:
        if METHODS[method].router:
            code, _ = await outcome(server.channel, method, naming(method, "mine"), bearer(bound))
            assert code is not Code.PERMISSION_DENIED, method


async def test_of_another_routers_decisions_and_name_a_key_learns_nothing(locked: tuple[Running, str]) -> None:
    server, everything = locked
    bound = await added(server, routers=["mine"])
    as_bound, as_all = {"metadata": bearer(bound)}, {"metadata": bearer(everything)}
    await server.registry.CreateRouter(registry_pb.CreateRouterRequest(router_id="mine"), **as_bound)
    create = registry_pb.CreateModelRequest(parent="routers/mine", model_id="m")
    await server.registry.CreateModel(create, **as_bound)
    theirs = (await server.router.Route(pb.RouteRequest(defer_activation=True), **as_all)).decision_id
    mine = (await server.router.Route(pb.RouteRequest(router="routers/mine"), **as_bound)).decision_id
    for decision_id in (theirs, "0" * 32):
        report = pb.ReportRewardRequest(decision_id=decision_id, reward=1.0, served_model="a")
        for call in (
            server.router.GetDecision(pb.GetDecisionRequest(decision_id=decision_id), **as_bound),
            server.router.ActivateDecision(pb.ActivateDecisionRequest(decision_id=decision_id), **as_bound),
            server.router.ReportReward(report, **as_bound),
        ):
            refused = await refusal(call)
            assert (refused.code, refused.reason) == (Code.NOT_FOUND, "DECISION_NOT_FOUND")
            assert refused.message.startswith(f"there is no decision {decision_id!r}")
    batch = pb.BatchReportRewardsRequest(
        requests=[pb.ReportRewardRequest(decision_id=each, reward=1.0) for each in (theirs, mine)]
    )
    results = (await server.router.BatchReportRewards(batch, **as_bound)).results
    assert [(each.reason, each.disposition) for each in results] == [
        ("DECISION_NOT_FOUND", pb.DISPOSITION_UNSPECIFIED),
        ("", pb.DISPOSITION_RECORDED),
    ]
    found = (await server.router.GetDecision(pb.GetDecisionRequest(decision_id=theirs), **as_all)).decision
    assert (len(found.reports), found.active) == (0, False)
    listed = await server.registry.ListRouters(registry_pb.ListRoutersRequest(), **as_bound)
    assert [each.name for each in listed.routers] == ["routers/mine"]
    listed = await server.registry.ListRouters(registry_pb.ListRoutersRequest(), **as_all)
    assert [each.name for each in listed.routers] == ["routers/default", "routers/mine"]


async def test_health_is_open_and_reflection_takes_any_key(locked: tuple[Running, str]) -> None:
    server, _ = locked
    await server.health_is(health_pb2.HealthCheckResponse.SERVING)
    listing = reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString()
    for scope in Scope:
        key = await added(server, scope, routers=["mine"])
        assert await outcome(server.channel, REFLECTION, listing, bearer(key)) == (Code.OK, "")


async def test_a_method_that_is_not_there_is_unimplemented_for_who_has_a_key(locked: tuple[Running, str]) -> None:
    server, good = locked
    assert (await outcome(server.channel, "/no.Such/Method", b"", bearer(good)))[0] is Code.UNIMPLEMENTED


async def test_keys_are_taken_and_revoked_while_the_server_runs(url: str, featuriser: Featuriser) -> None:
    async with running_app(url, featuriser) as server:
        await server.create_models(a={})
        route, ask = "/pointsman.v1.RouterService/Route", (lambda key: outcome(server.channel, route, b"", key))
        assert (await ask([]))[0] is Code.OK
        key = await asyncio.to_thread(add_key, url)

        async def says(expected: tuple[grpc.StatusCode, str], key: list[tuple[str, str]]) -> bool:
            return await ask(key) == expected

        await eventually(lambda: says((Code.UNAUTHENTICATED, "KEY_MISSING"), []))
        assert (await ask(bearer(key)))[0] is Code.OK
        engine = open_engine(url)
        assert await asyncio.to_thread(revoke_key, engine, key.split("_")[1], now_us())
        engine.dispose()
        await eventually(lambda: says((Code.UNAUTHENTICATED, "KEY_REVOKED"), bearer(key)))
        assert await ask([]) == (Code.UNAUTHENTICATED, "KEY_MISSING")


async def test_a_key_that_sends_too_fast_hears_when_to_try_again(locked: tuple[Running, str]) -> None:
    server, _ = locked
    slow = await added(server, requests_per_second=0.01, burst=2)
    for _ in range(2):
        await server.router.Route(pb.RouteRequest(prompt="hello"), metadata=bearer(slow))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await server.router.Route(pb.RouteRequest(prompt="hello"), metadata=bearer(slow))
    assert caught.value.code() is Code.RESOURCE_EXHAUSTED
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    for detail in rpc_status.from_call(caught.value).details:
        detail.Unpack(info)
        detail.Unpack(retry)
    assert (info.reason, info.domain) == ("RATE_LIMITED", "pointsman")
    assert 0 < retry.retry_delay.ToTimedelta().total_seconds() <= 100


async def test_a_key_has_no_more_in_flight_than_it_may(
    locked: tuple[Running, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, good = locked
    single = await added(server, concurrent_max=1)
    stored, waiting = asyncio.Event(), asyncio.Event()
    submit = server.app._log.submit

    async def slowly(write: Any, *_given: Any) -> Any:
        waiting.set()
        await stored.wait()
        return await submit(write)

    monkeypatch.setattr(server.app._log, "submit", slowly)
    ask: Callable[[str], Awaitable[Any]] = lambda key: server.router.Route(pb.RouteRequest(), metadata=bearer(key))  # noqa: E731
    first = asyncio.ensure_future(ask(single))
    await waiting.wait()
    assert (await refusal(ask(single))).reason == "CONCURRENCY_LIMITED"
    other = asyncio.ensure_future(ask(good))
    stored.set()
    assert (await first).model
    assert (await other).model
    assert (await ask(single)).model


async def test_neither_key_nor_prompt_is_in_the_log_an_error_or_the_database(
    url: str,
    featuriser: Featuriser,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    caplog.set_level(logging.DEBUG)
    prompt, told = "my secret recipe", []
    async with running_app(url, featuriser) as server:
        await server.create_models(a={})
        good, weak, wrong = await added(server), await added(server, Scope.REPORT), new_key_text()[1]
        request = pb.RouteRequest(prompt=prompt)
        await server.router.Route(request, metadata=bearer(good))
        for key, bad in (
            *((wrong, request), (weak, request), (good, pb.RouteRequest(prompt=prompt * 100_000))),
            (good, pb.RouteRequest(prompt=prompt, router="routers/none")),
        ):
            told.append(repr(await refusal(server.router.Route(bad, metadata=bearer(key)))))

        async def break_down(*_given: Any) -> Any:
            raise RuntimeError("broken")

        monkeypatch.setattr(server.app._log, "submit", break_down)
        told.append(repr(await refusal(server.router.Route(request, metadata=bearer(good)))))
        monkeypatch.undo()
        kept = b"".join(each.read_bytes() for each in tmp_path.iterdir())
    kept += b"".join(each.read_bytes() for each in tmp_path.iterdir())
    assert "broken" in caplog.text
    said = caplog.text + "".join(told)
    for key in (good, weak, wrong):
        assert key.rpartition("_")[2] not in said
        assert key.rpartition("_")[2].encode() not in kept
        assert digest_of(key).hex() not in said
    assert digest_of(good) in kept
    assert prompt not in said
    assert prompt.encode() not in kept


class Streams(grpc.GenericRpcHandler):
    """Methods of each kind, which answer with what they are sent; `names` are the routers."""

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        async def sent(requests: AsyncIterator[Any]) -> list[str]:
            return [each.router async for each in requests]

        async def gather(requests: AsyncIterator[Any], _: Any) -> pb.RouteRequest:
            return pb.RouteRequest(router=",".join(await sent(requests)))

        async def spread(request: pb.RouteRequest, _: Any) -> AsyncIterator[pb.RouteRequest]:
            for each in request.router, request.router:
                yield pb.RouteRequest(router=each)

        async def pass_on(requests: AsyncIterator[Any], _: Any) -> AsyncIterator[pb.RouteRequest]:
            async for each in requests:
                yield each

        coding: Any = (pb.RouteRequest.FromString, pb.RouteRequest.SerializeToString)
        return {
            "/test.Streams/Gather": grpc.stream_unary_rpc_method_handler(gather, *coding),
            "/test.Streams/Spread": grpc.unary_stream_rpc_method_handler(spread, *coding),
            "/test.Streams/PassOn": grpc.stream_stream_rpc_method_handler(pass_on, *coding),
            "/test.Streams/Forgotten": grpc.unary_stream_rpc_method_handler(spread, *coding),
        }.get(details.method)


@pytest.fixture
async def streams() -> AsyncIterator[tuple[grpc.aio.Channel, str]]:
    """A server of streams behind the gatekeeper, and a key of the router "mine"."""
    key_id, text = new_key_text()
    ring = KeyRing()
    ring.replace([ApiKey(key_id, "", digest_of(text), frozenset(Scope), 0, frozenset({"mine"}), concurrent_max=1)])
    access = Access(ANY_SCOPE.scopes, "router")
    methods = {f"/test.Streams/{each}": access for each in ("Gather", "Spread", "PassOn")}
    gatekeeper = Gatekeeper(ring, Admission(lambda: 0.0), methods, now_us)
    entrance = Entrance(gatekeeper, CallMeter(Calls(), methods, lambda _: None))
    entrance.add_generic_rpc_handlers((Streams(),))
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((entrance,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel, text
    await server.stop(None)


@pytest.mark.parametrize("method", ["Gather", "Spread", "PassOn"])
async def test_of_a_stream_the_first_message_names_the_router(
    streams: tuple[grpc.aio.Channel, str], method: str
) -> None:
    channel, key = streams
    for _ in range(3):  # Each is over when the next comes, however it ended.
        for router, expected in (
            ("mine", (Code.OK, "")),
            ("theirs", (Code.PERMISSION_DENIED, "ROUTER_NOT_PERMITTED")),
        ):
            request = pb.RouteRequest(router=f"routers/{router}").SerializeToString()
            answer = await outcome(channel, f"/test.Streams/{method}", request, bearer(key))
            assert answer == expected
    assert (await outcome(channel, f"/test.Streams/{method}"))[0] is Code.UNAUTHENTICATED


async def test_a_method_without_an_access_is_closed_to_every_key(streams: tuple[grpc.aio.Channel, str]) -> None:
    channel, key = streams
    answer = await outcome(channel, "/test.Streams/Forgotten", b"", bearer(key))
    assert answer == (Code.PERMISSION_DENIED, "SCOPE_MISSING")
