"""What the benchmark sends: serialised once, so that the load costs little."""

from __future__ import annotations

import asyncio
import random

import grpc
from pointsman.v1 import registry_service_pb2 as registry_pb
from pointsman.v1 import registry_service_pb2_grpc as registry_grpc
from pointsman.v1 import router_service_pb2 as pb
from pointsman.v1 import router_service_pb2_grpc as router_grpc

ROWS_A_CALL = 1000
_KNOWN_SECONDS = 30.0
_WORDS = (
    *("explain", "how", "the", "router", "learns", "from", "rewards", "and", "which", "model", "answers"),
    *("this", "question", "at", "what", "cost", "with", "an", "example", "in", "Python", "step", "by"),
)


async def create_router(channel: grpc.aio.Channel, router_id: str, models: int, embedding: int) -> None:
    """A router of the benchmark's own, with models of rising prices."""
    registry = registry_grpc.RegistryServiceStub(channel)
    router = registry_pb.Router()
    router.features.embedding_dimensions = embedding or 256
    await registry.CreateRouter(registry_pb.CreateRouterRequest(router_id=router_id, router=router))
    for index in range(models):
        prices = registry_pb.Prices(
            input_usd_per_million_tokens=0.1 * 2**index, output_usd_per_million_tokens=0.4 * 2**index
        )
        await registry.CreateModel(
            registry_pb.CreateModelRequest(
                parent=f"routers/{router_id}", model_id=f"model-{index}", model=registry_pb.Model(prices=prices)
            )
        )


async def wait_until_known(channel: grpc.aio.Channel, models: int, request: bytes) -> None:
    """Returns once this server, too, has heard of the request's router and its models. Raises TimeoutError."""
    router = router_grpc.RouterServiceStub(channel)
    async with asyncio.timeout(_KNOWN_SECONDS):
        while True:
            try:
                answer = await router.Route(pb.RouteRequest.FromString(request))
                if len(answer.candidates) == models:
                    return
            except grpc.aio.AioRpcError as error:
                if error.code() not in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION):
                    raise
            await asyncio.sleep(0.1)


def route_request(router_id: str, prompt_characters: int, embedding: int, seed: int) -> bytes:
    """A request with a prompt of common words, and an embedding if one is to be sent."""
    generator = random.Random(seed)  # noqa: S311
    words = " ".join(generator.choice(_WORDS) for _ in range(prompt_characters // 3 + 1))
    request = pb.RouteRequest(
        router=f"routers/{router_id}",
        prompt=words[:prompt_characters],
        embedding=[generator.gauss(0, 1) for _ in range(embedding)],
    )
    return request.SerializeToString()


def import_request(router_id: str, models: int, number: int) -> bytes:
    """The call of this number, with as many rows as it may have."""
    return pb.ImportDecisionsRequest(
        router=f"routers/{router_id}",
        decisions=[
            pb.ImportedDecision(
                request_id=f"import-{number}-{row}",
                prompt=" ".join(_WORDS[place % len(_WORDS)] for place in range(row, row + 50)),
                model=f"model-{row % models}",
                propensity=1.0 / models,
                reward=0.8,
                usage=pb.Usage(input_tokens=75, output_tokens=300),
            )
            for row in range(ROWS_A_CALL)
        ],
    ).SerializeToString()


def report_request(answer: bytes) -> bytes:
    """A report on the decision of an answer."""
    decision = pb.RouteResponse.FromString(answer)
    usage = pb.Usage(input_tokens=75, output_tokens=300)
    return pb.ReportRewardRequest(decision_id=decision.decision_id, reward=0.8, usage=usage).SerializeToString()
