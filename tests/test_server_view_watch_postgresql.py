"""How a view comes from one server to another through PostgreSQL: told by NOTIFY, or else looked for."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from engines import POSTGRESQL, PostgreSQL
from servers import DEADLINE_SECONDS, Disk
from sqlalchemy import Engine
from test_server_view_watch import Watched, publish, watched

import server.storage.session_postgresql
import server.view_watch
from policy.domain import RouterSpec
from server.storage.session import Session, open_session

pytestmark = POSTGRESQL

# Later than any test waits for.
NEVER_SECONDS = 10.0 * DEADLINE_SECONDS


@pytest.fixture(autouse=True)
def _sessions_that_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """The database ends one that says nothing for three seconds, as none does that looks twice a second."""
    watched_over = {**server.storage.session_postgresql._WATCHED, "idle_session_timeout": "0"}
    monkeypatch.setattr(server.storage.session_postgresql, "_WATCHED", watched_over)
    monkeypatch.setattr(server.storage.session_postgresql, "_LOST_SECONDS", NEVER_SECONDS)


class Sessions:
    """Those that the watch has opened, whose backends can be ended."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._opened: list[int] = []
        self._changed = threading.Condition()
        monkeypatch.setattr(server.view_watch, "open_session", self._open)

    def _open(self, engine: Engine) -> Session:
        session = open_session(engine)
        with self._changed:
            self._opened.append(session._connection.info.backend_pid)  # type: ignore[attr-defined]
            self._changed.notify_all()
        return session

    def backend(self, number: int) -> int:
        """The process of the database that serves the session of this number, once it is there."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self._opened) >= number, DEADLINE_SECONDS)
            return self._opened[number - 1]


@pytest.fixture
def log(disk: Disk) -> Disk:
    disk.put_router("default", RouterSpec(embedding_dimensions=8), "a", "b")
    return disk


@contextmanager
def waiting_to_be_told(
    disk: Disk, found: Watched, monkeypatch: pytest.MonkeyPatch, seq: int = 50
) -> Iterator[None]:
    """As long as the block the watch, which has come to a view of this position, looks for nothing by itself."""
    with monkeypatch.context() as patch:
        patch.setattr(server.view_watch, "_LOOK_SECONDS", NEVER_SECONDS)
        # The wait that follows the look at this one is as long.
        publish(disk, seq)
        require_taken(disk, found, seq)
        try:
            yield
        finally:
            found.watch._stopping.set()
            publish(disk, seq)  # It wakes up and ends.


def require_taken(disk: Disk, found: Watched, seq: int) -> None:
    """Returns once the view of this position is in place."""
    router = disk.registry.router("default")
    assert router is not None
    with found.looked:
        assert found.looked.wait_for(lambda: found.views.get(router).snapshot == seq, DEADLINE_SECONDS)


def test_a_view_is_taken_as_soon_as_it_is_told_of(log: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    with watched(log) as found, waiting_to_be_told(log, found, monkeypatch):
        for seq in range(100, 110):
            publish(log, seq)
            require_taken(log, found, seq)


def test_a_view_that_nobody_tells_of_is_found(log: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.storage.view_store.notify", lambda *_: None)
    with watched(log) as found:
        found.look()
        for seq in range(100, 103):
            publish(log, seq)
            require_taken(log, found, seq)


def test_once_who_listens_is_thrown_out_views_are_found_and_told_of_again(
    log: Disk, postgresql: PostgreSQL, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions = Sessions(monkeypatch)
    with watched(log) as found:
        for number in range(1, 4):
            postgresql.execute(f"SELECT pg_terminate_backend({sessions.backend(number)}, 60000)")
            publish(log, 100 * number)
            require_taken(log, found, 100 * number)
            assert sessions.backend(number + 1) != sessions.backend(number)
        with waiting_to_be_told(log, found, monkeypatch, 1_000):
            publish(log, 2_000)
            require_taken(log, found, 2_000)
