"""The client for programs that run in an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from types import TracebackType
from typing import Any, Self, Unpack

import grpc

from pointsman.client.base import BaseClient
from pointsman.client.decision import AsyncDecision
from pointsman.client.messages import RouteOptions
from pointsman.v1.router_service_pb2_grpc import RouterServiceStub


class Routing:
    """A decision that is being made: await it, or enter it with `async with`."""

    def __init__(self, decide: Callable[[], Awaitable[AsyncDecision]]) -> None:
        self._decide = decide
        self._decision: AsyncDecision | None = None

    def __await__(self) -> Generator[Any, None, AsyncDecision]:
        return self._decide().__await__()

    async def __aenter__(self) -> AsyncDecision:
        self._decision = await self._decide()
        return await self._decision.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._decision is not None:
            await self._decision.__aexit__(kind, error, trace)


class AsyncClient(BaseClient):
    """`Client` for one event loop; the words are the same.

    Reports go by a thread of their own, so they are sent while the loop is busy, and after it has ended.
    """

    _loop_channel: grpc.aio.Channel | None = None
    _loop_stub: Any = None

    def route(
        self, prompt: str = "", *, timeout_seconds: float | None = None, **options: Unpack[RouteOptions]
    ) -> Routing:
        """As `Client.route`: `async with client.route(...) as decision:`, or `await client.route(...)`."""

        async def decide() -> AsyncDecision:
            request = self._request(prompt, options)
            seconds = self._timeout_seconds if timeout_seconds is None else timeout_seconds
            try:
                response = await self._stub_here().Route(
                    request, timeout=seconds, metadata=self.connection.metadata
                )
            except grpc.RpcError as error:
                models, problem = self._stand_in(error, options)
                return AsyncDecision(models, self.report, self._classify, problem=problem)
            return AsyncDecision(self._decided(response), self.report, self._classify, response)

        return Routing(decide)

    async def flush(self, timeout_seconds: float = 10.0) -> bool:
        """Waits until the reports are sent, so many seconds at most; says whether they are."""
        return await asyncio.to_thread(self._outbox.flush, timeout_seconds)

    async def close(self, timeout_seconds: float = 5.0) -> None:
        """Sends what still waits, so many seconds at most, and lets the server go."""
        await asyncio.to_thread(self._outbox.close, timeout_seconds)
        self._channel.close()
        if self._loop_channel is not None:
            await self._loop_channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _stub_here(self) -> Any:
        """Opened at the first call, since the channel belongs to the loop that it is opened in."""
        if self._loop_stub is None:
            self._loop_channel = self.connection.aio_channel()
            self._loop_stub = RouterServiceStub(self._loop_channel)
        return self._loop_stub
