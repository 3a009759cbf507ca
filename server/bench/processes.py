"""The servers of the benchmark: processes of their own, with their ports and what they use of the processor."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc


@dataclass(frozen=True, slots=True)
class Server:
    """A process that serves."""

    port: int
    pid: int

    def processor_seconds(self) -> float | None:
        """What the process and those that it has started have used so far, of all processors; None where there is
        no /proc.
        """
        try:
            return sum(_ticks(pid) for pid in (self.pid, *_children(self.pid))) / os.sysconf("SC_CLK_TCK")
        except OSError:
            return None

    def resident_bytes(self) -> int | None:
        """What the process has in memory; None where there is no /proc."""
        try:
            pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        except OSError:
            return None
        return pages * os.sysconf("SC_PAGE_SIZE")


def _ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def _children(pid: int) -> list[int]:
    return [
        int(each) for file in Path(f"/proc/{pid}/task").glob("*/children") for each in file.read_text().split()
    ]


@dataclass(frozen=True, slots=True)
class Servers:
    """Servers that do the same, and a channel to each."""

    each: Sequence[Server]
    channels: Sequence[grpc.aio.Channel]

    def processor_seconds(self) -> float | None:
        """What all of them have used so far; None where that cannot be told."""
        used = [server.processor_seconds() for server in self.each]
        known = [seconds for seconds in used if seconds is not None]
        return sum(known) if len(known) == len(used) else None


@asynccontextmanager
async def running(
    arguments: tuple[str, ...], environment: dict[str, str] | None = None, count: int = 1
) -> AsyncIterator[Servers]:
    """So many Python processes with these arguments, started one after the other. Raises OSError."""
    async with AsyncExitStack() as stack:
        servers, channels = [], []
        for _ in range(count):
            server = await stack.enter_async_context(_process(arguments, environment or {}))
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{server.port}"))
            await asyncio.wait_for(channel.channel_ready(), 30)
            servers.append(server)
            channels.append(channel)
        yield Servers(servers, channels)


@asynccontextmanager
async def _process(arguments: tuple[str, ...], environment: dict[str, str]) -> AsyncIterator[Server]:
    """A Python process that says its port; killed at the end. It has none of the settings of this one."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("POINTSMAN_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        env={**inherited, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    reading: asyncio.Task[None] | None = None
    try:
        server = Server(await asyncio.wait_for(_port(process), 60), process.pid)
        reading = asyncio.create_task(_read_on(process))  # Else a server that says much would wait for it.
        yield server
    finally:
        process.kill()
        await process.wait()
        if reading is not None:
            await reading


async def _read_on(process: asyncio.subprocess.Process) -> None:
    assert process.stdout is not None  # noqa: S101
    while await process.stdout.read(1 << 16):
        pass


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
