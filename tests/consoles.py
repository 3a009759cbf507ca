"""A server with a console, and routers with something to show in it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
from pointsman.v1 import policy_service_pb2 as policy_pb
from pointsman.v1 import router_service_pb2 as pb
from servers import Running, eventually, running_app

from policy.features import Featuriser


@asynccontextmanager
async def serving(url: str, featuriser: Featuriser, **settings: Any) -> AsyncIterator[tuple[Running, int]]:
    """A server, and the port of its console."""
    async with running_app(url, featuriser, http_port=0, evaluation_seconds=0.2, **settings) as running:
        assert running.app is not None
        yield running, running.app.http_port


async def some_traffic(running: Running, router: str, count: int = 40) -> list[pb.RouteResponse]:
    """Decisions of a router with what came of them: the third of every five was never rewarded."""
    decided = []
    for index in range(count):
        decision = await running.route(router=router, prompt=f"question {index}", incumbent_model="large")
        decided.append(decision)
        usage = pb.Usage(input_tokens=100 + index, output_tokens=50)
        if index % 5 != 2:
            await running.report(decision, reward=0.9 if decision.model == "large" else 0.7, usage=usage)
    return decided


async def some_router(running: Running, **fields: Any) -> str:
    name = await running.create_router("support", **fields)
    await running.create_models(name, small={}, large={"prices": (10.0, 30.0, 0.0)})
    return name


async def evaluated(running: Running, router: str, count: int) -> policy_pb.Evaluation:
    """The evaluation once it has settled as many decisions."""

    async def ask() -> policy_pb.Evaluation | None:
        try:
            found = await running.policies.GetEvaluation(policy_pb.GetEvaluationRequest(router=router))
        except grpc.aio.AioRpcError:  # It has yet to reach the router.
            return None
        return found.evaluation if found.evaluation.settled_count >= count else None

    found: policy_pb.Evaluation = await eventually(ask)
    return found
