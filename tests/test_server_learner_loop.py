"""The learner at work: views, snapshots, ticks, and what happens when it fails."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
from engines import BOTH_ENGINES
from grpc_health.v1 import health_pb2
from pointsman.v1 import router_service_pb2 as pb
from servers import Disk, Running, draft_decision, eventually, hex_id, running_app

import policy.learner
from policy.domain import RouterSpec
from policy.features import Featuriser
from policy.learner import RouterLearner
from server.errors import StorageUnavailableError
from server.learner_fold import LearnerFold
from server.learner_loop import LearnerLoop
from server.storage import registry_store
from server.storage.reader import LogReader, StoredSnapshot
from server.storage.tail import LogPage
from server.storage.writes import Transact
from server.views import Views

pytestmark = BOTH_ENGINES

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def loop_on(disk: Disk, submit: Callable[[Any], object], views: Views, health: list[bool]) -> LearnerLoop:
    return LearnerLoop(disk.reader, views, submit, lambda: disk.now_us, health.append, 1e6)


class Behind(LogReader):
    """The log as a learner sees it that has come no further, and knows of nothing that was saved since."""

    def __init__(self, disk: Disk, upto: int) -> None:
        super().__init__(disk.engine)
        self._upto = upto

    def head(self) -> int:
        return self._upto

    def page(self, after: int, limit: int) -> LogPage:
        return (
            super().page(after, min(limit, self._upto - after))
            if after < self._upto
            else LogPage(after, [], after)
        )

    def latest_snapshots(self) -> list[StoredSnapshot]:
        return []


def learn(disk: Disk, reader: LogReader) -> None:
    """All that the reader sees, and saves it."""
    loop = LearnerLoop(reader, Views(), disk.one, lambda: disk.now_us, lambda _: None, 1e6)
    loop.start()
    loop.stop()


def fingerprints(fold: LearnerFold) -> dict[str, str]:
    while fold.advance(1000):
        pass
    return {router: fold.learner(router).fingerprint() for router in fold.routers}


async def test_what_is_learned_is_published(server: Running) -> None:
    await server.create_models(a={}, b={})
    before = (await server.get_router()).statistics
    decision = await server.route(prompt="hello")
    assert await server.report(decision, reward=0.5) == pb.DISPOSITION_RECORDED
    after = (await server.settled()).statistics
    assert (before.decision_count, before.reward_count) == (0, 0)
    assert (after.decision_count, after.reward_count) == (1, 1)
    assert int(after.snapshot) > int(decision.snapshot)


async def test_health_is_serving_once_the_learner_follows_the_log(server: Running) -> None:
    for service in ("", "pointsman.v1.RouterService", "pointsman.v1.RegistryService"):
        await server.health_is(SERVING, service)


async def test_a_learner_that_dies_makes_health_fail_and_says_why_in_the_log(
    server: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def die(*_: object) -> None:
        raise ZeroDivisionError("a fault in the learner")

    await server.create_models(a={})
    await server.health_is(SERVING)
    monkeypatch.setattr(RouterLearner, "on_decision", die)
    with caplog.at_level(logging.ERROR):
        await server.route(prompt="hello")
        for service in ("", "pointsman.v1.RouterService", "pointsman.v1.RegistryService"):
            await server.health_is(NOT_SERVING, service)
    dead = next(each for each in caplog.records if each.name == "server.learner_loop")
    assert dead.exc_info is not None
    assert "a fault in the learner" in caplog.text
    answer = await server.route(prompt="still decides by what was known")
    assert answer.model == "a"


async def test_a_snapshot_is_saved_when_the_server_stops(url: str, featuriser: Featuriser, disk: Disk) -> None:
    async with running_app(url, featuriser, snapshot_seconds=3600) as server:
        await server.create_models(a={}, b={})
        decision = await server.route(prompt="hello")
        await server.report(decision, reward=0.5)
        assert LogReader(disk.engine).latest_snapshots() == []
    (saved,) = LogReader(disk.engine).latest_snapshots()
    restored = RouterLearner.restore(saved.router, saved.state)
    assert fingerprints(LearnerFold(disk.reader, []))["default"] == restored.fingerprint()


async def test_snapshots_are_saved_while_serving_and_only_a_few_kept(
    url: str, featuriser: Featuriser, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.learner_loop._SAVE_SHARE", 1.0)
    seen: set[int] = set()
    async with running_app(url, featuriser, snapshot_seconds=0.01) as server:
        await server.create_models(a={}, b={})

        async def many() -> bool:
            await server.route(prompt="hello")
            kept = [each.seq for each in disk.reader.all_snapshots()]
            assert len(kept) <= 5
            seen.update(kept)
            return len(seen) > 5

        await eventually(many)
    assert [each.seq for each in disk.reader.latest_snapshots()] == [
        max(list(disk.reader.all_snapshots()), key=seq).seq
    ]


async def test_snapshots_are_saved_more_rarely_where_saving_takes_long(
    url: str, featuriser: Featuriser, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.learner_loop._SAVE_SHARE", 1e-9)
    async with running_app(url, featuriser, snapshot_seconds=0.01) as server:
        await server.create_models(a={}, b={})

        async def saved() -> list[int]:
            await server.route(prompt="hello")
            return [each.seq for each in disk.reader.all_snapshots()]

        first = await eventually(saved)
        for _ in range(20):
            assert await saved() == first
        await server.settled()
        assert await saved() == first
    assert max(each.seq for each in disk.reader.all_snapshots()) > max(first)


def seq(snapshot: Any) -> int:
    return int(snapshot.seq)


async def test_a_restarted_server_knows_what_it_had_learned(url: str, featuriser: Featuriser) -> None:
    async with running_app(url, featuriser) as server:
        await server.create_models(a={}, b={})
        for _ in range(20):
            await server.report(await server.route(prompt="hello"), reward=0.5)
        before = (await server.settled()).statistics
    async with running_app(url, featuriser) as server:
        await server.health_is(SERVING)
        after = (await server.settled()).statistics
    assert (after.decision_count, after.reward_count) == (20, 20)
    assert (before.decision_count, before.reward_count) == (20, 20)


async def test_a_window_closes_in_an_idle_log_too(server: Running) -> None:
    name = await server.create_router(
        "brief", reward_rule={"join_window": {"nanos": 1000}, "missing_reward": 0.25}
    )
    await server.create_models(name, a={})
    await server.route(router=name, prompt="hello")

    async def closed() -> bool:
        model = await server.get_model("a", name)
        return bool(model.statistics.closed_count == 1 and model.statistics.missing_reward_rate == 1.0)

    await eventually(closed)
    assert (await server.get_model("a", name)).statistics.mean_reward == 0.25


def test_a_learner_that_cannot_save_says_so_and_keeps_what_it_learned(disk: Disk) -> None:
    disk.put_router("default", RouterSpec(embedding_dimensions=8), "a", "b")
    disk.decide(draft_decision(hex_id(1)))
    health: list[bool] = []

    def refuse(_: object) -> None:
        raise StorageUnavailableError

    views = Views()
    loop = loop_on(disk, refuse, views, health)
    loop.start()
    loop.stop()
    assert health[-1] is False
    view = views.get(disk.registry.router("default"))
    assert view is not None
    assert view.router.decisions == 1


def test_a_crash_between_the_snapshots_of_two_routers_loses_neither(disk: Disk) -> None:
    for router in ("first", "second"):
        disk.put_router(router, RouterSpec(embedding_dimensions=8), "a", "b")
        decision = disk.decide(draft_decision(hex_id(ord(router[0])), router))
        disk.report(decision, reward=1.0)
    whole = fingerprints(LearnerFold(disk.reader, []))
    saved = 0

    def one_only(write: Any) -> None:
        nonlocal saved
        if saved:
            raise StorageUnavailableError
        disk.one(write)
        saved += 1

    loop = loop_on(disk, one_only, Views(), [])
    loop.start()
    loop.stop()
    assert len(disk.reader.latest_snapshots()) == 2
    again = fingerprints(LearnerFold(disk.reader, disk.reader.latest_snapshots()))
    assert again == whole, "a router without a snapshot is forgotten, as another one's says where to go on"


def test_a_snapshot_of_another_version_is_passed_over_and_the_log_learned_again(
    disk: Disk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    disk.put_router("default", RouterSpec(embedding_dimensions=8), "a", "b")
    disk.report(disk.decide(draft_decision(hex_id(1))), reward=1.0)
    for version in (policy.learner.STATE_VERSION - 1, policy.learner.STATE_VERSION):
        monkeypatch.setattr(policy.learner, "STATE_VERSION", version)
        health: list[bool] = []
        views = Views()
        loop = loop_on(disk, disk.one, views, health)
        loop.start()
        loop.stop()
        assert health == [True]
        assert views.get(disk.registry.router("default")).router.rewards == 1
    assert "the whole log is learned again" in caplog.text
    again = fingerprints(LearnerFold(disk.reader, disk.reader.latest_snapshots()))
    assert again == fingerprints(LearnerFold(disk.reader, []))


def test_what_a_learner_saves_late_changes_nothing_that_another_has_saved(disk: Disk) -> None:
    for router in ("default", "gone"):
        disk.put_router(router, RouterSpec(embedding_dimensions=8), "a", "b")
    for number in range(20):
        disk.decide(draft_decision(hex_id(number), seed=number))
    disk.one(Transact(registry_store.delete_router("gone", None)))
    deleted = disk.reader.head()
    disk.put_router("gone", RouterSpec(embedding_dimensions=8), "a", "b")
    for number in range(20, 40):
        disk.decide(draft_decision(hex_id(number), "gone", seed=number))
    learn(disk, disk.reader)
    saved = {each.router.id: (each.seq, each.state) for each in disk.reader.latest_snapshots()}
    assert set(saved) == {"default", "gone"}
    for upto in (deleted - 10, deleted, deleted + 3):
        learn(disk, Behind(disk, upto))
        assert {each.router.id: (each.seq, each.state) for each in disk.reader.latest_snapshots()} == saved
