"""Roles: any number of servers answer, one learns, and when that is killed another does."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from engines import POSTGRESQL
from grpc_health.v1 import health_pb2
from pointsman.v1 import router_service_pb2 as pb
from servers import Running, eventually, seeded, serving_process

pytestmark = POSTGRESQL

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
LEARNER = "pointsman.v1.learner"


@dataclass
class Member:
    """A server process, asked through its own channel."""

    process: subprocess.Popen[bytes]
    asked: Running

    async def learns(self) -> bool:
        answer = await self.asked.health.Check(health_pb2.HealthCheckRequest(service=LEARNER))
        return bool(answer.status == SERVING)


Join = Callable[..., Any]


@pytest.fixture
async def join(url: str) -> AsyncIterator[Join]:
    """Starts one more server process, of a role, on the test's database."""
    async with AsyncExitStack() as stack:

        async def start(role: str, **environment: str) -> Member:
            given = {"POINTSMAN_DATABASE_URL": url, "POINTSMAN_SNAPSHOT_SECONDS": "1", **environment}
            context = serving_process("--role", role, **given)
            process, port = await asyncio.to_thread(stack.enter_context, context)
            target = f"127.0.0.1:{port}"
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(target))
            return Member(process, Running(url, target, channel))

        yield start


async def the_active(members: list[Member]) -> Member:
    """The one that learns, once there is one. Never are there two."""

    async def found() -> Member | None:
        active = [each for each in members if each.process.poll() is None and await each.learns()]
        assert len(active) <= 1
        return active[0] if active else None

    member: Member = await eventually(found)
    return member


async def test_a_router_decides_with_what_a_learner_elsewhere_has_learned(join: Join) -> None:
    router, learner = await join("router"), await join("learner")
    await router.asked.create_models(good={"prices": (0.0, 0.0, 0.001)}, bad={"prices": (0.0, 0.0, 0.001)})
    await router.asked.health_is(SERVING)
    await learner.asked.health_is(SERVING, LEARNER)
    await router.asked.health_is(NOT_SERVING, LEARNER)
    random = seeded("roles")
    cost = pb.Usage(cost_usd=0.001)
    for _ in range(60):
        decision = await router.asked.route(prompt=f"question {random.random()}")
        reward = 1.0 if decision.model == "good" else 0.0
        await router.asked.report(decision, report_id="r", reward=reward, usage=cost)
    known = await router.asked.settled()
    assert (known.statistics.decision_count, known.statistics.reward_count) == (60, 60)
    assert known.statistics.spent_usd == pytest.approx(0.06)
    predicted = {each.model: each.predicted_quality for each in (await router.asked.route()).candidates}
    assert predicted["good"] > predicted["bad"] + 0.2


async def test_a_learner_answers_nothing_but_health(join: Join) -> None:
    learner = await join("learner")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await learner.asked.route(prompt="anything")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    await learner.asked.health_is(SERVING)
