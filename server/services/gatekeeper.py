"""Lets in who has a key: every call but a health check goes through here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeAlias

import grpc
from google.protobuf.message import DecodeError

from policy.domain import InvalidFieldError
from server.admission import Admission
from server.errors import PermissionDeniedError, PointsmanError, UnauthenticatedError
from server.keys import CALLER, ApiKey, KeyRing
from server.services.access import Access
from server.services.status import Context, abort

_DRAIN_SECONDS = 1.0
_HEALTH = "/grpc.health.v1.Health/"
_BEARER = "bearer "
_NO_ACCESS = Access(frozenset())
# By whether requests and responses are streams: where a handler has its function, and what makes one.
KINDS: Mapping[tuple[bool, bool], tuple[str, Any]] = {
    (False, False): ("unary_unary", grpc.unary_unary_rpc_method_handler),
    (False, True): ("unary_stream", grpc.unary_stream_rpc_method_handler),
    (True, False): ("stream_unary", grpc.stream_unary_rpc_method_handler),
    (True, True): ("stream_stream", grpc.stream_stream_rpc_method_handler),
}
"""How gRPC tells a handler's kind."""

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


@dataclass(frozen=True, slots=True)
class _Guarded:
    access: Access
    handler: Handler


class Gatekeeper:
    """Key and scope are checked before the message is even parsed, the router and the key's limits after that.

    `methods` says what each method asks for. As long as there has never been a key, all calls pass that are of
    messages.
    """

    def __init__(
        self, ring: KeyRing, admission: Admission, methods: Mapping[str, Access], clock_us: Callable[[], int]
    ) -> None:
        self._ring = ring
        self._admission = admission
        self._methods = methods
        self._clock_us = clock_us
        self._guarded: dict[str, _Guarded] = {}

    def admitted(
        self, details: grpc.HandlerCallDetails, find: Callable[[grpc.HandlerCallDetails], Handler | None]
    ) -> Handler | None:
        """The handler behind the checks, or one that refuses; None if `find` finds none.

        To be called in the call's own task.
        """
        method = details.method
        if method.startswith(_HEALTH):
            handler = find(details)
            return None if handler is None else _open(handler)
        try:
            key = self._key(details.invocation_metadata) if self._ring.locked else None
            guarded = self._guarded.get(method)
            if guarded is None:
                handler = find(details)
                if handler is None:
                    return None
                guarded = self._guarded[method] = self._guard(handler, method)
            if key is not None:
                _require_scope(key, method, guarded.access)
        except PointsmanError as refusal:
            return _refusing(refusal)
        # gRPC runs the handler in the same task.
        CALLER.set(key)
        return guarded.handler

    @property
    def locked(self) -> bool:
        """Whether a key is asked for."""
        return self._ring.locked

    def require(self, method: str, metadata: Iterable[tuple[str, str | bytes]]) -> None:
        """Raises PointsmanError for a call that would be refused by its key or scope alone.

        For who would have to read a message before it can be forwarded here, where all is checked again.
        """
        if not method.startswith(_HEALTH) and self._ring.locked:
            _require_scope(self._key(metadata), method, self._methods.get(method, _NO_ACCESS))

    def _key(self, metadata: Iterable[tuple[str, str | bytes]]) -> ApiKey:
        return self._ring.authenticate(_key_text(metadata), self._clock_us())

    def _guard(self, handler: Handler, method: str) -> _Guarded:
        access = self._methods.get(method, _NO_ACCESS)
        kind = handler.request_streaming, handler.response_streaming
        inner = getattr(handler, KINDS[kind][0])
        behind = self._stream_behind if handler.response_streaming else self._behind
        make = KINDS[kind][1]
        return _Guarded(
            access,
            make(
                behind(inner, access, handler.request_streaming),
                request_deserializer=_tolerant(handler.request_deserializer),
                response_serializer=handler.response_serializer,
            ),
        )

    def _behind(self, inner: Any, access: Access, streaming: bool) -> Any:
        async def answer(request: Any, context: Context) -> Any:
            try:
                key = self._caller()
                checked = _checked(key, access, request, streaming)
                with self._admission.request(key):
                    return await inner(checked, context)
            except (PointsmanError, InvalidFieldError) as refusal:
                await abort(context, refusal)

        return answer

    def _stream_behind(self, inner: Any, access: Access, streaming: bool) -> Any:
        async def answer(request: Any, context: Context) -> AsyncIterator[Any]:
            try:
                key = self._caller()
                checked = _checked(key, access, request, streaming)
                with self._admission.request(key):
                    async for each in inner(checked, context):
                        yield each
            except (PointsmanError, InvalidFieldError) as refusal:
                await abort(context, refusal)

        return answer

    def _caller(self) -> ApiKey | None:
        """The key that was shown. Whatever came in between, none is no longer enough once there are keys."""
        key = CALLER.get()
        if key is None and self._ring.locked:
            raise _missing_key()
        return key


def _open(handler: Handler) -> Handler:
    """The handler behind nothing but that its requests are messages. Not for streams of requests."""
    kind = False, handler.response_streaming
    inner = getattr(handler, KINDS[kind][0])

    async def answer(request: Any, context: Context) -> Any:
        if request is None:
            await abort(context, _no_message())
        return await inner(request, context)

    return KINDS[kind][1](  # type: ignore[no-any-return]
        answer,
        request_deserializer=_tolerant(handler.request_deserializer),
        response_serializer=handler.response_serializer,
    )


def _missing_key() -> UnauthenticatedError:
    return UnauthenticatedError(
        "KEY_MISSING", "this server asks for a key: send it as metadata, 'authorization: Bearer KEY'"
    )


def _tolerant(parse: Callable[[bytes], Any] | None) -> Callable[[bytes], Any]:
    """Parses, and gives None for bytes that are no such message, which gRPC would answer as UNKNOWN."""

    def read(data: bytes) -> Any:
        try:
            return parse(data) if parse else data
        except DecodeError:
            return None

    return read


def _key_text(metadata: Iterable[tuple[str, str | bytes]]) -> str:
    """The text that was sent as a key. Raises UnauthenticatedError if there is none, or more than one."""
    sent = [value for name, value in metadata if name == "authorization"]
    if not sent:
        raise _missing_key()
    value = sent[0]
    if len(sent) > 1 or not isinstance(value, str) or value[: len(_BEARER)].lower() != _BEARER:
        raise UnauthenticatedError("KEY_INVALID", "send one key, as 'authorization: Bearer KEY'")
    return value[len(_BEARER) :].strip()


def _require_scope(key: ApiKey, method: str, access: Access) -> None:
    if key.scopes.isdisjoint(access.scopes):
        wanted = " or ".join(sorted(access.scopes)) or "that no key has"
        raise PermissionDeniedError(
            "SCOPE_MISSING",
            f"{method.rpartition('/')[2]} takes a key with the scope {wanted}; key {key.id} is for "
            f"{', '.join(sorted(key.scopes)) or 'nothing'}",
            {"key": key.id, "scope": wanted},
        )


def _require_router(key: ApiKey | None, access: Access, request: Any) -> None:
    if key is None:
        return
    router_id = access.router_of(request)
    if router_id is not None and not key.permits(router_id):
        # The same whether there is such a router or not.
        raise PermissionDeniedError(
            "ROUTER_NOT_PERMITTED",
            f"key {key.id} is not for routers/{router_id[:63]}",
            {"key": key.id, "router": router_id[:63]},
        )


def _checked(key: ApiKey | None, access: Access, request: Any, streaming: bool) -> Any:
    """The request, or the stream of them, of which the first message names the router."""
    if streaming:
        return _checked_stream(key, access, request)
    _require_message(request)
    _require_router(key, access, request)
    return request


async def _checked_stream(key: ApiKey | None, access: Access, requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    first = True
    async for each in requests:
        _require_message(each)
        if first:
            _require_router(key, access, each)
            first = False
        yield each


def _require_message(request: Any) -> None:
    if request is None:
        raise _no_message()


def _no_message() -> InvalidFieldError:
    return InvalidFieldError("request", "is not the message that this method takes, or is damaged")


def _refusing(refusal: PointsmanError) -> Handler:
    """A handler that refuses any kind of call: as a stream, of which no message is parsed."""

    async def refuse(requests: AsyncIterator[bytes], context: Context) -> None:
        # A call that ends while its request is still on the way can reach the client as INTERNAL.
        with suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_SECONDS):
                async for _ in requests:
                    pass
        await abort(context, refusal)

    handler: Handler = grpc.stream_stream_rpc_method_handler(refuse)
    return handler
