"""The load of the benchmark: callers that each send the next request when they have their answer."""

from __future__ import annotations

import asyncio
import os
import random
import re
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
from pointsman.v1 import registry_service_pb2 as registry_pb
from pointsman.v1 import registry_service_pb2_grpc as registry_grpc
from pointsman.v1 import router_service_pb2 as pb

_ROUTE = "/pointsman.v1.RouterService/Route"
_REPORT = "/pointsman.v1.RouterService/ReportReward"
_WARM_UP_SECONDS = 1.0
_DISTINCT_REQUESTS = 500
_WORDS = (
    *("explain", "how", "the", "router", "learns", "from", "rewards", "and", "which", "model", "answers"),
    *("this", "question", "at", "what", "cost", "with", "an", "example", "in", "Python", "step", "by"),
)


@dataclass(frozen=True, slots=True)
class Result:
    """One load. `ratio` is its rate over the echo's with the same message sizes, None for an echo."""

    name: str
    requests_per_second: float
    p50_ms: float
    p99_ms: float
    ratio: float | None = None


async def run_bench(
    folder: Path,
    seconds: float,
    callers: int,
    models: int,
    prompt_characters: int,
    embedding: int,
    durability: str,
) -> list[Result]:
    """Loads Route, then ReportReward, each with its echo first. Raises OSError if a server does not start."""
    requests = [_route_request(prompt_characters, embedding, seed) for seed in range(_DISTINCT_REQUESTS)]
    url = f"sqlite:///{folder / 'bench.db'}"
    command = ("-m", "server.cli.main", "serve", "--port", "0", "--database-url", url)
    async with _process(command, {"POINTSMAN_DURABILITY": durability}) as port, _channel(port) as channel:
        await _register(channel, models, embedding)
        answers: list[bytes] = []
        await _load(channel, _ROUTE, _picker(requests), callers, _WARM_UP_SECONDS, answers)
        size = len(answers[-1])
        answers.clear()
        route_echo = await _echo_load("Route, echo", _ROUTE, size, requests, callers, seconds)
        route = await _load(channel, _ROUTE, _picker(requests), callers, seconds, answers)
        reports = [_report_request(answer) for answer in answers]
        report_echo = await _echo_load("ReportReward, echo", _REPORT, 2, reports, callers, seconds)
        report = await _load(channel, _REPORT, _picker(reports), callers, seconds, [])
    return [
        route_echo,
        _named(route, "Route", route_echo),
        report_echo,
        _named(report, "ReportReward", report_echo),
    ]


def _named(result: Result, name: str, echo: Result) -> Result:
    ratio = result.requests_per_second / echo.requests_per_second
    return Result(name, result.requests_per_second, result.p50_ms, result.p99_ms, ratio)


async def _echo_load(
    name: str, method: str, answer_bytes: int, requests: list[bytes], callers: int, seconds: float
) -> Result:
    async with (
        _process(("-m", "server.bench.echo", str(answer_bytes)), {}) as port,
        _channel(port) as channel,
    ):
        pick = _picker(requests)
        await _load(channel, method, pick, callers, _WARM_UP_SECONDS, [])
        result = await _load(channel, method, pick, callers, seconds, [])
    return Result(name, result.requests_per_second, result.p50_ms, result.p99_ms)


def _picker(requests: list[bytes]) -> Callable[[int], bytes]:
    return lambda index: requests[index % len(requests)]


async def _load(
    channel: grpc.aio.Channel,
    method: str,
    pick: Callable[[int], bytes],
    callers: int,
    seconds: float,
    answers: list[bytes],
) -> Result:
    """Closed loop: each caller sends its next request once it has its answer, which is kept in `answers`."""
    call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(method)
    latencies: list[float] = []
    numbers: Iterator[int] = iter(range(1 << 62))
    end = time.perf_counter() + seconds

    async def caller() -> None:
        while True:
            started = time.perf_counter()
            if started >= end:
                return
            answers.append(await call(pick(next(numbers))))
            latencies.append(time.perf_counter() - started)

    started = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(callers)))
    elapsed = time.perf_counter() - started
    p50, p99 = np.percentile(latencies, [50, 99]) * 1e3
    return Result("", len(latencies) / elapsed, float(p50), float(p99))


@asynccontextmanager
async def _process(arguments: tuple[str, ...], environment: dict[str, str]) -> AsyncIterator[int]:
    """A Python process that says its port; killed at the end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        yield await asyncio.wait_for(_port(process), 60)
    finally:
        process.kill()
        await process.wait()


async def _port(process: asyncio.subprocess.Process) -> int:
    assert process.stdout is not None  # noqa: S101
    said = []
    async for raw in process.stdout:
        line = raw.decode()
        said.append(line)
        found = re.search(r"(?:^|listens on [^ ]*:)(\d+)\s*$", line)
        if found:
            return int(found.group(1))
    raise OSError(f"a server did not start: {''.join(said)[-500:]}")


@asynccontextmanager
async def _channel(port: int) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        await asyncio.wait_for(channel.channel_ready(), 30)
        yield channel


async def _register(channel: grpc.aio.Channel, models: int, embedding: int) -> None:
    registry = registry_grpc.RegistryServiceStub(channel)
    router = registry_pb.Router(name="routers/default")
    router.features.embedding_dimensions = embedding or 256
    await registry.UpdateRouter(registry_pb.UpdateRouterRequest(router=router))
    for index in range(models):
        prices = registry_pb.Prices(
            input_usd_per_million_tokens=0.1 * 2**index, output_usd_per_million_tokens=0.4 * 2**index
        )
        await registry.CreateModel(
            registry_pb.CreateModelRequest(model_id=f"model-{index}", model=registry_pb.Model(prices=prices))
        )


def _route_request(prompt_characters: int, embedding: int, seed: int) -> bytes:
    generator = random.Random(seed)  # noqa: S311
    words = " ".join(generator.choice(_WORDS) for _ in range(prompt_characters // 3 + 1))
    request = pb.RouteRequest(
        prompt=words[:prompt_characters], embedding=[generator.gauss(0, 1) for _ in range(embedding)]
    )
    return request.SerializeToString()


def _report_request(answer: bytes) -> bytes:
    decision = pb.RouteResponse.FromString(answer)
    usage = pb.Usage(input_tokens=75, output_tokens=300)
    return pb.ReportRewardRequest(decision_id=decision.decision_id, reward=0.8, usage=usage).SerializeToString()
