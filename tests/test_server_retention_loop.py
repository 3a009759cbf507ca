"""A server that keeps what it was told to, and refuses windows that would outlive it."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest
from engines import BOTH_ENGINES
from pointsman.v1 import registry_service_pb2 as registry_pb
from servers import DAY_US, Disk, Running, draft_decision, eventually, refusal, running_app, serving_process
from sqlalchemy import func, select, text

from policy.domain import InvalidFieldError, RewardRule, RouterSpec
from policy.features import Featuriser
from server.audit import audit
from server.clock import new_decision_id, now_us
from server.config_file import ConfigError, read_config
from server.retention_loop import partition_days
from server.storage.schema import decisions, log_head
from server.storage.writes import DecisionWrite, Transact

pytestmark = BOTH_ENGINES
DAY_SECONDS = 86_400


def old_log(disk: Disk) -> None:
    """A log that ended long ago, learned to its end."""
    disk.now_us = now_us() - 60 * DAY_US
    disk.put_router("default", RouterSpec(), "a", "b")
    for _ in range(3):
        ids = [new_decision_id(disk.now_us) for _ in range(150)]
        disk.write(*(DecisionWrite(draft_decision(each, dimensions=256), DAY_US) for each in ids))
        disk.now_us += 10 * DAY_US
    disk.one(Transact(lambda *_: None))


def count(disk: Disk) -> int:
    with disk.engine.connect() as connection:
        return int(connection.execute(select(func.count()).select_from(decisions)).scalar_one())


async def test_a_server_drops_what_is_old_while_it_serves(url: str, featuriser: Featuriser, disk: Disk) -> None:
    old_log(disk)

    async with running_app(url, featuriser, retention_days=20, snapshot_seconds=0.05) as server:
        assert server.app is not None
        retention = server.app._retention

        async def dropped() -> bool:
            await server.route(prompt="hello")
            await retention.drop()
            floor, _ = disk.reader.dropped()
            return floor >= 450

        await eventually(dropped)
        assert (await server.settled()).statistics.decision_count > 450, "what was learned stays"
        answer = await server.route(prompt="hello", request_id="r")
        assert await server.route(prompt="hello", request_id="r") == answer
    assert disk.reader.decision(answer.decision_id) is not None
    result = audit(disk.reader, lambda _: None)
    assert result.dropped >= 450
    assert result.snapshots_wrong == 0
    async with running_app(url, featuriser) as server:
        assert (await server.settled()).statistics.decision_count > 450, "also after a restart"


async def test_without_a_retention_nothing_is_dropped(url: str, featuriser: Featuriser, disk: Disk) -> None:
    old_log(disk)
    async with running_app(url, featuriser) as server:
        await server.settled()
        assert await server.app._retention.drop() == 0
    assert count(disk) == 450


async def test_nothing_is_dropped_before_the_learner_has_come_to_the_end(
    url: str, featuriser: Featuriser, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    old_log(disk)
    monkeypatch.setattr("server.learning.Learning.learns", False)
    async with running_app(url, featuriser, retention_days=20, snapshot_seconds=0.05) as server:
        retention = server.app._retention

        async def all_is_saved() -> bool:
            await server.route(prompt="hello")
            return len(disk.reader.latest_snapshots()) == 1 and disk.reader.latest_snapshots()[0].seq > 450

        await eventually(all_is_saved)
        assert await retention.drop() == 0
        monkeypatch.undo()

        async def dropped() -> bool:
            await server.route(prompt="hello")
            return await retention.drop() > 0

        await eventually(dropped)


async def test_that_what_is_old_has_to_stay_is_said_once(
    url: str, featuriser: Featuriser, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    old_log(disk)
    disk.now_us = now_us() - 40 * DAY_US
    disk.decide(draft_decision(new_decision_id(disk.now_us), dimensions=256), window_us=400 * DAY_US)
    async with running_app(url, featuriser, retention_days=20, snapshot_seconds=0.05) as server:
        retention = server.app._retention

        async def held() -> bool:
            await server.route(prompt="hello")
            return not await retention.drop() and "drops nothing" in caplog.text

        await eventually(held)
        await retention.drop()
    assert caplog.text.count("the retention drops nothing") == 1
    assert count(disk) > 0


async def test_the_partitions_that_are_needed_next_are_there_at_the_start(server: Running, disk: Disk) -> None:
    with disk.engine.connect() as connection:
        until = connection.execute(select(log_head.c.partitioned_until)).scalar_one()
    assert until > new_decision_id(now_us() + 30 * DAY_US)
    if disk.engine.dialect.name == "postgresql":
        with disk.engine.connect() as connection:
            made = connection.execute(
                text("SELECT count(*) FROM pg_inherits WHERE inhparent = 'reports'::regclass")
            )
            assert made.scalar_one() == 2


def test_a_partition_is_a_twelfth_of_what_is_kept_and_a_day_at_least() -> None:
    assert [partition_days(each) for each in (0.5, 1, 12, 13, 365, None)] == [1, 1, 1, 2, 31, 30]


async def test_a_window_that_would_outlive_the_retention_is_refused(url: str, featuriser: Featuriser) -> None:
    async with running_app(url, featuriser, retention_days=2) as server:
        await server.create_router("fits", reward_rule={"join_window": {"seconds": 2 * DAY_SECONDS}})
        rule = {"join_window": {"seconds": 2 * DAY_SECONDS + 1}}
        told = await refusal(server.create_router("longer", reward_rule=rule))
        assert (told.code, told.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["reward_rule.join_window"])
        assert "POINTSMAN_RETENTION_DAYS" in told.message
        router = registry_pb.Router(name="routers/fits", reward_rule=rule)
        told = await refusal(server.registry.UpdateRouter(registry_pb.UpdateRouterRequest(router=router)))
        assert told.fields == ["reward_rule.join_window"]


async def test_a_server_does_not_start_with_a_retention_below_a_window_that_is_there(
    url: str, featuriser: Featuriser, disk: Disk
) -> None:
    disk.put_router("patient", RouterSpec(reward_rule=RewardRule(join_window_seconds=7 * DAY_SECONDS)), "a")
    with pytest.raises(InvalidFieldError, match=r"routers\.patient\.reward_rule\.join_window_seconds: .*604800"):
        async with running_app(url, featuriser, retention_days=2):
            raise AssertionError("it has started")


def test_a_file_with_such_a_window_is_refused_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "routers.yaml"
    path.write_text("routers: {slow: {reward_rule: {join_window_seconds: 172801}}}")
    assert len(read_config(path, 3 * DAY_SECONDS)) == 1
    with pytest.raises(
        ConfigError, match=r"routers.yaml:1: routers\.slow\.reward_rule\.join_window_seconds: must be"
    ):
        read_config(path, 2 * DAY_SECONDS)
    with (
        pytest.raises(AssertionError, match=r"routers\.slow\.reward_rule\.join_window_seconds"),
        serving_process("--config", str(path), POINTSMAN_RETENTION_DAYS="2"),
    ):
        pass
