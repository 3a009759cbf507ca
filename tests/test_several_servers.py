"""Several servers on one database: one log, one registry, and the same answer whoever is asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
from engines import BOTH_ENGINES, POSTGRESQL
from grpc_health.v1 import health_pb2
from pointsman.v1 import registry_service_pb2 as registry_pb
from pointsman.v1 import router_service_pb2 as pb
from servers import Running, eventually, running_app, seeded
from sqlalchemy import make_url
from test_server_metrics import scraped

from policy.features import Featuriser
from server.audit import audit
from server.storage.engine import open_engine
from server.storage.reader import LogReader

pytestmark = BOTH_ENGINES


@pytest.fixture
async def servers(url: str, featuriser: Featuriser) -> AsyncIterator[list[Running]]:
    """Two servers, both of which know two models."""
    settings = {"snapshot_seconds": 0.2, "evaluation_seconds": 0.2, "share_port": True}
    async with running_app(url, featuriser, **settings) as one, running_app(url, featuriser, **settings) as other:
        await one.create_models(a={"prices": (0.0, 0.0, 0.001)}, b={"prices": (0.0, 0.0, 0.01)})
        await eventually(lambda: knows(other, "b"))
        yield [one, other]


async def knows(server: Running, model: str, router: str = "routers/default") -> bool:
    try:
        await server.get_model(model, router)
    except grpc.aio.AioRpcError as error:
        assert error.code() is grpc.StatusCode.NOT_FOUND
        return False
    return True


async def test_what_is_changed_on_one_server_is_in_force_on_the_other(servers: list[Running]) -> None:
    one, other = servers
    name = await one.create_router("support")
    await one.create_models(name, x={})
    await eventually(lambda: knows(other, "x", name))
    assert (await other.route(router=name)).model == "x"
    await other.registry.DeleteRouter(registry_pb.DeleteRouterRequest(name=name))

    async def gone() -> bool:
        return not await knows(one, "x", name)

    await eventually(gone)


async def test_the_same_request_gets_the_same_answer_from_both(servers: list[Running]) -> None:
    await servers[0].update_router(policy="uniform")
    for number in range(20):
        asked = (server.route(request_id=f"r{number}", prompt=f"question {number}") for server in servers * 3)
        answers = await asyncio.gather(*asked)
        assert len({each.SerializeToString(deterministic=True) for each in answers}) == 1


async def test_a_session_goes_on_where_another_server_has_taken_it(servers: list[Running]) -> None:
    one, other = servers
    for number in range(10):
        session = f"s{number}"
        assert (await one.route(session_id=session, constraints={"allowed_models": ["a"]})).model == "a"
        assert (await other.route(session_id=session, constraints={"allowed_models": ["b"]})).model == "b"
        assert (await one.route(session_id=session)).model == "b"


async def test_metrics_tell_who_learns_and_how_far_the_others_are(url: str, featuriser: Featuriser) -> None:
    async with (
        running_app(url, featuriser, metrics_port=0, share_port=True) as one,
        running_app(url, featuriser, metrics_port=0, share_port=True) as other,
        running_app(url, featuriser, metrics_port=0, role="router") as router,
    ):
        for each in (one, other, router):  # Each counts from when it knows of the router.
            await each.health_is(health_pb2.HealthCheckResponse.SERVING)
        await router.create_models(a={})
        await router.route()
        for each in (one, other, router):
            await each.settled()

        async def told() -> list[dict[tuple[str, ...], float]] | None:
            found = [await scraped(each) for each in (one, other, router)]
            return found if all(each["pointsman_views_lag_records",] == 0.0 for each in found) else None

        found = await eventually(told)
        active = [each["pointsman_learner_active",] for each in found]
        assert sorted(active[:2]) == [0.0, 1.0]
        assert active[2] == 0.0
        since = [("pointsman_learner_active_since_timestamp_seconds",) in each for each in found]
        assert since == [bool(each) for each in active]
        assert all(each["pointsman_view_age_seconds", "default"] >= 0.0 for each in found)
        assert [each["pointsman_decisions_total", "a", "default"] for each in found] == [1.0] * 3


async def test_each_learns_what_the_other_was_told_once(servers: list[Running], url: str) -> None:
    random = seeded("two servers")
    one, other = servers
    for number in range(40):
        asked, told = random.sample(servers, 2) if number % 2 else (random.choice(servers),) * 2
        decision = await asked.route(prompt=f"question {number}")
        report = {"report_id": "r", "reward": random.random()}
        fates = sorted(await asyncio.gather(told.report(decision, **report), asked.report(decision, **report)))
        assert fates == [pb.DISPOSITION_RECORDED, pb.DISPOSITION_DUPLICATE]
    known = [(await each.settled()).statistics for each in (one, other)]
    assert [(each.decision_count, each.reward_count) for each in known] == [(40, 40)] * 2
    same = [(await each.get_model("a")).statistics.mean_reward for each in servers]
    assert same[0] == same[1]
    engine = open_engine(url)
    result = audit(LogReader(engine), lambda _: None)
    engine.dispose()
    assert (result.passed, result.examples, result.decisions) == (True, [], 40)


@POSTGRESQL
async def test_a_server_goes_on_by_itself_when_its_connections_are_cut(
    servers: list[Running], url: str, postgresql: object
) -> None:
    one, other = servers
    first = await one.route(prompt="before")
    name = make_url(url).database
    cut = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
    postgresql.execute(cut)  # type: ignore[attr-defined]

    async def reported() -> bool:
        try:
            await other.report(first, report_id="r", reward=1.0)
        except grpc.aio.AioRpcError as error:
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            return False
        return True

    await eventually(reported)
    assert (await one.settled()).statistics.reward_count == 1
    assert await other.report(first, report_id="r", reward=1.0) == pb.DISPOSITION_DUPLICATE
