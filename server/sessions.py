"""Remembers which model a session was given last, so that it can keep it."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SessionModel:
    """The model of a session's last decision and when that was; an empty model means none."""

    model: str
    time_us: int


class Sessions:
    """The most recently used sessions, at most `size_max`; older ones are in the log."""

    def __init__(self, size_max: int = 100_000) -> None:
        self._size_max = size_max
        self._models: OrderedDict[tuple[int, str], SessionModel] = OrderedDict()

    def get(self, router_uid: int, session_id: str) -> SessionModel | None:
        """What is remembered of the session, None if nothing is and the log must tell."""
        return self._models.get((router_uid, session_id))

    def put(self, router_uid: int, session_id: str, model: str, time_us: int) -> None:
        """Remembers the session's model; empty if the log knows of none."""
        key = (router_uid, session_id)
        self._models[key] = SessionModel(model, time_us)
        self._models.move_to_end(key)
        if len(self._models) > self._size_max:
            self._models.popitem(last=False)
