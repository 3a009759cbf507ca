"""The load of the benchmark: callers that each send the next request when they have their answer."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import re
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import grpc
import numpy as np
from pointsman.v1 import registry_service_pb2 as registry_pb
from pointsman.v1 import registry_service_pb2_grpc as registry_grpc
from pointsman.v1 import router_service_pb2 as pb

_ROUTE = "/pointsman.v1.RouterService/Route"
_REPORT = "/pointsman.v1.RouterService/ReportReward"
_IMPORT = "/pointsman.v1.RouterService/ImportDecisions"
_ROWS_A_CALL = 1000
# More than are taken in this time; else rows that are there already would be sent again.
_CALLS_A_SECOND_MAX = 4
_WARM_UP_SECONDS = 1.0
_TURNS = 5
_DISTINCT_REQUESTS = 500
_WORDS = (
    *("explain", "how", "the", "router", "learns", "from", "rewards", "and", "which", "model", "answers"),
    *("this", "question", "at", "what", "cost", "with", "an", "example", "in", "Python", "step", "by"),
)


@dataclass(frozen=True, slots=True)
class Result:
    """One load. `ratio` is its rate over the echo's with the same message sizes, None for an echo.

    `processor_us` is what the server has spent on a request, with all that it does beside answering; None where
    that cannot be told. It says more than the rate where other processes share the machine.
    """

    name: str
    requests_per_second: float
    p50_ms: float
    p99_ms: float
    ratio: float | None = None
    processor_us: float | None = None


async def run_bench(
    folder: Path,
    seconds: float,
    callers: int,
    models: int,
    prompt_characters: int,
    embedding: int,
    durability: str,
    *,
    importing: bool,
) -> list[Result]:
    """Loads Route, then ReportReward, each in turns with its echo, and Route during an import if `importing`.

    Raises OSError if a server does not start.
    """
    requests = [_route_request(prompt_characters, embedding, seed) for seed in range(_DISTINCT_REQUESTS)]
    url = f"sqlite:///{folder / 'bench.db'}"
    command = ("-m", "server.cli.main", "serve", "--port", "0", "--database-url", url)
    async with (
        _process(command, {"POINTSMAN_DURABILITY": durability}) as server,
        _channel(server.port) as channel,
    ):
        await _register(channel, models, embedding)
        answers: list[bytes] = []
        warm_up = _Load(channel, _ROUTE, requests, answers)
        await warm_up.run(callers, _WARM_UP_SECONDS)
        size = len(answers[-1])
        answers.clear()
        route = await _side_by_side(
            "Route", _Load(channel, _ROUTE, requests, answers), server, size, callers, seconds
        )
        reports = [_report_request(answer) for answer in answers]
        report = await _side_by_side("ReportReward", _Load(channel, _REPORT, reports), server, 2, callers, seconds)
        beside = []
        if importing:
            beside = await _while_importing(
                server.port, models, _Load(channel, _ROUTE, requests), callers, seconds
            )
    return [*route, *report, *beside]


async def _while_importing(port: int, models: int, load: _Load, callers: int, seconds: float) -> list[Result]:
    """The load while one client imports decisions, call after call, and the rows of its calls."""
    async with _channel(port) as channel:
        calls = range(max(1, round(_CALLS_A_SECOND_MAX * seconds)))
        imports = _Load(channel, _IMPORT, [_import_request(models, number) for number in calls])
        running = asyncio.create_task(imports.run(1, seconds))
        await load.run(callers, seconds)
        await running
    rows = imports.result("ImportDecisions")
    return [
        load.result("Route while importing"),
        replace(rows, requests_per_second=rows.requests_per_second * _ROWS_A_CALL),
    ]


async def _side_by_side(
    name: str, load: _Load, server: _Server, answer_bytes: int, callers: int, seconds: float
) -> list[Result]:
    """The load and its echo in turns, so that a machine that is slower for a while is so for both."""
    async with (
        _process(("-m", "server.bench.echo", str(answer_bytes)), {}) as echo_server,
        _channel(echo_server.port) as channel,
    ):
        warm_up = _Load(channel, load.method, load.requests)
        await warm_up.run(callers, _WARM_UP_SECONDS)
        echo = _Load(channel, load.method, load.requests)
        # Over the turns of both: what is learned from a request comes after its answer.
        began, echo_began = server.processor_seconds(), echo_server.processor_seconds()
        for _ in range(_TURNS):
            await echo.run(callers, seconds / _TURNS)
            await load.run(callers, seconds / _TURNS)
        spent, echo_spent = _difference(server, began), _difference(echo_server, echo_began)
    return [
        echo.result(f"{name}, echo", processor_seconds=echo_spent),
        load.result(name, load.rate / echo.rate, spent),
    ]


def _difference(server: _Server, began: float | None) -> float | None:
    now = server.processor_seconds()
    return None if now is None or began is None else now - began


class _Load:
    """Closed loop: each caller sends its next request once it has its answer, which is kept in `answers`."""

    def __init__(
        self, channel: grpc.aio.Channel, method: str, requests: list[bytes], answers: list[bytes] | None = None
    ) -> None:
        self.method = method
        self.requests = requests
        self._call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(method)
        self._answers = [] if answers is None else answers
        self._numbers = itertools.count()
        self._latencies: list[float] = []
        self._elapsed = 0.0

    async def run(self, callers: int, seconds: float) -> None:
        """Loads for some seconds more."""
        started = time.perf_counter()
        await asyncio.gather(*(self._caller(started + seconds) for _ in range(callers)))
        self._elapsed += time.perf_counter() - started

    async def _caller(self, end: float) -> None:
        while True:
            started = time.perf_counter()
            if started >= end:
                return
            request = self.requests[next(self._numbers) % len(self.requests)]
            self._answers.append(await self._call(request))
            self._latencies.append(time.perf_counter() - started)

    @property
    def rate(self) -> float:
        """Requests a second."""
        return len(self._latencies) / self._elapsed

    def result(self, name: str, ratio: float | None = None, processor_seconds: float | None = None) -> Result:
        """What all runs came to."""
        p50, p99 = np.percentile(self._latencies, [50, 99]) * 1e3
        processor_us = None if processor_seconds is None else processor_seconds / len(self._latencies) * 1e6
        return Result(name, self.rate, float(p50), float(p99), ratio, processor_us)


@dataclass(frozen=True, slots=True)
class _Server:
    port: int
    pid: int

    def processor_seconds(self) -> float | None:
        """What the process has used so far, of all processors; None where there is no /proc."""
        try:
            fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@asynccontextmanager
async def _process(arguments: tuple[str, ...], environment: dict[str, str]) -> AsyncIterator[_Server]:
    """A Python process that says its port; killed at the end. It has none of the settings of this one."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("POINTSMAN_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        env={**inherited, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        yield _Server(await asyncio.wait_for(_port(process), 60), process.pid)
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


def _import_request(models: int, number: int) -> bytes:
    return pb.ImportDecisionsRequest(
        decisions=[
            pb.ImportedDecision(
                request_id=f"import-{number}-{row}",
                prompt=" ".join(_WORDS[place % len(_WORDS)] for place in range(row, row + 50)),
                model=f"model-{row % models}",
                propensity=1.0 / models,
                reward=0.8,
                usage=pb.Usage(input_tokens=75, output_tokens=300),
            )
            for row in range(_ROWS_A_CALL)
        ]
    ).SerializeToString()


def _report_request(answer: bytes) -> bytes:
    decision = pb.RouteResponse.FromString(answer)
    usage = pb.Usage(input_tokens=75, output_tokens=300)
    return pb.ReportRewardRequest(decision_id=decision.decision_id, reward=0.8, usage=usage).SerializeToString()
