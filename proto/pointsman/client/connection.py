"""How a client reaches a server: address, TLS, key, and what gRPC does about a server that is away."""

from __future__ import annotations

import ipaddress
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

TARGET_DEFAULT = "127.0.0.1:50051"

_SERVICE = "pointsman.v1.RouterService"
_RETRIES = {
    "methodConfig": [
        {
            "name": [{"service": _SERVICE, "method": "Route"}],
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.05s",
                "maxBackoff": "1s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}
_RETRYING: tuple[tuple[str, Any], ...] = (("grpc.service_config", json.dumps(_RETRIES)),)
_RECONNECTING: tuple[tuple[str, Any], ...] = (
    # A server that comes back is found within seconds, where gRPC by itself would wait up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 5000),
)


@dataclass(frozen=True)
class Connection:
    """Where the server is, how it is known to be the right one, and the key to show.

    Raises ValueError for a key that could be read on its way: without TLS it goes to this machine only, or where
    `tls_ends_elsewhere` says that a proxy has the TLS.
    """

    target: str = TARGET_DEFAULT
    api_key: str | None = None
    tls: bool = False
    ca: Path | None = None
    client_certificate: Path | None = None
    client_key: Path | None = None
    tls_ends_elsewhere: bool = False

    def __post_init__(self) -> None:
        if self.api_key and not self.secure and not self.tls_ends_elsewhere and not _stays_here(self.target):
            raise ValueError(
                f"an API key is given, and without TLS it could be read on its way to {self.target}: set "
                "POINTSMAN_TLS=true or POINTSMAN_CA, or POINTSMAN_TLS_ENDS_ELSEWHERE=true if a proxy has the TLS"
            )

    def __repr__(self) -> str:
        return f"Connection({self.target!r}, tls={self.secure}, key={'given' if self.api_key else 'none'})"

    @classmethod
    def from_environment(
        cls, target: str | None = None, environment: Mapping[str, str] | None = None
    ) -> Connection:
        """As the variables say that the `pointsman` commands read too.

        POINTSMAN_TARGET, POINTSMAN_API_KEY, POINTSMAN_TLS, POINTSMAN_CA, POINTSMAN_CLIENT_CERTIFICATE,
        POINTSMAN_CLIENT_KEY, POINTSMAN_TLS_ENDS_ELSEWHERE. `target` goes before POINTSMAN_TARGET.
        """
        given = os.environ if environment is None else environment

        def path(name: str) -> Path | None:
            return Path(given[name]) if given.get(name) else None

        def flag(name: str) -> bool:
            return given.get(name, "").lower() in ("1", "true", "yes", "on")

        return cls(
            target=target or given.get("POINTSMAN_TARGET") or TARGET_DEFAULT,
            api_key=given.get("POINTSMAN_API_KEY", "").strip() or None,
            tls=flag("POINTSMAN_TLS"),
            ca=path("POINTSMAN_CA"),
            client_certificate=path("POINTSMAN_CLIENT_CERTIFICATE"),
            client_key=path("POINTSMAN_CLIENT_KEY"),
            tls_ends_elsewhere=flag("POINTSMAN_TLS_ENDS_ELSEWHERE"),
        )

    @property
    def secure(self) -> bool:
        """Whether TLS is used: it was asked for, or one of its files is given."""
        return self.tls or any((self.ca, self.client_certificate, self.client_key))

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What every call carries: the key. Not as gRPC's call credentials, which refuse to go without TLS."""
        return (("authorization", f"Bearer {self.api_key}"),) if self.api_key else ()

    def channel(self) -> grpc.Channel:
        """A channel for blocking calls. Raises OSError for a file that cannot be read."""
        options = (*_RECONNECTING, *_RETRYING)
        if self.secure:
            return grpc.secure_channel(self.target, self._credentials(), options)
        return grpc.insecure_channel(self.target, options)

    def aio_channel(self, *, retries: bool = True) -> grpc.aio.Channel:
        """A channel for calls in the running event loop; without `retries` a server that is away is known at once.

        Raises OSError for a file that cannot be read.
        """
        options = (*_RECONNECTING, *(_RETRYING if retries else ()))
        if self.secure:
            return grpc.aio.secure_channel(self.target, self._credentials(), options)
        return grpc.aio.insecure_channel(self.target, options)

    def _credentials(self) -> grpc.ChannelCredentials:
        files = (self.ca, self.client_key, self.client_certificate)
        return grpc.ssl_channel_credentials(*(path.read_bytes() if path else None for path in files))


def _stays_here(target: str) -> bool:
    if target.startswith("unix:"):
        return True
    host = target.rpartition("/")[2].rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
