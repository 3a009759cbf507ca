"""The gateway's own door: who may come in, how many at once, and how much they may bring."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.requests import Request

from server.gateway.problems import ApiError
from server.gateway.settings import GatewaySettings, SettingError

_BODY_SECONDS = 60.0
# Those who walk through a body, LiteLLM among them, do so by recursion.
_DEPTH_MAX = 100
_BUSY = {"retry-after": "1"}


@dataclass
class Held:
    """The bytes of one body."""

    bytes: int = 0


class Door:
    """Counts those inside, and the bytes of their bodies."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings
        self._key = settings.key()
        self.inside = 0
        self.bytes_held = 0
        if self._key is None and not settings.insecure and not is_loopback(settings.host):
            raise SettingError(
                f"POINTSMAN_GATEWAY_HOST: {settings.host} is not loopback, and clients need no key: set "
                "POINTSMAN_GATEWAY_API_KEY, or POINTSMAN_GATEWAY_INSECURE=true to serve everyone who reaches it"
            )

    def admit(self, request: Request) -> None:
        """Raises ApiError 401 without the key: as OpenAI's SDKs send it, or as Anthropic's."""
        if self._key is None:
            return
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        given = (token.strip() if scheme.lower() == "bearer" else "", request.headers.get("x-api-key", ""))
        if not any(hmac.compare_digest(each.encode(), self._key.encode()) for each in given):
            raise ApiError(401, "the API key is missing or wrong", code="invalid_api_key")

    @contextmanager
    def place(self) -> Iterator[None]:
        """A place inside for as long as the block. Raises ApiError 503 if there is none."""
        if self.inside >= self._settings.streams_max:
            raise ApiError(
                503, f"{self._settings.streams_max} requests are served already", code="busy", headers=_BUSY
            )
        self.inside += 1
        try:
            yield
        finally:
            self.inside -= 1

    @contextmanager
    def holding(self) -> Iterator[Held]:
        """Room for a body, for as long as the block."""
        held = Held()
        try:
            yield held
        finally:
            self.bytes_held -= held.bytes

    async def read(self, request: Request, held: Held) -> Any:
        """The body as JSON. Raises ApiError 400, 408, 413 or 503, and ClientDisconnect."""
        chunks: list[bytes] = []
        try:
            async with asyncio.timeout(_BODY_SECONDS):
                async for chunk in request.stream():
                    held.bytes += len(chunk)
                    self.bytes_held += len(chunk)
                    self._require_room(held.bytes)
                    chunks.append(chunk)
        except TimeoutError as error:
            raise ApiError(408, "the body did not arrive in time", code="timeout") from error
        return _parse(b"".join(chunks))

    def _require_room(self, held: int) -> None:
        most = self._settings.body_bytes_max
        if held > most:
            raise ApiError(413, f"the body has more than {most:,} bytes", code="request_too_large")
        if self.bytes_held > self._settings.bodies_bytes_max:
            raise ApiError(503, "too many large bodies at once", code="busy", headers=_BUSY)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _parse(body: bytes) -> Any:
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise ApiError(400, f"the body is no JSON: {error}", code="invalid_json") from error
    if _is_deeper(found, _DEPTH_MAX):
        raise ApiError(400, f"the body is nested more than {_DEPTH_MAX} deep", code="invalid_json")
    return found


def _is_deeper(value: Any, most: int) -> bool:
    """Whether lists and objects are within one another more than so many times."""
    level = [value]
    for _ in range(most + 1):
        parts = (
            each.values() if isinstance(each, dict) else each for each in level if isinstance(each, dict | list)
        )
        level = [part for each in parts for part in each if isinstance(part, dict | list)]
        if not level:
            return False
    return True
