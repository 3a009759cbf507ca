"""The client for programs that block."""

from __future__ import annotations

from types import TracebackType
from typing import Self, Unpack

import grpc

from pointsman.client.base import BaseClient
from pointsman.client.decision import Decision
from pointsman.client.messages import RouteOptions


class Client(BaseClient):
    """Asks Pointsman which model to call, and tells it what came of the calls. Threads may share one.

    Make it after a fork, not before. Close it, or use it in a `with` block; a program that ends without still has
    two seconds for the reports that wait.
    """

    def route(
        self, prompt: str = "", *, timeout_seconds: float | None = None, **options: Unpack[RouteOptions]
    ) -> Decision:
        """Which model to call. While the server is away it is asked again, within the time and with the same id.

        Raises RouteError if there is no decision and no default model, or if the request itself is at fault:
        INVALID_ARGUMENT, and FAILED_PRECONDITION where no model satisfies its limits, since a default would not
        either. Raises TypeError or ValueError for an option that is none.
        """
        request = self._request(prompt, options)
        seconds = self._timeout_seconds if timeout_seconds is None else timeout_seconds
        try:
            response = self._stub.Route(request, timeout=seconds, metadata=self.connection.metadata)
        except grpc.RpcError as error:
            models, problem = self._stand_in(error, options)
            return Decision(models, self.report, self._classify, problem=problem)
        return Decision(self._decided(response), self.report, self._classify, response)

    def flush(self, timeout_seconds: float = 10.0) -> bool:
        """Waits until the reports are sent, so many seconds at most; says whether they are."""
        return self._outbox.flush(timeout_seconds)

    def close(self, timeout_seconds: float = 5.0) -> None:
        """Sends what still waits, so many seconds at most, and lets the server go."""
        self._outbox.close(timeout_seconds)
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
