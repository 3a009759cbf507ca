"""The event loop of a server: asyncio's own, which hears of many of gRPC's events at once."""

from __future__ import annotations

import asyncio
import functools
import socket
from collections.abc import Callable
from typing import Any, TypeVarTuple

Arguments = TypeVarTuple("Arguments")

_BYTES_MAX = 1024


class ServingLoop(asyncio.SelectorEventLoop):
    """gRPC's thread writes a byte into a socket for each event. Its reader takes one byte, and then whatever
    events there are: of four bytes a call the others would each wake the loop once more, for nothing.
    """

    def add_reader(self, fd: Any, callback: Callable[[*Arguments], Any], *args: *Arguments) -> None:
        """As asyncio's; of gRPC's socket all bytes but one are taken before its reader."""
        if isinstance(fd, socket.socket) and _is_grpc_reader(callback):
            super().add_reader(fd, functools.partial(_read, fd, callback, *args))
        else:
            super().add_reader(fd, callback, *args)


def _is_grpc_reader(callback: Callable[..., Any]) -> bool:
    """By its name, since it says nothing else of itself; another one would be called as ever."""
    inner = callback.func if isinstance(callback, functools.partial) else callback
    return getattr(inner, "__qualname__", "") == "PollerCompletionQueue._handle_events"


def _read(wakes: socket.socket, reader: Callable[..., Any], *args: Any) -> None:
    """The byte of an event is written after the event is there, so that none is missed.

    Another loop of this process may read from the same socket, and be first.
    """
    try:
        waiting = len(wakes.recv(_BYTES_MAX, socket.MSG_PEEK))
        if waiting > 1:
            wakes.recv(waiting - 1)
    except BlockingIOError:
        return
    reader(*args)
