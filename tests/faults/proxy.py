"""A wire between two processes that can be cut, stopped, slowed down and mended: a TCP proxy on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from enum import StrEnum

_CHUNK = 1 << 16
# With this a close sends a reset at once, whatever is still on the way.
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Wire(StrEnum):
    """How the wire is."""

    WHOLE = "whole"
    REFUSING = "refusing"
    SILENT = "silent"
    SLOW = "slow"


class Proxy:
    """Takes connections on a port of its own and hands their bytes on to `upstream`, a port of this machine.

    REFUSING closes every new connection at once and leaves the open ones; `reset` ends those. SILENT takes
    connections and bytes and hands nothing on until it is mended, as a network does that drops packets for a
    while. SLOW hands each piece on after `delay_seconds`. With `upstream` 0 it refuses too.
    """

    def __init__(self, upstream: int = 0) -> None:
        self.upstream = upstream
        self.delay_seconds = 0.0
        self.port = 0
        self._wire = Wire.WHOLE
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listens; then `port` is known."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Ends every connection and listens no more."""
        assert self._server is not None
        self._server.close()
        self.reset()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def wire(self) -> Wire:
        """How it is now."""
        return self._wire

    def become(self, wire: Wire, delay_seconds: float = 0.0) -> None:
        """From now on it is like this, for the connections that are open as well."""
        self._wire, self.delay_seconds = wire, delay_seconds
        if wire is Wire.SILENT:
            self._flowing.clear()
        else:
            self._flowing.set()

    def reset(self) -> int:
        """Ends every connection with a reset, as a machine does that has forgotten them; gives how many."""
        found = list(self._open)
        for writer in found:
            _abort(writer)
        return len(found)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._open.add(writer)
        try:
            await self._join(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass  # The other side is gone, or the proxy is stopped.
        finally:
            self._open.discard(writer)
            self._tasks.discard(task)
            _abort(writer)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._flowing.wait()
        if self._wire is Wire.REFUSING or not self.upstream:
            return
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.upstream)
        self._open.add(far_writer)
        try:
            # The first side that ends ends both: neither gRPC nor PostgreSQL goes on with half a connection.
            ways = [asyncio.create_task(self._carry(*way)) for way in ((reader, far_writer), (far_reader, writer))]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for each in ways:
                    each.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        finally:
            self._open.discard(far_writer)
            _abort(far_writer)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_CHUNK):
            await self._flowing.wait()
            if self._wire is Wire.SLOW:
                await asyncio.sleep(self.delay_seconds)
            writer.write(data)
            await writer.drain()


def _abort(writer: asyncio.StreamWriter) -> None:
    """With a reset: what an orderly end would still deliver is lost, as it is when a cable is cut."""
    with contextlib.suppress(OSError):
        found = writer.get_extra_info("socket")
        if found is not None and found.fileno() >= 0:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    writer.transport.abort()
