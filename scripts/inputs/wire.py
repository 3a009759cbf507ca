"""Bytes on the port that are no gRPC: noise, other protocols, HTTP/2 frames that are damaged."""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Callable, Mapping
from contextlib import suppress

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_SETTINGS = struct.pack("!I", 0)[1:] + b"\x04\x00" + struct.pack("!I", 0)
_FRAME_TYPES = 12
_SECONDS = 0.05


def _noise(source: random.Random) -> bytes:
    return source.randbytes(source.randrange(1, 2000))


def _http(source: random.Random) -> bytes:
    path = source.choice(("/", "/metrics", "/pointsman.v1.RouterService/Route", "*", "/" + "a" * 9000))
    return f"{source.choice(('GET', 'POST', 'PRI', 'CONNECT'))} {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


def _tls(source: random.Random) -> bytes:
    return b"\x16\x03\x01" + struct.pack("!H", source.randrange(1, 600)) + source.randbytes(400)


def _frames(source: random.Random) -> bytes:
    return _PREFACE + _SETTINGS + b"".join(_frame(source) for _ in range(source.randrange(1, 9)))


def _frame(source: random.Random) -> bytes:
    """Often of another length than it says."""
    body = source.randbytes(source.randrange(0, 300))
    told = len(body) if source.random() < 0.7 else source.randrange(1 << 24)
    kind, flags, stream = source.randrange(_FRAME_TYPES), source.randrange(256), source.randrange(1 << 32)
    return struct.pack("!I", told)[1:] + bytes([kind, flags]) + struct.pack("!I", stream) + body


def _preface_alone(source: random.Random) -> bytes:
    return _PREFACE[: source.randrange(1, len(_PREFACE) + 1)]


KINDS: Mapping[str, Callable[[random.Random], bytes]] = {
    "noise": _noise,
    "HTTP/1.1": _http,
    "TLS": _tls,
    "HTTP/2 frames": _frames,
    "half a preface": _preface_alone,
}


def strike(port: int, kind: str, source: random.Random) -> None:
    """One connection with bytes of this kind, left in any of the ways that there are.

    Raises OSError if nobody listens any more.
    """
    with socket.create_connection(("127.0.0.1", port), timeout=5.0) as connection:
        connection.settimeout(_SECONDS)
        with suppress(OSError):  # The server may close before it has all.
            connection.sendall(KINDS[kind](source))
            if source.random() < 0.5:
                connection.recv(4096)
        if source.random() < 0.3:
            # Closed by a reset.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
