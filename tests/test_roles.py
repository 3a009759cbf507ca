"""Roles: any number of servers answer, one learns, and when that is killed another does."""

from __future__ import annotations

import asyncio
import signal
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from engines import BOTH_ENGINES, POSTGRESQL
from grpc_health.v1 import health_pb2
from pointsman.v1 import registry_service_pb2 as registry_pb
from pointsman.v1 import router_service_pb2 as pb
from servers import Running, eventually, running_app, seeded, serving_process

from policy.circuit import FAILURES_TO_OPEN
from policy.features import Featuriser
from server.audit import audit
from server.storage.engine import open_engine
from server.storage.reader import LogReader

pytestmark = BOTH_ENGINES

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
LEARNER = "pointsman.v1.learner"
LIVE_POLICY = "pointsman.v1.live_policy"
MODELS = {"good": {"prices": (0.0, 0.0, 0.001)}, "bad": {"prices": (0.0, 0.0, 0.001)}}


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

        async def start(role: str, *arguments: str, **environment: str) -> Member:
            given = {"POINTSMAN_DATABASE_URL": url, "POINTSMAN_SNAPSHOT_SECONDS": "1", **environment}
            several = ("--share-port",) if url.startswith("sqlite") else ()
            context = serving_process("--role", role, *several, *arguments, **given)
            process, port = await asyncio.to_thread(stack.enter_context, context)
            target = f"127.0.0.1:{port}"
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(target))
            return Member(process, Running(url, target, channel))

        yield start


async def the_active(*members: Member) -> Member:
    """The one that learns, once there is one."""

    async def found() -> Member | None:
        active = [each for each in members if await each.learns()]
        return active[0] if len(active) == 1 else None

    member: Member = await eventually(found)
    return member


async def knows_models(server: Running) -> bool:
    models = await server.registry.ListModels(registry_pb.ListModelsRequest(parent="routers/default"))
    return len(models.models) == len(MODELS)


async def traffic(asked: Running, told: Running, count: int, name: str) -> None:
    """Decisions of one server, reported to another, and each once more to the first."""
    for number in range(count):
        decision = await asked.route(prompt=f"{name} {number}")
        report = {"report_id": "r", "reward": 1.0 if decision.model == "good" else 0.0}
        assert await told.report(decision, **report) == pb.DISPOSITION_RECORDED
        assert await asked.report(decision, **report) == pb.DISPOSITION_DUPLICATE


async def bad_traffic(server: Running) -> None:
    """Of a policy that draws a model, where one of two alone is better."""
    for number in range(200):
        decision = await server.route(prompt=f"question {number % 7}")
        reward = 1.0 if decision.model == "good" else 0.0
        await server.report(decision, reward=reward, usage=pb.Usage(cost_usd=0.0001))


async def learned(server: Running) -> tuple[int, int]:
    """How many decisions and rewards the server knows of, once all are learned."""
    statistics = (await server.settled()).statistics
    return statistics.decision_count, statistics.reward_count


def require_sound(url: str, decisions: int) -> None:
    """The log gives the same decisions, rewards and snapshots again."""
    engine = open_engine(url)
    try:
        result = audit(LogReader(engine), lambda _: None)
    finally:
        engine.dispose()
    assert (result.passed, result.examples, result.decisions) == (True, [], decisions)


async def test_a_router_decides_with_what_a_learner_elsewhere_has_learned(join: Join) -> None:
    router, learner = await join("router"), await join("learner")
    await router.asked.create_models(**MODELS)
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


async def test_when_the_learner_is_killed_a_standby_goes_on_where_it_was(join: Join, url: str) -> None:
    router, *learners = [await join("router"), await join("learner"), await join("learner")]
    await router.asked.create_models(**MODELS)
    await router.asked.health_is(SERVING)
    active = await the_active(*learners)
    (standby,) = (each for each in learners if each is not active)
    await traffic(router.asked, router.asked, 20, "before")
    assert await learned(router.asked) == (20, 20)
    active.process.send_signal(signal.SIGKILL)
    await traffic(router.asked, router.asked, 20, "after")
    await standby.asked.health_is(SERVING, LEARNER)
    assert await learned(router.asked) == (40, 40)
    await asyncio.to_thread(require_sound, url, 40)


# A lock of the operating system is kept by a process that is paused, for as long as it is there.
@POSTGRESQL
async def test_a_learner_that_was_paused_does_no_harm_when_it_goes_on(join: Join, url: str) -> None:
    one, other = await join("all"), await join("all")
    await one.asked.create_models(**MODELS)
    active = await the_active(one, other)
    standby = other if active is one else one
    await standby.asked.health_is(SERVING)
    await eventually(lambda: knows_models(standby.asked))
    await traffic(standby.asked, active.asked, 20, "before")
    assert await learned(standby.asked) == (20, 20)
    active.process.send_signal(signal.SIGSTOP)
    # The database ends the session of a server that says nothing for three seconds.
    await standby.asked.health_is(SERVING, LEARNER)
    await traffic(standby.asked, standby.asked, 20, "meanwhile")
    assert await learned(standby.asked) == (40, 40)
    active.process.send_signal(signal.SIGCONT)
    await active.asked.health_is(NOT_SERVING, LEARNER)
    await traffic(active.asked, standby.asked, 20, "after")
    assert [await learned(each.asked) for each in (active, standby)] == [(60, 60)] * 2
    await asyncio.to_thread(require_sound, url, 60)


async def test_a_learner_that_is_stopped_saves_what_is_known_and_another_goes_on(join: Join, url: str) -> None:
    one, other = await join("all"), await join("all")
    await one.asked.create_models(**MODELS)
    active = await the_active(one, other)
    standby = other if active is one else one
    await standby.asked.health_is(SERVING)
    await eventually(lambda: knows_models(standby.asked))
    await traffic(active.asked, standby.asked, 20, "before")
    active.process.send_signal(signal.SIGTERM)
    await traffic(standby.asked, standby.asked, 20, "meanwhile")
    assert await asyncio.to_thread(active.process.wait) == 0
    await standby.asked.health_is(SERVING, LEARNER)
    assert await learned(standby.asked) == (40, 40)
    await asyncio.to_thread(require_sound, url, 40)


async def test_a_router_goes_on_with_what_it_knew_while_nobody_learns(join: Join) -> None:
    router, learner = await join("router"), await join("learner")
    await router.asked.create_models(**MODELS)
    await router.asked.health_is(SERVING)
    await traffic(router.asked, router.asked, 20, "before")
    assert await learned(router.asked) == (20, 20)
    known = (await router.asked.route()).snapshot
    learner.process.send_signal(signal.SIGKILL)
    await asyncio.to_thread(learner.process.wait)
    await router.asked.create_models(new={})
    assert "new" in {each.model for each in (await router.asked.route()).candidates}
    after = await router.asked.route()
    assert int(after.snapshot) >= int(known)
    await router.asked.health_is(SERVING)
    again = await join("learner")
    await again.asked.health_is(SERVING, LEARNER)
    assert await learned(router.asked) == (23, 20)


async def test_a_model_that_fails_on_one_router_is_not_called_by_another(url: str, featuriser: Featuriser) -> None:
    async with (
        running_app(url, featuriser, share_port=True) as learner,
        running_app(url, featuriser, role="router") as one,
        running_app(url, featuriser, role="router") as other,
    ):
        await learner.create_models(**MODELS)

        async def left_out() -> bool:
            candidates = (await other.route()).candidates
            return "bad" in {each.model for each in candidates if each.exclusion == pb.EXCLUSION_UNHEALTHY}

        await eventually(lambda: knows_models(one))
        await eventually(lambda: knows_models(other))
        for _ in range(FAILURES_TO_OPEN):
            decision = await one.route(constraints={"allowed_models": ["bad"]})
            await one.report(decision, error=pb.MODEL_ERROR_UNAVAILABLE)
        await eventually(left_out)


async def test_servers_on_one_machine_may_share_a_port(join: Join) -> None:
    one = await join("all", POINTSMAN_SHARE_PORT="true")
    port = one.asked.target.rpartition(":")[2]
    other = await join("all", "--port", port, "--share-port")
    assert other.asked.target == one.asked.target
    await one.asked.create_models(**MODELS)

    async def answered() -> bool:
        async with grpc.aio.insecure_channel(one.asked.target) as channel:
            try:
                return (await Running("", one.asked.target, channel).route()).model in MODELS
            except grpc.aio.AioRpcError as error:
                assert error.code() in (grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.UNAVAILABLE)
                return False

    for killed in (one, other):
        await eventually(answered)
        killed.process.send_signal(signal.SIGKILL)
        await asyncio.to_thread(killed.process.wait)


async def test_a_router_says_that_a_model_alone_is_better_though_the_evaluation_is_elsewhere(join: Join) -> None:
    router, learner = await join("router"), await join("learner", POINTSMAN_EVALUATION_SECONDS="0.5")
    await router.asked.create_models(**MODELS)
    await router.asked.update_router(policy="uniform")
    await router.asked.health_is(SERVING)
    await router.asked.health_is(SERVING, LIVE_POLICY)
    await bad_traffic(router.asked)
    await learner.asked.health_is(NOT_SERVING, LIVE_POLICY)
    await router.asked.health_is(NOT_SERVING, LIVE_POLICY)
    await router.asked.health_is(SERVING)
    await router.asked.update_router(policy="fixed:good")
    await router.asked.health_is(SERVING, LIVE_POLICY)


async def test_a_learner_answers_nothing_but_health(join: Join) -> None:
    learner = await join("learner")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await learner.asked.route(prompt="anything")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    await learner.asked.health_is(SERVING)
