"""Health by the gRPC protocol over a real channel: what anyone may ask, and how much of it."""

from __future__ import annotations

import asyncio

import grpc
from grpc_health.v1 import health_pb2
from servers import DEADLINE_SECONDS, Running, eventually, refusal, running_app

from policy.features import Featuriser
from server.keys import ApiKey, Scope, digest_of, new_key_text
from server.services.health import WATCHES_MAX
from server.storage.engine import migrate, open_engine
from server.storage.key_store import create_key

SERVING = health_pb2.HealthCheckResponse.SERVING


def lock(url: str) -> None:
    """From the first key on nobody is let in without one."""
    engine = open_engine(url)
    migrate(engine)
    key_id, secret = new_key_text()
    create_key(engine, ApiKey(key_id, "", digest_of(secret), frozenset(Scope), 1))
    engine.dispose()


async def watching(running: Running, service: str = "") -> grpc.aio.UnaryStreamCall:
    """A stream that has begun."""
    call = running.health.Watch(health_pb2.HealthCheckRequest(service=service))
    answer = await asyncio.wait_for(call.read(), DEADLINE_SECONDS)
    assert answer.status in (SERVING, health_pb2.HealthCheckResponse.SERVICE_UNKNOWN)
    return call


async def test_strangers_may_watch_so_many_streams_and_no_more(url: str, featuriser: Featuriser) -> None:
    lock(url)
    async with running_app(url, featuriser) as running:
        await running.health_is(SERVING)
        calls = [await watching(running, f"{each % 3 or ''}") for each in range(WATCHES_MAX)]
        for _ in range(3):
            told = await refusal(watching(running))
            assert (told.code, told.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "WATCHES_LIMITED")
        await running.health_is(SERVING)
        assert not any(each.done() for each in calls)
        for each in calls[:10]:
            each.cancel()

        async def may_again() -> bool:
            try:
                calls.append(await watching(running))
            except grpc.aio.AioRpcError as error:
                assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
                return False
            return True

        for _ in range(10):
            await eventually(may_again)
        assert (await refusal(watching(running))).reason == "WATCHES_LIMITED"
        for each in calls:
            each.cancel()


async def test_who_watches_hears_of_a_change(url: str, featuriser: Featuriser) -> None:
    async with running_app(url, featuriser) as running:
        await running.health_is(SERVING)
        call = await watching(running)
        assert running.app is not None
        await running.app._health.tell({"": False})
        answer = await asyncio.wait_for(call.read(), DEADLINE_SECONDS)
        assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING
        call.cancel()
