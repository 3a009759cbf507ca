"""What a server holds in memory while it is under full load: Route and ReportReward, one after the other."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np

from server.bench.messages import create_router, report_request, route_request
from server.bench.processes import running

_ROUTER = "memory"
_EVERY_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident memory in MB every five seconds, and how many requests were answered by then."""

    times_seconds: list[float]
    resident_mb: list[float]
    requests: list[int]

    def slope_mb_per_minute(self, after_seconds: float) -> float:
        """The slope of a straight line through what came after so many seconds, by least squares."""
        times, resident = np.array(self.times_seconds), np.array(self.resident_mb)
        later = times >= after_seconds
        return float(np.polyfit(times[later] / 60.0, resident[later], 1)[0])


async def watch(path: Path, minutes: float, callers: int) -> Memory:
    """Loads a server on a new database for so long. Raises OSError where there is no /proc."""
    command = ("-m", "server.cli.main", "serve", "--port", "0", "--http-port", "off")
    url = f"sqlite:///{path}"
    async with running((*command, "--database-url", url), {"POINTSMAN_STORAGE_WAIT_SECONDS": "30"}) as servers:
        channel, (server,) = servers.channels[0], servers.each
        if server.resident_bytes() is None:
            raise OSError("this system has no /proc: it does not tell what a process has in memory")
        await create_router(channel, _ROUTER, 3, 0)
        requests = [route_request(_ROUTER, 300, 0, seed) for seed in range(500)]
        began = time.monotonic()
        answered = [0]
        load = [_caller(channel, requests, began + 60.0 * minutes, answered) for _ in range(callers)]
        loading = asyncio.gather(*load)
        times, resident, requests_by_then = [], [], []
        while not loading.done():
            times.append(time.monotonic() - began)
            resident.append((server.resident_bytes() or 0) / 1e6)
            requests_by_then.append(answered[0])
            await asyncio.wait([loading], timeout=_EVERY_SECONDS)
        await loading
    return Memory(times, resident, requests_by_then)


async def _caller(channel: grpc.aio.Channel, requests: list[bytes], until: float, answered: list[int]) -> None:
    service = "/pointsman.v1.RouterService/"
    route: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"{service}Route")
    report: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"{service}ReportReward")
    while time.monotonic() < until:
        answer = await route(requests[answered[0] % len(requests)])
        await report(report_request(answer))
        answered[0] += 2
