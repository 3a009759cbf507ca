"""Callers in a closed loop: each sends its next request once it has the answer to the last."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import aiohttp
import numpy as np

from scripts.gateway.rivals import BARE, GATEWAY, MODEL, Rival
from scripts.gateway.standin import WORDS

_SECONDS_MAX = 120.0
_ANSWER = WORDS[-2].encode()


class AnswerError(Exception):
    """An answer that is none, so that its time says nothing."""


@dataclass
class Sample:
    """What one rival did in one setting, over its turns."""

    latencies_seconds: list[float] = field(default_factory=list)
    seconds: float = 0.0
    processor_seconds: float = 0.0

    def quantile_ms(self, part: float) -> float:
        """Of the latencies, until the last byte."""
        return float(np.quantile(self.latencies_seconds, part)) * 1e3

    @property
    def rate(self) -> float:
        """Requests a second by the clock."""
        return len(self.latencies_seconds) / self.seconds

    @property
    def processor_ms(self) -> float:
        """Of one request: what the rival's processes used, not the provider's or the callers'."""
        return self.processor_seconds / len(self.latencies_seconds) * 1e3


async def turn(rival: Rival, prompts: Sequence[str], connections: int, *, stream: bool, sample: Sample) -> None:
    """One request for each prompt, after as many that are not counted as there are connections.

    Raises AnswerError, and TimeoutError after two minutes.
    """
    connector = aiohttp.TCPConnector(limit=connections)
    async with asyncio.timeout(_SECONDS_MAX), aiohttp.ClientSession(rival.url, connector=connector) as session:
        await _loop(rival, session, iter(prompts[:connections]), connections, stream, [])
        used, began = rival.processor_seconds(), time.perf_counter()
        await _loop(rival, session, iter(prompts), connections, stream, sample.latencies_seconds)
        sample.seconds += time.perf_counter() - began
        sample.processor_seconds += rival.processor_seconds() - used


async def _loop(
    rival: Rival,
    session: aiohttp.ClientSession,
    prompts: Iterator[str],
    connections: int,
    stream: bool,
    latencies_seconds: list[float],
) -> None:
    async def caller() -> None:
        for prompt in prompts:
            began = time.perf_counter()
            await _ask(rival, session, prompt, stream)
            latencies_seconds.append(time.perf_counter() - began)

    async with asyncio.TaskGroup() as group:
        for _ in range(connections):
            group.create_task(caller())


async def _ask(rival: Rival, session: aiohttp.ClientSession, prompt: str, stream: bool) -> None:
    model = "small" if rival.name == BARE else MODEL
    body = {"model": model, "stream": stream, "messages": [{"role": "user", "content": prompt}]}
    async with session.post("/v1/chat/completions", json=body) as response:
        content = await response.read()
    if response.status != 200 or _ANSWER not in content:
        raise AnswerError(f"{rival.name} answers {response.status}: {content[:300]!r}")
    if rival.name == GATEWAY and "x-pointsman-decision-id" not in response.headers:
        raise AnswerError(f"{rival.name} has not routed: {response.headers.get('x-pointsman-away')}")
