"""Processes that a benchmark starts, and ends."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
from pointsman.v1 import registry_service_pb2 as registry_pb
from pointsman.v1 import registry_service_pb2_grpc as registry_grpc

from policy.domain import RouterSpec
from server.services.specs import router_spec_to_proto

_START_SECONDS = 120.0
_STOP_SECONDS = 20.0
_LOOK_SECONDS = 0.2
_TICKS = os.sysconf("SC_CLK_TCK")


class ProcessError(Exception):
    """A process did not start."""


@dataclass(frozen=True)
class Started:
    """A process that serves, and the port that it says it listens on."""

    pid: int
    port: int

    def processor_seconds(self) -> float:
        """All that it has used so far, as Linux counts it; 0 elsewhere."""
        try:
            fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / _TICKS


@asynccontextmanager
async def started(
    *command: str, environment: Mapping[str, str] | None = None, port: int | None = None
) -> AsyncIterator[Started]:
    """A command that says where it listens, or is told its port; ended at the end.

    Raises ProcessError with what it has said, and TimeoutError.
    """
    process = await asyncio.create_subprocess_exec(
        *command,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env=dict(os.environ if environment is None else environment),
    )
    said = process.stderr or asyncio.StreamReader()
    try:
        async with asyncio.timeout(_START_SECONDS):
            found = await (_said_port(said) if port is None else _open_port(port, process))
        drained = asyncio.create_task(_drain(said))
        yield Started(process.pid, found)
        process.terminate()
        async with asyncio.timeout(_STOP_SECONDS):
            await process.wait()
        await drained
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def pointsman(*command: str) -> tuple[str, ...]:
    """A command of Pointsman's, of this environment."""
    return (str(Path(sys.executable).parent / "pointsman"), *command)


def serving_environment() -> dict[str, str]:
    """A server's without JSON over HTTP; a machine with other work may make it wait for its disk."""
    return {**os.environ, "POINTSMAN_HTTP_PORT": "off", "POINTSMAN_STORAGE_WAIT_SECONDS": "30"}


async def create_router(target: str, router: str, spec: RouterSpec, models: tuple[str, ...]) -> None:
    """A router of a server, and its models."""
    async with grpc.aio.insecure_channel(target) as channel:
        registry = registry_grpc.RegistryServiceStub(channel)
        made = registry_pb.CreateRouterRequest(router_id=router, router=router_spec_to_proto(spec))
        await registry.CreateRouter(made)
        for model in models:
            await registry.CreateModel(registry_pb.CreateModelRequest(parent=f"routers/{router}", model_id=model))


async def _said_port(said: asyncio.StreamReader) -> int:
    lines: list[str] = []
    async for line in said:
        lines.append(line.decode(errors="replace"))
        found = re.search(r"listens on [^ ]*:(\d+)\s*$", lines[-1])
        if found:
            return int(found.group(1))
    raise ProcessError("".join(lines))


async def _open_port(port: int, process: asyncio.subprocess.Process) -> int:
    while process.returncode is None:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(_LOOK_SECONDS)
            continue
        writer.close()
        return port
    raise ProcessError(f"a process ended with {process.returncode} before it served")


async def _drain(said: asyncio.StreamReader) -> None:
    while await said.read(1 << 16):
        pass
