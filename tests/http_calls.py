"""Calls of JSON over HTTP, to a server of the test's own."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from servers import Running, running_app

from policy.features import Featuriser

ROUTE = "/pointsman.v1.RouterService/Route"
HEALTH = "/grpc.health.v1.Health/Check"


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: Any

    @property
    def reason(self) -> str:
        """The reason of the ErrorInfo."""
        return str(self.body["details"][0]["debug"]["reason"])


async def post(
    port: int, path: str, body: Any = None, method: str = "POST", tls: ssl.SSLContext | None = None, **headers: str
) -> Answer:
    """Sends JSON, or bytes as they are; an underscore in a header's name is a dash."""
    sent = body if isinstance(body, bytes) else json.dumps(body or {}).encode()
    given = {
        "content-type": "application/json",
        **{key.replace("_", "-"): value for key, value in headers.items()},
    }

    def ask() -> Answer:
        connection: http.client.HTTPConnection = (
            http.client.HTTPSConnection("localhost", port, timeout=60, context=tls)
            if tls
            else http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        )
        try:
            connection.request(method, path, sent, given)
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, json.loads(answer.read()))
        finally:
            connection.close()

    return await asyncio.to_thread(ask)


async def fetch(port: int, path: str, method: str = "GET", **headers: str) -> Answer:
    """Reads a file; an underscore in a header's name is a dash."""

    def ask() -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            connection.request(
                method, path, headers={key.replace("_", "-"): each for key, each in headers.items()}
            )
            answer = connection.getresponse()
            named = {key.lower(): value for key, value in answer.getheaders()}
            return Answer(answer.status, named, answer.read().decode())
        finally:
            connection.close()

    return await asyncio.to_thread(ask)


@asynccontextmanager
async def serving(url: str, featuriser: Featuriser, **settings: Any) -> AsyncIterator[tuple[Running, int]]:
    """A server, and its port for HTTP."""
    async with running_app(url, featuriser, **{"http_port": 0, **settings}) as running:
        assert running.app is not None
        yield running, running.app.http_port


@asynccontextmanager
async def serving_models(url: str, featuriser: Featuriser) -> AsyncIterator[int]:
    """A server with two models that can be asked for; gives its port for HTTP."""
    async with serving(url, featuriser) as (running, found):
        await running.create_models(small={}, large={"prices": (10.0, 30.0, 0.0)})
        yield found


def free_port() -> str:
    """A port of this machine that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return str(found.getsockname()[1])
