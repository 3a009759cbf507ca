"""Pointsman as the routing strategy of a real LiteLLM Router, before stand-ins and a real server."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm
import pytest
from pointsman.client import AsyncClient, Client
from pointsman.litellm_router import PointsmanStrategy
from pointsman.v1 import router_service_pb2 as pb
from servers import Running, eventually
from sqlalchemy import select
from standins import StandIn, running_standin

from server.storage.engine import open_engine
from server.storage.schema import decisions

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*ReadOnly:UserWarning"),
    pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

QUESTION: Any = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Is all well?"}]


@asynccontextmanager
async def routed(server: Running) -> AsyncIterator[tuple[litellm.Router, StandIn]]:
    """A LiteLLM Router of one group with two deployments, who are chosen among by Pointsman."""
    await server.create_models(small={}, big={})
    target = server.target
    async with running_standin() as provider, AsyncClient(target, timeout_seconds=10) as client:
        of = {"api_base": f"{provider.url}/v1", "api_key": "sk-x"}
        with Client(target, timeout_seconds=10) as blocking:
            router = litellm.Router(
                model_list=[
                    {"model_name": "assistant", "litellm_params": {"model": "openai/small", **of}},
                    {
                        "model_name": "assistant",
                        "litellm_params": {"model": "openai/large", **of},
                        "model_info": {"pointsman_model": "big"},
                    },
                ],
                num_retries=2,
                retry_after=0,
            )
            strategy = PointsmanStrategy(router, client, blocking=blocking)
            strategy.attach()
            try:
                yield router, provider
            finally:
                litellm.logging_callback_manager.remove_callback_from_list_by_object(litellm.callbacks, strategy)


def decision_ids(url: str) -> list[str]:
    """Of all decisions, in their order."""
    engine = open_engine(url)
    try:
        with engine.connect() as connection:
            return list(connection.execute(select(decisions.c.decision_id).order_by(decisions.c.seq)).scalars())
    finally:
        engine.dispose()


async def newest(server: Running, reports: int) -> Any:
    """The last decision, once it has so many reports; and those by the models they are about."""

    async def read() -> Any:
        last = (await asyncio.to_thread(decision_ids, server.url))[-1]
        found = (await server.router.GetDecision(pb.GetDecisionRequest(decision_id=last))).decision
        return found if len(found.reports) == reports else None

    decision = await eventually(read)
    return decision, {each.model: each.report for each in decision.reports}


async def test_a_litellm_router_calls_whom_pointsman_chooses_and_reports_every_call(server: Running) -> None:
    """In one test, since LiteLLM's logging stays with the event loop that it met first."""
    async with routed(server) as (router, provider):
        answer = await router.acompletion(model="assistant", messages=QUESTION, user="ann")
        decision, told = await newest(server, reports=1)
        assert answer.choices[0].message.content == "All is well."
        assert provider.calls[-1]["model"] == {"small": "small", "big": "large"}[decision.model]
        assert (decision.session_id, decision.active) == ("ann", True)
        usage = told[decision.model].usage
        assert (usage.input_tokens, usage.output_tokens) == (11, 7)
        assert told[decision.model].HasField("latency")

        stream = await router.acompletion(model="assistant", messages=QUESTION, stream=True)
        assert "".join([part.choices[0].delta.content or "" async for part in stream]) == "All is well."
        decision, told = await newest(server, reports=1)
        assert told[decision.model].usage.output_tokens > 0

        # A retry goes to the fallback of the same decision, and the failure is the failing model's.
        provider.modes["small"] = "500"
        provider.calls.clear()
        while [call["model"] for call in provider.calls][-2:] != ["small", "large"]:
            answer = await router.acompletion(model="assistant", messages=QUESTION)
            assert answer.choices[0].message.content == "All is well."
        decision, told = await newest(server, reports=2)
        assert decision.model == "small"
        assert told["small"].error == pb.MODEL_ERROR_UNAVAILABLE
        assert (told["big"].error, told["big"].usage.output_tokens) == (0, 7)
        asked = len(await asyncio.to_thread(decision_ids, server.url))
        assert asked == 2 + len([call for call in provider.calls if call["model"] == "large"])

        # A call that is not awaited is routed too.
        answer = await asyncio.to_thread(router.completion, model="assistant", messages=QUESTION)
        assert answer.choices[0].message.content == "All is well."
        assert len(await asyncio.to_thread(decision_ids, server.url)) == asked + 1
        _, told = await newest(server, reports=1 if provider.calls[-2]["model"] == "large" else 2)
        assert told["big"].usage.output_tokens == 7


async def test_without_pointsman_a_deployment_of_the_group_is_called_all_the_same(server: Running) -> None:
    async with (
        running_standin() as provider,
        AsyncClient("127.0.0.1:1", timeout_seconds=0.2, default_model="large") as client,
    ):
        of = {"api_base": f"{provider.url}/v1", "api_key": "sk-x"}
        models = [
            {"model_name": "assistant", "litellm_params": {"model": f"openai/{name}", **of}}
            for name in ("small", "large")
        ]
        router = litellm.Router(model_list=models)
        router.register_plugin(PointsmanStrategy(router, client))
        answer = await router.acompletion(model="assistant", messages=QUESTION)
        assert answer.choices[0].message.content == "All is well."
        assert provider.calls[-1]["model"] == "large"
        with pytest.raises(TypeError, match="blocking=Client"):
            await asyncio.to_thread(router.completion, model="assistant", messages=QUESTION)
