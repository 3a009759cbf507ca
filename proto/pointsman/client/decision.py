"""A decision in the caller's hands, as the blocking and as the asynchronous client give it."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from types import TracebackType
from typing import Self, TypeVar

from pointsman.client.outcome import Outcome
from pointsman.client.usage import StreamUsage

Answer = TypeVar("Answer")
Part = TypeVar("Part")


class Decision(Outcome):
    """What `Client.route` gives."""

    def __enter__(self) -> Self:
        self._enter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave(error)

    def call(self, call_model: Callable[[str], Answer]) -> Answer:
        """Calls the chosen model, and then the fallbacks until one answers; gives that answer.

        Each failure is reported of its model. What is no failure of the model (a bug, a bad request) is raised at
        once; after the last model its failure is.
        """
        for model in self.models:
            self._begin(model)
            try:
                return self._finish(call_model(model))
            except Exception as error:
                if not self._failed(error) or model == self.models[-1]:
                    raise
        raise AssertionError("a decision has at least one model")

    def stream(self, parts: Iterable[Part]) -> Iterator[Part]:
        """The parts of a provider's stream; its usage is recorded on the way, and the latency ends with it."""
        seen = StreamUsage()
        try:
            for part in parts:
                self._see(seen, part)
                yield part
            self._stop_clock()
        finally:
            self._take_stream(seen)


class AsyncDecision(Outcome):
    """What `AsyncClient.route` gives; its words are those of `Decision`."""

    async def __aenter__(self) -> Self:
        self._enter()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave(error)

    async def call(self, call_model: Callable[[str], Awaitable[Answer]]) -> Answer:
        """As `Decision.call`, of a function that is awaited."""
        for model in self.models:
            self._begin(model)
            try:
                return self._finish(await call_model(model))
            except Exception as error:
                if not self._failed(error) or model == self.models[-1]:
                    raise
        raise AssertionError("a decision has at least one model")

    async def stream(self, parts: AsyncIterable[Part]) -> AsyncIterator[Part]:
        """As `Decision.stream`, of a stream that is iterated with `async for`."""
        seen = StreamUsage()
        try:
            async for part in parts:
                self._see(seen, part)
                yield part
            self._stop_clock()
        finally:
            self._take_stream(seen)
