"""API keys: what one may do, and how its text is recognised without being kept."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum

from server.errors import UnauthenticatedError

KEY_NAME_LENGTH_MAX = 128

_TEXT = re.compile(r"pmk_([0-9a-f]{12})_[0-9a-f]{64}\Z")
_NO_DIGEST = bytes(32)


class Scope(StrEnum):
    """What a key is good for. None implies another."""

    ROUTE = "route"
    REPORT = "report"
    ADMINISTER = "administer"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as it is kept: of its text only the id and a digest. Times are microseconds since 1970.

    `routers` are the ids of those it may touch, None for all. `burst` is how many requests may come at once after
    a pause, where there is a rate. `unread` says what this version does not understand of it; that is good for
    nothing.
    """

    id: str
    name: str
    digest: bytes
    scopes: frozenset[Scope]
    create_us: int
    routers: frozenset[str] | None = None
    expire_us: int | None = None
    revoke_us: int | None = None
    requests_per_second: float | None = None
    burst: int | None = None
    concurrent_max: int | None = None
    unread: str = ""

    def permits(self, router_id: str) -> bool:
        """Whether it may touch this router."""
        return self.routers is None or router_id in self.routers


CALLER: ContextVar[ApiKey | None] = ContextVar("caller", default=None)
"""The key that the request at hand came with; None where keys are not asked for."""


def permitted_routers() -> frozenset[str] | None:
    """The ids of the routers that the caller may touch, None for all."""
    caller = CALLER.get()
    return None if caller is None else caller.routers


def new_key_text() -> tuple[str, str]:
    """The id and the text of a new key: a prefix that scanners of code find, the id, and 256 random bits."""
    key_id = secrets.token_hex(6)
    return key_id, f"pmk_{key_id}_{secrets.token_hex(32)}"


def digest_of(text: str) -> bytes:
    """SHA-256 of a key's text.

    A slow hash with a salt makes guessing dear where people choose the secret. Nobody guesses one of 2^256, and a
    slow hash would cost every request.
    """
    return hashlib.sha256(text.encode()).digest()


class KeyRing:
    """The keys that there are, replaced whole. From the first one on, there is no way in without one."""

    def __init__(self) -> None:
        self._keys: Mapping[str, ApiKey] = {}
        self._locked = False

    @property
    def locked(self) -> bool:
        """Whether a key is asked for. Revoking the last key does not open the doors again."""
        return self._locked

    def replace(self, keys: Iterable[ApiKey]) -> None:
        """Puts other keys in place, those that are revoked or expired included."""
        self._keys = {each.id: each for each in keys}
        self._locked = self._locked or bool(self._keys)

    def authenticate(self, text: str, now_us: int) -> ApiKey:
        """The key of this text. Raises UnauthenticatedError.

        Takes as long for an id that does not exist, and says only of a text that is right in full why the key is
        no longer good.
        """
        match = _TEXT.match(text)
        key = self._keys.get(match[1]) if match else None
        same = hmac.compare_digest(digest_of(text), key.digest if key else _NO_DIGEST)
        if key is None or not same:
            raise UnauthenticatedError("KEY_INVALID", "there is no such key")
        if key.revoke_us is not None:
            raise UnauthenticatedError("KEY_REVOKED", f"key {key.id} is revoked", {"key": key.id})
        if key.expire_us is not None and now_us >= key.expire_us:
            raise UnauthenticatedError("KEY_EXPIRED", f"key {key.id} has expired", {"key": key.id})
        return key
