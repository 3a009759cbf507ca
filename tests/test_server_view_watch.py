"""The watch over what other servers publish: what it takes, what it refuses, and what it asks again."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from engines import BOTH_ENGINES
from servers import DEADLINE_SECONDS, Disk
from sqlalchemy import update

import policy.view_state
import server.view_watch
from policy.domain import RouterSpec
from policy.learner import RouterLearner
from policy.view_state import dump_view
from server.storage.codec import dump_spec
from server.storage.registry_store import read_entry
from server.storage.schema import routers
from server.storage.view_store import LearnerHead, StoredView, publish_views
from server.view_watch import ViewWatch
from server.views import CandidateViews, Views

pytestmark = BOTH_ENGINES


class Watched:
    """A watch, what it has put in place, and what it was told of the registry."""

    def __init__(self, disk: Disk, on_registry: Callable[[str], object]) -> None:
        self.views, self.candidate_views = Views(), CandidateViews()
        self.looked = threading.Condition()
        self._looks = 0
        self.watch = ViewWatch(
            disk.engine,
            self.views,
            self.candidate_views,
            lambda: disk.now_us,
            lambda: True,
            on_registry,
            self._look,
        )

    def _look(self) -> None:
        with self.looked:
            self._looks += 1
            self.looked.notify_all()

    def look(self) -> None:
        """Returns when it has looked once more, from beginning to end."""
        with self.looked:
            until = self._looks + 2
            assert self.looked.wait_for(lambda: self._looks >= until, DEADLINE_SECONDS)


@contextmanager
def watched(
    disk: Disk, on_registry: Callable[[str], object] = lambda _: None, changes_upto: int | None = None
) -> Iterator[Watched]:
    made = Watched(disk, on_registry)
    made.watch.start(disk.reader.head() if changes_upto is None else changes_upto)
    try:
        yield made
    finally:
        made.watch.stop()


def publish(disk: Disk, seq: int, candidate: str = "") -> None:
    """A view of the default router at a position, or of its canary."""
    router = disk.registry.router("default")
    assert router is not None
    state = dump_view(RouterLearner(router).view(seq))
    publish_views(
        disk.engine, [StoredView("default", bool(candidate), candidate, seq, state)], LearnerHead(seq, "other"), 0
    )


def put_spec(disk: Disk, router_id: str, spec: str) -> None:
    """As another version writes it."""
    with disk.engine.begin() as connection:
        connection.execute(update(routers).where(routers.c.id == router_id).values(spec=spec))


@pytest.fixture
def log(disk: Disk) -> Disk:
    disk.put_router("default", RouterSpec(embedding_dimensions=8), "a", "b")
    return disk


def test_what_is_published_is_taken_over(log: Disk) -> None:
    router = log.registry.router("default")
    assert router is not None
    with watched(log) as found:
        found.look()
        assert not found.watch.knows(["default"])
        publish(log, 7)
        publish(log, 8, "canary")
        found.look()
        assert found.views.get(router).snapshot == 7
        canary = found.candidate_views.get("default", "canary")
        assert canary is not None
        assert canary.snapshot == 8
        assert found.watch.knows(["default"])
        assert not found.watch.knows(["default", "other"])


def test_a_view_of_another_version_is_refused_and_that_is_said_once(
    log: Disk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    router = log.registry.router("default")
    assert router is not None
    with watched(log) as found, caplog.at_level(logging.WARNING):
        with monkeypatch.context() as patch:
            patch.setattr(policy.view_state, "VIEW_VERSION", 1_000)
            publish(log, 7)
            patch.undo()
            found.look()
        found.look()
        assert not found.watch.knows(["default"])
        assert found.views.get(router).snapshot == 0
        assert [each.getMessage() for each in caplog.records if "version 1000" in each.getMessage()] == [
            "routers/default keeps its last view: the view has version 1000, this server reads "
            f"{policy.view_state.VIEW_VERSION}"
        ]
        publish(log, 9)
        found.look()
        assert found.views.get(router).snapshot == 9
        assert found.watch.knows(["default"])


def test_changes_of_the_registry_that_could_not_be_taken_over_are_given_again(log: Disk) -> None:
    asked: list[str] = []

    def take(router: str) -> None:
        asked.append(router)
        if len(asked) == 1:
            raise TimeoutError

    with watched(log, take) as found:
        log.put_router("other", RouterSpec(), "x")
        found.look()
        found.look()
    assert asked == ["other", "other"]


def test_a_router_that_cannot_be_read_is_asked_for_again_and_stops_no_other(
    log: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    router = log.registry.router("default")
    assert router is not None
    taken: list[str] = []

    def take(router_id: str) -> None:
        read_entry(log.engine, router_id)
        taken.append(router_id)

    log.put_router("broken", RouterSpec(), "x")
    put_spec(log, "broken", '{"storage_away": "as a newer version does it"}')
    with watched(log, take, log.reader.head() - 1) as found:
        log.put_router("other", RouterSpec(), "x")
        publish(log, 7)
        found.look()
        found.look()
        assert set(taken) == {"other"}
        assert found.views.get(router).snapshot == 7
        log.put_router("third", RouterSpec(), "x")
        publish(log, 8)
        found.look()
        assert set(taken) == {"other", "third"}
        assert found.views.get(router).snapshot == 8
        put_spec(log, "broken", dump_spec(RouterSpec()))
        found.look()
        found.look()
    assert taken.count("broken") == 1
    assert caplog.text.count("routers/broken stays as it was") == 1


def test_a_view_that_is_damaged_stops_no_other(log: Disk, caplog: pytest.LogCaptureFixture) -> None:
    router = log.registry.router("default")
    assert router is not None
    with watched(log) as found:
        damaged = StoredView("a_damaged_one", False, "", 7, b"no view")
        publish_views(log.engine, [damaged], LearnerHead(7, "other"), 0)
        publish(log, 7)
        found.look()
        assert found.views.get(router).snapshot == 7
        assert found.watch.knows(["default"])
        assert not found.watch.knows(["a_damaged_one"])
        publish(log, 8)
        found.look()
        assert found.views.get(router).snapshot == 8
    assert caplog.text.count("routers/a_damaged_one keeps its last view") == 1


def test_that_nobody_learns_is_known_after_a_while_and_until_someone_does(
    log: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server.view_watch, "_LATE_SECONDS", 0.05)
    publish(log, log.reader.head())
    with watched(log) as made:
        made.look()
        assert not made.watch.late
        log.put_router("other", RouterSpec(embedding_dimensions=8), "a")
        made.look()
        made.look()
        assert made.watch.late
        publish(log, log.reader.head())
        made.look()
        assert not made.watch.late
