"""The trace that a client's request belongs to, for the decision that is asked for on its behalf."""

from __future__ import annotations

from contextvars import ContextVar

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from server.trace_context import trace_headers

_OF_REQUEST: ContextVar[tuple[tuple[str, str], ...]] = ContextVar("trace_of_request", default=())


class KeepTrace:
    """Remembers the trace of each request for as long as that is served."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            _OF_REQUEST.set(tuple(trace_headers(Headers(scope=scope))))
        await self._app(scope, receive, send)


def trace_metadata() -> tuple[tuple[str, str], ...]:
    """What a call to Pointsman says of the trace, inside of a request."""
    return _OF_REQUEST.get()
