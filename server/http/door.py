"""The door for HTTP: its socket, its TLS, and the channel by which its calls come to the gRPC server."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import shutil
import socket
import ssl
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import grpc
import uvicorn

from server.doors import Doors, is_loopback
from server.http.application import Application
from server.http.connect import methods_of
from server.http.files import console_files
from server.services.gatekeeper import Gatekeeper
from server.settings import Settings

logger = logging.getLogger(__name__)

_CONNECTIONS_MAX = 1000
_IDLE_SECONDS = 60
_BACKLOG = 1024
_IDLE_NEVER_MS = (1 << 31) - 1


class HttpDoor:
    """JSON over HTTP, in the event loop of the gRPC server. `open`, `attach`, then `start`, at last `stop`.

    Every call is passed on to the gRPC server, by a socket in a folder that only this user may enter: so all that
    is checked there, and all that is there to come, holds for HTTP as well.
    """

    def __init__(self, settings: Settings, gatekeeper: Gatekeeper, services: Iterable[Any]) -> None:
        self._settings = settings
        self._gatekeeper = gatekeeper
        self._methods = methods_of(services)
        self._context: ssl.SSLContext | None = None
        self._listening: socket.socket | None = None
        self._inside: Path | None = None
        self._channel: grpc.aio.Channel | None = None
        self._server: _Server | None = None
        self._serving: asyncio.Task[None] | None = None
        self.port = 0

    def open(self, doors: Doors) -> None:
        """Takes the address. Raises OSError if it was asked for and is taken, InvalidFieldError for TLS files."""
        if self._settings.http_port is None:
            return
        self._context = doors.http_context()
        self._listening = self._listen()

    def attach(self, server: grpc.aio.Server) -> None:
        """Lets the gRPC server, which has not started yet, take the calls that come this way."""
        if self._listening is None:
            return
        self._inside = Path(tempfile.mkdtemp(prefix="pointsman-http-"))
        try:
            server.add_insecure_port(self._address)
        except RuntimeError as error:
            raise OSError(f"cannot make a socket in {self._inside}: set TMPDIR to a shorter path") from error

    def start(self) -> None:
        """Serves."""
        context, listening = self._context, self._listening
        if listening is None:
            return
        self.port = listening.getsockname()[1]
        largest = self._settings.message_bytes_max
        options = [
            ("grpc.max_receive_message_length", largest),
            ("grpc.max_send_message_length", largest),
            ("grpc.client_idle_timeout_ms", _IDLE_NEVER_MS),
            ("grpc.enable_http_proxy", 0),
        ]
        self._channel = grpc.aio.insecure_channel(self._address, options)
        calls: dict[str, Any] = {path: self._channel.unary_unary(path) for path in self._methods}
        application = Application(
            self._methods,
            calls,
            console_files(),
            self._gatekeeper,
            largest,
            loopback=is_loopback(self._settings.http_host),
        )
        config = uvicorn.Config(
            application,
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=_CONNECTIONS_MAX,
            timeout_keep_alive=_IDLE_SECONDS,
            # Later than the gRPC server, which ends what is still in flight, and that is answered here.
            timeout_graceful_shutdown=math.ceil(self._settings.grace_seconds) + 1,
            ssl_context_factory=None if context is None else lambda *_: context,
        )
        self._server = _Server(config)
        self._serving = asyncio.get_running_loop().create_task(self._server.serve([listening]))

    async def stop(self) -> None:
        """Answers what is in flight, and ends."""
        if self._server is not None and self._serving is not None:
            self._server.should_exit = True
            await asyncio.gather(self._serving, return_exceptions=True)
        if self._listening is not None:
            self._listening.close()
        if self._channel is not None:
            await self._channel.close()
        if self._inside is not None:
            shutil.rmtree(self._inside, ignore_errors=True)

    @property
    def _address(self) -> str:
        return f"unix:{self._inside}/grpc"

    def _listen(self) -> socket.socket | None:
        """The socket; None if the usual port is taken, which nobody has asked for."""
        host, port = self._settings.http_host.strip("[]"), self._settings.http_port or 0
        try:
            family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            listening = socket.create_server(
                address[:2], family=family, backlog=_BACKLOG, reuse_port=self._settings.share_port
            )
        except OSError as error:
            told = f"{host}:{port}, it is taken by another server, or no address of this machine"
            if "http_port" in self._settings.model_fields_set or "http_host" in self._settings.model_fields_set:
                raise OSError(f"cannot listen for HTTP on {told}") from error
            logger.warning("no JSON over HTTP on %s: POINTSMAN_HTTP_PORT sets another", told)
            return None
        # Connections inherit it. asyncio leaves it out for a socket made without its protocol's number, and the
        # body of an answer then waits up to 40 ms for the client's word that the headers are there.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listening


class _Server(uvicorn.Server):
    """Leaves the signals to who runs the process."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Captures none."""
        yield
