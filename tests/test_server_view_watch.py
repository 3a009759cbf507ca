"""The watch over what other servers publish: what it takes, what it refuses, and what it asks again."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from engines import BOTH_ENGINES
from servers import DEADLINE_SECONDS, Disk

import policy.view_state
import server.view_watch
from policy.domain import RouterSpec
from policy.learner import RouterLearner
from policy.view_state import dump_view
from server.storage.view_store import LearnerHead, StoredView, publish_views
from server.view_watch import ViewWatch
from server.views import CandidateViews, Views

pytestmark = BOTH_ENGINES


class Watched:
    """A watch, what it has put in place, and what it was told of the registry."""

    def __init__(self, disk: Disk, on_registry: Callable[[set[str]], object]) -> None:
        self.views, self.candidate_views = Views(), CandidateViews()
        self._looked = threading.Condition()
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
        with self._looked:
            self._looks += 1
            self._looked.notify_all()

    def look(self) -> None:
        """Returns when it has looked once more, from beginning to end."""
        with self._looked:
            until = self._looks + 2
            assert self._looked.wait_for(lambda: self._looks >= until, DEADLINE_SECONDS)


@contextmanager
def watched(disk: Disk, on_registry: Callable[[set[str]], object] = lambda _: None) -> Iterator[Watched]:
    made = Watched(disk, on_registry)
    made.watch.start(disk.reader.head())
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
    asked: list[set[str]] = []

    def take(routers: set[str]) -> None:
        asked.append(routers)
        if len(asked) == 1:
            raise TimeoutError

    with watched(log, take) as found:
        log.put_router("other", RouterSpec(), "x")
        found.look()
        found.look()
    assert asked[:2] == [{"other"}, {"other"}]
    assert len(asked) == 2


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
