"""The load of the benchmark: callers that wait for their answers, or requests that come whether they do or not."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass

import grpc
import numpy as np


@dataclass(frozen=True, slots=True)
class Result:
    """One load. `ratio` is its rate over the echo's with the same message sizes, None for an echo; of an open
    loop, whose rate is given, it is its p99 over the echo's.

    `processor_us` is what the server has spent on a request, with all that it does beside answering; None where
    that cannot be told. It says more than the rate where other processes share the machine.
    """

    name: str
    requests_per_second: float
    p50_ms: float
    p99_ms: float
    ratio: float | None = None
    processor_us: float | None = None
    open_loop: bool = False


class Load:
    """Requests to one method, in turn to each of the channels; the answers are kept in `answers`, if given."""

    def __init__(
        self,
        channels: Sequence[grpc.aio.Channel],
        method: str,
        requests: list[bytes],
        answers: list[bytes] | None = None,
    ) -> None:
        self.method = method
        self.requests = requests
        self._calls: list[grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]] = [
            each.unary_unary(method) for each in channels
        ]
        self._answers = answers
        self._numbers = itertools.count()
        self._latencies: list[float] = []
        self._elapsed = 0.0
        self.open_loop = False

    def again(self) -> Load:
        """The same load measured anew; it goes on with the requests that follow."""
        fresh = Load([], self.method, self.requests, self._answers)
        fresh._calls, fresh._numbers = self._calls, self._numbers
        return fresh

    async def run(self, callers: int, seconds: float) -> None:
        """Closed loop: each caller sends its next request once it has its answer."""
        started = time.perf_counter()
        await asyncio.gather(*(self._caller(started + seconds) for _ in range(callers)))
        self._elapsed += time.perf_counter() - started

    async def run_all(self, callers: int) -> None:
        """Closed loop: sends each request once."""
        started = time.perf_counter()
        left = iter(range(len(self.requests)))

        async def caller() -> None:
            for _ in left:
                await self._request(time.perf_counter())

        await asyncio.gather(*(caller() for _ in range(callers)))
        self._elapsed += time.perf_counter() - started

    async def run_open(self, rate: float, seconds: float) -> None:
        """Open loop: requests come at this rate a second, however long the answers take.

        Latency counts from when a request should have been sent: one that had to wait for a busy machine to be
        sent has been waited for.
        """
        self.open_loop = True
        started = time.perf_counter()
        sent = set()
        for number in range(max(1, round(rate * seconds))):
            due = started + (number + 1) / rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            sent.add(asyncio.ensure_future(self._request(due)))
        await asyncio.gather(*sent)
        self._elapsed += time.perf_counter() - started

    async def _caller(self, end: float) -> None:
        while True:
            started = time.perf_counter()
            if started >= end:
                return
            await self._request(started)

    async def _request(self, since: float) -> None:
        number = next(self._numbers)
        answer = await self._calls[number % len(self._calls)](self.requests[number % len(self.requests)])
        self._latencies.append(time.perf_counter() - since)
        if self._answers is not None:
            self._answers.append(answer)

    @property
    def rate(self) -> float:
        """Requests a second."""
        return len(self._latencies) / self._elapsed

    @property
    def p99(self) -> float:
        """The latency in seconds that one request in a hundred exceeds."""
        return float(np.percentile(self._latencies, 99))

    def result(self, name: str, echo: Load | None = None, processor_seconds: float | None = None) -> Result:
        """What all runs came to, beside those of its echo."""
        p50, p99 = np.percentile(self._latencies, [50, 99]) * 1e3
        processor_us = None if processor_seconds is None else processor_seconds / len(self._latencies) * 1e6
        ratio = None
        if echo is not None:
            ratio = self.p99 / echo.p99 if self.open_loop else self.rate / echo.rate
        return Result(name, self.rate, float(p50), float(p99), ratio, processor_us, self.open_loop)
