"""The ASGI application: unary JSON calls, each passed on to the gRPC server."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Protocol, TypeAlias

import grpc

from policy.domain import InvalidFieldError
from server.errors import PermissionDeniedError, PointsmanError
from server.http import connect
from server.http.browser import PAGE_HEADERS, SECURITY_HEADERS, require_loopback_name, require_own_page
from server.http.files import File
from server.services.gatekeeper import Gatekeeper
from server.services.peer import FORWARDED_PEER
from server.trace_context import trace_headers, trace_id

logger = logging.getLogger(__name__)

_BODY_SECONDS_MAX = 30.0
# Longer bodies are parsed beside the event loop, which others share.
_PARSE_HERE_BYTES_MAX = 1 << 16

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Calls(Protocol):
    """A channel to the gRPC server, of bytes."""

    def __call__(
        self, request: bytes, *, timeout: float | None, metadata: list[tuple[str, str]]
    ) -> grpc.aio.UnaryUnaryCall[bytes, bytes]: ...


class _GoneError(Exception):
    """The client has gone: there is nobody to answer."""


class Application:
    """Serves `methods` by `calls`, and `files`, all by path. Files are for everyone: nothing in them is secret.

    Whoever may not call a method is refused by the gatekeeper of the gRPC server, by which every call goes. It is
    asked once more before, so that a stranger's message is not even read.
    """

    def __init__(
        self,
        methods: Mapping[str, connect.Method],
        calls: Mapping[str, Calls],
        files: Mapping[str, File],
        gatekeeper: Gatekeeper,
        body_bytes_max: int,
        *,
        loopback: bool,
    ) -> None:
        self._methods = methods
        self._calls = calls
        self._files = files
        self._gatekeeper = gatekeeper
        self._body_bytes_max = body_bytes_max
        self._loopback = loopback

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request."""
        if scope["type"] != "http":
            return
        answer = _Answer(send)
        pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
        headers = dict(pairs)
        try:
            if self._loopback and not self._gatekeeper.locked:
                require_loopback_name(headers)
            path: str = scope["path"]
            if path in self._files and scope["method"] in {"GET", "HEAD"}:
                await answer.file(self._files[path], headers, bare=scope["method"] == "HEAD")
            elif path in self._files:
                await answer(*connect.unimplemented("read it with GET"), (b"allow", b"GET, HEAD"), status=405)
            elif path not in self._methods:
                await answer(*connect.unimplemented(f"there is nothing at {path[:200]}"), status=404)
            elif scope["method"] != "POST":
                await answer(*connect.unimplemented("call it with POST"), (b"allow", b"POST"), status=405)
            else:
                await self._answer_call(self._methods[path], pairs, headers, _Body(scope, receive), answer)
        except (PointsmanError, InvalidFieldError) as refusal:
            await answer(*connect.refused(refusal))
        except TimeoutError:
            await answer(*connect.cut_off("the request did not arrive in time"))
        except _GoneError:
            logger.debug("a client has gone before it was answered")
        except Exception as error:
            known = trace_id(headers)
            logger.exception("%s failed over HTTP", scope["path"], extra={"trace_id": known} if known else None)
            await answer(*connect.refused(error))

    async def _answer_call(
        self,
        method: connect.Method,
        pairs: list[tuple[str, str]],
        headers: Mapping[str, str],
        body: _Body,
        answer: _Answer,
    ) -> None:
        require_own_page(headers)
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != connect.CONTENT_TYPE.decode():
            told = "the content-type must be application/json; gRPC is served on a port of its own"
            await answer(*connect.unimplemented(told), (b"accept-post", connect.CONTENT_TYPE), status=415)
            return
        if method.streams:
            await answer(*connect.unimplemented(f"{method.path} streams: call it by gRPC"))
            return
        if headers.get("content-encoding", "identity") != "identity":
            told = "the body must not be compressed: send it with content-encoding identity"
            await answer(*connect.unimplemented(told), (b"accept-encoding", b"identity"))
            return
        if headers.get("connect-protocol-version", "1") != "1":
            raise InvalidFieldError("connect-protocol-version", "must be 1")
        metadata = [("authorization", value) for name, value in pairs if name == "authorization"]
        _require_ascii(metadata)
        self._gatekeeper.require(method.path, metadata)
        seconds = connect.timeout_seconds(headers.get("connect-timeout-ms", ""))
        began = asyncio.get_running_loop().time()
        async with asyncio.timeout(_BODY_SECONDS_MAX if seconds is None else min(seconds, _BODY_SECONDS_MAX)):
            data = await body.read(self._body_bytes_max)
            request = await _beside(connect.to_proto, method, data)
        left = None if seconds is None else max(seconds - (asyncio.get_running_loop().time() - began), 0.0)
        metadata += [(FORWARDED_PEER, f"http:{body.client}"), *trace_headers(headers)]
        call = self._calls[method.path](request, timeout=left, metadata=metadata)
        try:
            response = await body.unless_gone(call)
        except grpc.aio.AioRpcError as error:
            await answer(*connect.failed(error))
            return
        await answer(200, await _beside(connect.to_json, method, response))


class _Body:
    """What a client sends, and whether it is still there."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self._receive = receive
        client = scope.get("client") or ("unknown", 0)
        self.client = f"{client[0]}:{client[1]}"

    async def read(self, bytes_max: int) -> bytes:
        """All of it. Raises InvalidFieldError if it is too long, _GoneError."""
        parts: list[bytes] = []
        size = 0
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise _GoneError
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > bytes_max:
                raise InvalidFieldError("request", f"is larger than the {bytes_max} bytes that are taken")
            if not message.get("more_body", False):
                return b"".join(parts)

    async def unless_gone(self, call: grpc.aio.UnaryUnaryCall[bytes, bytes]) -> bytes:
        """The answer of a call, which is cancelled when the client goes. Raises AioRpcError, _GoneError."""
        answered = asyncio.ensure_future(_awaited(call))
        gone = asyncio.ensure_future(self._receive())
        try:
            await asyncio.wait((answered, gone), return_when=asyncio.FIRST_COMPLETED)
            if not answered.done():
                raise _GoneError
            return answered.result()
        finally:
            call.cancel()  # Which does nothing to one that is over.
            for each in (answered, gone):
                each.cancel()
            await asyncio.gather(answered, gone, return_exceptions=True)


class _Answer:
    """Sends an answer, with the headers that are always there."""

    def __init__(self, send: Send) -> None:
        self._send = send

    async def __call__(
        self,
        usual_status: int,
        body: bytes,
        *headers: tuple[bytes, bytes],
        status: int | None = None,
    ) -> None:
        """`status` goes before `usual_status`, which is the one of the code in the body."""
        every = [
            (b"content-type", connect.CONTENT_TYPE),
            (b"content-length", str(len(body)).encode()),
            (b"cache-control", b"no-store"),
            *SECURITY_HEADERS,
            *headers,
        ]
        start = {"type": "http.response.start", "status": status or usual_status, "headers": every}
        await self._send(start)
        await self._send({"type": "http.response.body", "body": body})

    async def file(self, file: File, asked: Mapping[str, str], *, bare: bool) -> None:
        """Sends a file, or that it is the one which the browser has; `bare` is without its content."""
        has_it = file.etag.decode() in asked.get("if-none-match", "")
        every = [
            (b"content-type", file.content_type),
            (b"content-length", str(len(file.content)).encode()),
            # Asked for anew each time, so that a server which is another version has no old page before it.
            (b"cache-control", b"no-cache"),
            (b"etag", file.etag),
            *PAGE_HEADERS,
        ]
        if has_it:
            every = every[2:]
        await self._send({"type": "http.response.start", "status": 304 if has_it else 200, "headers": every})
        await self._send({"type": "http.response.body", "body": b"" if has_it or bare else file.content})


async def _awaited(call: grpc.aio.UnaryUnaryCall[bytes, bytes]) -> bytes:
    return await call


async def _beside(change: Callable[[connect.Method, bytes], bytes], method: connect.Method, data: bytes) -> bytes:
    if len(data) <= _PARSE_HERE_BYTES_MAX:
        return change(method, data)
    return await asyncio.to_thread(change, method, data)


def _require_ascii(metadata: list[tuple[str, str]]) -> None:
    for name, value in metadata:
        if not (value.isascii() and value.isprintable()):
            raise PermissionDeniedError("KEY_INVALID", f"{name} has characters that no key has", {})
