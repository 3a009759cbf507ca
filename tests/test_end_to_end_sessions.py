"""What a caller sees of sessions: each keeps its model as long as that may be called, also after a restart."""

from __future__ import annotations

import pytest
from engines import BOTH_ENGINES
from pointsman.v1 import registry_service_pb2 as registry_pb
from pointsman.v1 import router_service_pb2 as pb
from servers import Running, running_app

from policy.features import Featuriser

pytestmark = BOTH_ENGINES


@pytest.fixture
async def server(server: Running) -> Running:
    """A server whose default router has three models."""
    await server.create_models(a={}, b={}, c={})
    return server


async def test_a_session_keeps_its_model_and_says_so(server: Running) -> None:
    await server.update_router(policy="uniform")
    for session in ("s", "t", "u"):
        first = await server.route(session_id=session)
        for _ in range(8):
            again = await server.route(session_id=session)
            assert (again.model, again.probability) == (first.model, 1.0)
            assert (await server.decision(again)).sticky
        assert not (await server.decision(first)).sticky


async def test_a_session_leaves_its_model_when_that_is_not_eligible(server: Running) -> None:
    first = await server.route(session_id="s")
    moved = await server.route(session_id="s", constraints={"denied_models": [first.model]})
    assert moved.model != first.model
    assert (await server.route(session_id="s")).model == moved.model


async def test_a_session_keeps_its_model_over_a_restart(url: str, featuriser: Featuriser) -> None:
    async with running_app(url, featuriser) as server:
        await server.create_models(a={}, b={}, c={}, d={})
        await server.update_router(policy="uniform")
        models = {str(i): (await server.route(session_id=str(i))).model for i in range(12)}
    async with running_app(url, featuriser) as server:
        assert {session: (await server.route(session_id=session)).model for session in models} == models


async def test_what_a_session_has_in_its_cache_is_cheaper_also_after_a_restart(
    url: str, featuriser: Featuriser
) -> None:
    def cost(decision: pb.RouteResponse, model: str) -> float:
        return next(each.predicted_cost_usd for each in decision.candidates if each.model == model)

    async with running_app(url, featuriser) as server:
        await server.create_models(a={"prices": (10.0, 0.0, 0.0)}, b={"prices": (10.0, 0.0, 0.0)})
        first = await server.route(session_id="s", input_tokens=1000)
        assert [cost(first, "a"), cost(first, "b")] == pytest.approx([0.01, 0.01])
        second = await server.route(session_id="s", input_tokens=1500)
        assert (second.model, cost(second, first.model)) == (first.model, pytest.approx(0.006))
        usage = pb.Usage(input_tokens=1500, cached_input_tokens=1000)
        await server.report(second, usage=usage)
        read = await server.decision(second)
        assert read.cost_usd == pytest.approx(0.006)
        assert read.reports[0].report.usage.cached_input_tokens == 1000
        name = f"routers/default/models/{first.model}"
        priced = registry_pb.Prices(input_usd_per_million_tokens=10.0, cached_input_usd_per_million_tokens=5.0)
        change = registry_pb.UpdateModelRequest(model=registry_pb.Model(name=name, prices=priced))
        answer = (await server.registry.UpdateModel(change)).model
        assert answer.prices.cached_input_usd_per_million_tokens == 5.0
    async with running_app(url, featuriser) as server:
        third = await server.route(session_id="s", input_tokens=2000)
        assert (third.model, cost(third, first.model)) == (first.model, pytest.approx(0.005 + 0.0075))
        other = "b" if first.model == "a" else "a"
        assert cost(third, other) == pytest.approx(0.02)


async def test_a_session_is_over_after_its_time(server: Running) -> None:
    await server.update_router(policy="uniform", session_ttl={})
    decisions = [await server.route(session_id="s") for _ in range(40)]
    assert len({each.model for each in decisions}) > 1, "false alarm once in 3 ** 39"
