"""Remembers the last turn of each session, so that it can keep its model."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from policy.choices import Turn


@dataclass(frozen=True, slots=True)
class LastTurn:
    """The last turn of a session, and when that was."""

    turn: Turn
    time_us: int


class Sessions:
    """The most recently used sessions, at most `size_max`; older ones are in the log."""

    def __init__(self, size_max: int = 100_000) -> None:
        self._size_max = size_max
        self._turns: OrderedDict[tuple[int, str], LastTurn] = OrderedDict()

    def get(self, router_uid: int, session_id: str) -> LastTurn | None:
        """What is remembered of the session, None if nothing is and the log must tell."""
        return self._turns.get((router_uid, session_id))

    def put(self, router_uid: int, session_id: str, last: LastTurn) -> None:
        """Remembers the session's last turn."""
        key = (router_uid, session_id)
        self._turns[key] = last
        self._turns.move_to_end(key)
        if len(self._turns) > self._size_max:
            self._turns.popitem(last=False)
