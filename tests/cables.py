"""A cable between a server and its PostgreSQL, that tests can hang, cut and mend."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from sqlalchemy import make_url


class Cable:
    """A proxy on a port of its own. While it hangs connections are taken and nothing is passed on."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._open = asyncio.Event()
        self._open.set()
        self._ends: set[asyncio.StreamWriter] = set()
        self._pumps: set[asyncio.Task[None]] = set()
        self.port = 0

    def url(self, direct: str) -> str:
        """The URL of the same database, through the cable."""
        plain = make_url(direct)
        through = plain.set(host="127.0.0.1", port=self.port, query={})
        return through.render_as_string(hide_password=False)

    def hang(self) -> None:
        """From now on everything is swallowed, as by a network that is cut without a word."""
        self._open.clear()

    def mend(self) -> None:
        """From now on everything is passed on, what was held back first."""
        self._open.set()

    def forget(self) -> None:
        """From now on new connections work. What hangs does so until it is cut, without a word to anyone."""
        self._open = asyncio.Event()
        self._open.set()

    def cut(self) -> None:
        """Ends every connection."""
        for end in self._ends:
            end.transport.abort()

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A connection of the server."""
        self._ends.add(writer)
        task = asyncio.current_task()
        assert task is not None
        self._pumps.add(task)
        task.add_done_callback(self._pumps.discard)
        is_open = self._open
        await is_open.wait()
        with suppress(OSError):
            far_reader, far_writer = await asyncio.open_unix_connection(str(self._socket))
            self._ends.add(far_writer)
            for pump in (self._pump(reader, far_writer, is_open), self._pump(far_reader, writer, is_open)):
                pumping = asyncio.ensure_future(pump)
                self._pumps.add(pumping)
                pumping.add_done_callback(self._pumps.discard)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, is_open: asyncio.Event
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(1 << 16):
                await is_open.wait()
                writer.write(data)
                await writer.drain()
        writer.close()

    async def close(self) -> None:
        self.mend()
        self.cut()
        for task in list(self._pumps):
            task.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)
        for end in self._ends:
            end.close()
            with suppress(OSError):
                await end.wait_closed()


@asynccontextmanager
async def cable(socket: Path) -> AsyncIterator[Cable]:
    """A cable to the PostgreSQL that listens on this socket."""
    made = Cable(socket)
    server = await asyncio.start_server(made.take, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        await made.close()
