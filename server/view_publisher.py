"""Publishes what is learned here, for the other servers that decide with it."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable

from sqlalchemy import Engine

from policy.view import PolicyView
from policy.view_state import dump_view
from server.storage.view_store import LearnerHead, StoredView, publish_views
from server.views import NewViews

_GAP_SECONDS = 0.1
_HOLDER_LENGTH_MAX = 256


def holder(pid: int) -> str:
    """What a process of this machine is called in what it publishes."""
    return f"{socket.gethostname()}:{pid}"[:_HOLDER_LENGTH_MAX]


class ViewPublisher:
    """What the learner publishes, or the evaluation, of canaries: each has one of its own, in its own thread."""

    def __init__(self, engine: Engine, clock_us: Callable[[], int], *, canaries: bool) -> None:
        self._engine = engine
        self._clock_us = clock_us
        self._canaries = canaries
        self._holder = holder(os.getpid())
        self._waiting: dict[str, tuple[str, int, PolicyView | None]] = {}
        self._absent: set[str] = set()
        self._published_upto = -1
        self._due = time.monotonic()

    def put(self, seq: int, found: NewViews, settled: bool) -> None:
        """Publishes what has changed up to this position of the log, at once if it is `settled`, as no more of the
        log is there; else ten times a second. Raises SQLAlchemyError.
        """
        for router, (candidate, view) in found.items():
            if view is None and router in self._absent:
                continue
            (self._absent.add if view is None else self._absent.discard)(router)
            position = seq if view is None else view.snapshot
            self._waiting[router] = (candidate, position, view)
        if not settled and time.monotonic() < self._due:
            return
        if self._waiting or (seq > self._published_upto and not self._canaries):
            head = None if self._canaries else LearnerHead(seq, self._holder)
            stored = [
                StoredView(router, self._canaries, candidate, position, None if view is None else dump_view(view))
                for router, (candidate, position, view) in self._waiting.items()
            ]
            publish_views(self._engine, stored, head, self._clock_us())
            self._waiting = {}
            self._published_upto = seq
        self._due = time.monotonic() + _GAP_SECONDS
