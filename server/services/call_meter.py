"""Counts every call, how it ends and how long it takes, the refused ones included.

At the level of DEBUG the log has a line of each.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from typing import Any, TypeAlias

import grpc

from server.metrics.calls import Calls, MethodCalls
from server.services.call_facts import call_facts
from server.services.gatekeeper import KINDS
from server.services.status import Context

logger = logging.getLogger(__name__)

_HEALTH = "/grpc.health.v1.Health/"
_UNKNOWN = "unknown"
# A call's time begins with its caller, and here when it has come: of a caller that gives up at its deadline may be
# heard while so much of it is left here.
_ON_THE_WAY_SECONDS = 0.1

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


class CallMeter:
    """Health checks are not counted: there are many, and they say nothing. Whatever is not among `methods`, which
    is refused, is counted under one name. `given_up` hears, within the call, how one ends that its caller has not
    waited for.
    """

    def __init__(
        self, calls: Calls, methods: Collection[str], given_up: Callable[[grpc.StatusCode], object]
    ) -> None:
        self._calls = calls
        self._methods = methods
        self._given_up = given_up
        self._metered: dict[str, tuple[Handler, Handler]] = {}

    def metered(self, handler: Handler | None, method: str) -> Handler | None:
        """The handler, whose calls are counted."""
        if handler is None or method.startswith(_HEALTH):
            return handler
        if method not in self._methods:
            return self._meter(handler, _UNKNOWN)
        known = self._metered.get(method)
        if known is None or known[0] is not handler:  # One that refuses is made for its call alone.
            known = self._metered[method] = handler, self._meter(handler, method)
        return known[1]

    def _meter(self, handler: Handler, method: str) -> Handler:
        service, _, name = method.rpartition("/")
        told = f"{service.rpartition('.')[2]}/{name}" if service else name
        calls = self._calls.method(told)
        kind = KINDS[handler.request_streaming, handler.response_streaming]
        around = self._stream if handler.response_streaming else self._unary
        made: Handler = kind[1](
            around(getattr(handler, kind[0]), calls, name),
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )
        return made

    def _unary(self, inner: Any, calls: MethodCalls, name: str) -> Any:
        async def answer(request: Any, context: Context) -> Any:
            began = time.perf_counter()
            calls.running += 1
            code, response = "OK", None
            try:
                response = await inner(request, context)
                return response
            except BaseException as error:
                code = self._code(error, context)
                raise
            finally:
                seconds = _ended(calls, code, began)
                if logger.isEnabledFor(logging.DEBUG):
                    _say(name, code, seconds, call_facts(name, request, context, response))

        return answer

    def _stream(self, inner: Any, calls: MethodCalls, name: str) -> Any:
        async def answer(request: Any, context: Context) -> AsyncIterator[Any]:
            began = time.perf_counter()
            calls.running += 1
            code = "OK"
            try:
                async for each in _parts(inner(request, context)):
                    yield each
            except BaseException as error:
                code = self._code(error, context)
                raise
            finally:
                seconds = _ended(calls, code, began)
                if logger.isEnabledFor(logging.DEBUG):
                    _say(name, code, seconds, call_facts(name, request, context))

        return answer

    def _code(self, error: BaseException, context: Context) -> str:
        """How a call ends whose handler has raised this."""
        if isinstance(error, grpc.aio.AbortError):
            return context.code().name
        if isinstance(error, (asyncio.CancelledError, GeneratorExit)):
            left = context.time_remaining()
            late = left is not None and left <= _ON_THE_WAY_SECONDS
            code = grpc.StatusCode.DEADLINE_EXCEEDED if late else grpc.StatusCode.CANCELLED
            self._given_up(code)
            return code.name
        return "UNKNOWN"


def _ended(calls: MethodCalls, code: str, began: float) -> float:
    seconds = time.perf_counter() - began
    calls.running -= 1
    calls.codes[code] += 1
    calls.seconds.add(seconds)
    return seconds


def _say(name: str, code: str, seconds: float, facts: Mapping[str, str]) -> None:
    known = {**facts, "code": code, "seconds": round(seconds, 6)}
    logger.debug("%s ends with %s", name, code, extra=known)


async def _parts(answered: Any) -> AsyncIterator[Any]:
    """What a handler that answers with a stream gives: a generator, or a coroutine that writes by itself."""
    if inspect.isawaitable(answered):
        await answered
        return
    async for each in answered:
        yield each
