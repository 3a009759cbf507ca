"""What routers did over time: it adds up to what the learner says, whatever happens in between."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from typing import Any

import grpc
import pytest
from clocks import DAY_US, MINUTE_US, Machine
from engines import BOTH_ENGINES, POSTGRESQL
from pointsman.v1 import registry_service_pb2 as registry_pb
from pointsman.v1 import router_service_pb2 as pb
from servers import Running, eventually, last_seq, refused, running_app
from sqlalchemy import func, select, update

from policy.features import Featuriser
from server import history_loop
from server.storage.engine import open_engine
from server.storage.history_store import read_cursor, read_step, store_step
from server.storage.schema import history, history_cursor

pytestmark = BOTH_ENGINES

ROUTER = "routers/support"
WINDOW_US = 60 * MINUTE_US
COUNTS = (
    *("decision_count", "exploration_count", "reward_count", "reward_sum", "cost_usd", "error_count"),
    *("closed_count", "missing_count", "late_count"),
)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_loop, "_EVERY_SECONDS", 0.05)
    monkeypatch.setattr(history_loop, "_PART", 3)  # So that what a step counts comes of several.


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.fixture
async def running(machine: Machine, url: str, featuriser: Featuriser) -> AsyncIterator[Running]:
    async with running_app(url, featuriser, clock=machine.log_clock()) as served:
        await started(served)
        yield served


async def started(served: Running) -> None:
    rule = {"join_window": {"seconds": WINDOW_US // 1_000_000}}
    await served.create_router("support", policy="uniform", reward_rule=rule)
    await served.create_models(ROUTER, a={"prices": (0.0, 0.0, 0.01)}, b={"prices": (0.0, 0.0, 0.001)})


async def some_traffic(served: Running, count: int = 30) -> list[pb.RouteResponse]:
    """Of every three one is rewarded and paid, one fails, of one nothing is heard."""
    made = []
    for index in range(count):
        made.append(await served.route(router=ROUTER, prompt=f"question {index}"))
        if index % 3 == 0:
            await served.report(made[-1], reward=0.25, usage={"cost_usd": 0.5})
        elif index % 3 == 1:
            await served.report(made[-1], error=pb.MODEL_ERROR_TIMEOUT)
    return made


async def history_of(served: Running, **asked: Any) -> registry_pb.History:
    """The history once the whole log of the router is counted."""
    last = await asyncio.to_thread(last_seq, served.url, "support")

    async def counted() -> registry_pb.History | None:
        request = registry_pb.GetHistoryRequest(name=ROUTER, **asked)
        found = (await served.registry.GetHistory(request)).history
        return found if int(found.position) >= last else None

    found: registry_pb.History = await eventually(counted)
    return found


def recently(machine: Machine) -> Any:
    """Six hours ago: no more minutes than may be asked for."""
    return {"seconds": machine.wall_ns() // 1_000_000_000 - 6 * 3600}


def summed(found: registry_pb.History) -> dict[str, Counter[str]]:
    """Its counts over all of the time, by model."""
    sums: dict[str, Counter[str]] = {}
    for bucket in found.buckets:
        for model in bucket.models:
            sums.setdefault(model.model, Counter()).update({each: getattr(model, each) for each in COUNTS})
    return sums


async def test_it_adds_up_to_what_the_learner_says(machine: Machine, running: Running) -> None:
    made = await some_traffic(running)
    machine.pass_us(WINDOW_US + MINUTE_US)
    await running.report(made[2], reward=1.0)
    await running.route(router=ROUTER, prompt="the last")
    router = await running.settled(ROUTER)
    sums = summed(await history_of(running))
    for model_id, found in sums.items():
        told = (await running.get_model(model_id, ROUTER)).statistics
        assert found["decision_count"] == told.decision_count
        assert found["exploration_count"] == told.exploration.decision_count
        assert found["reward_count"] == told.reward_count
        assert found["reward_sum"] == pytest.approx(told.reward_count * told.mean_reward)
        assert found["error_count"] == told.error_count
        assert found["closed_count"] == told.closed_count
        assert found["missing_count"] == pytest.approx(told.missing_reward_rate * told.closed_count)
    total = sum(sums.values(), Counter())
    assert (total["decision_count"], total["closed_count"], total["late_count"]) == (31, 30, 1)
    assert total["cost_usd"] == pytest.approx(router.statistics.spent_usd)


async def test_a_revised_reward_changes_the_sum_and_not_the_count(running: Running) -> None:
    await running.update_router(ROUTER, reward_rule={"join": registry_pb.REWARD_JOIN_LAST})
    decision = await running.route(router=ROUTER, prompt="hello")
    for reward in (0.25, 1.0, 0.5):
        await running.report(decision, reward=reward)
    sums = summed(await history_of(running))[decision.model]
    assert (sums["reward_count"], sums["reward_sum"]) == (1, 0.5)


async def test_a_decision_asked_ahead_counts_from_when_it_is_used(machine: Machine, running: Running) -> None:
    used, unused = [
        await running.route(router=ROUTER, prompt=each, defer_activation=True) for each in ("used", "unused")
    ]
    assert summed(await history_of(running)) == {}
    machine.pass_us(5 * MINUTE_US)
    await running.router.ActivateDecision(pb.ActivateDecisionRequest(decision_id=used.decision_id))
    machine.pass_us(WINDOW_US)
    await running.route(router=ROUTER, prompt="another")
    found = await history_of(running, start_time=recently(machine), bucket={"seconds": 60})
    total = sum(summed(found).values(), Counter())
    assert (total["decision_count"], total["closed_count"]) == (2, 1)
    first = found.buckets[0].start_time.ToMicroseconds()
    decided = (await running.decision(used)).create_time.ToMicroseconds()
    assert first > decided
    assert unused.decision_id


async def test_imported_decisions_and_second_calls_are_none_of_it(running: Running) -> None:
    rows = [pb.ImportedDecision(request_id=str(each), prompt="x", model="a", reward=1.0) for each in range(5)]
    await running.router.ImportDecisions(pb.ImportDecisionsRequest(router=ROUTER, decisions=rows))
    await running.update_router(ROUTER, paid_shadow={"share": 0.2, "max_usd_per_day": 10.0})
    seconds = 0
    for index in range(200):
        decision = await running.route(router=ROUTER, prompt=f"question {index}")
        await running.report(decision, usage={"cost_usd": 0.5})
        if decision.second_model:
            seconds += 1
            await running.report(decision, second=True, reward=1.0, usage={"cost_usd": 7.0})
    total = sum(summed(await history_of(running)).values(), Counter())
    assert seconds > 0
    assert (total["decision_count"], total["reward_count"], total["cost_usd"]) == (200, 0, 100.0)


async def test_minutes_hours_and_days_say_the_same(machine: Machine, running: Running) -> None:
    for _ in range(5):
        await some_traffic(running, 6)
        machine.pass_us(7 * MINUTE_US)
    await running.settled(ROUTER)
    sums = [
        summed(await history_of(running, start_time=recently(machine), bucket={"seconds": minutes * 60}))
        for minutes in (1, 7, 60, 180, 1440, 2880)
    ]
    assert all(each == sums[0] for each in sums)
    buckets = (await history_of(running, start_time=recently(machine), bucket={"seconds": 60})).buckets
    assert len(buckets) >= 5


async def test_what_was_counted_before_a_restart_is_not_counted_again(
    machine: Machine, url: str, featuriser: Featuriser
) -> None:
    for each in range(3):
        async with running_app(url, featuriser, clock=machine.log_clock()) as served:
            if each == 0:
                await started(served)
            await some_traffic(served, 9)
            if each != 1:  # In between one stops with some of it uncounted.
                await history_of(served)
    async with running_app(url, featuriser, clock=machine.log_clock()) as served:
        total = sum(summed(await history_of(served)).values(), Counter())
    assert (total["decision_count"], total["reward_count"], total["cost_usd"]) == (27, 9, 4.5)


async def test_who_counts_the_same_part_second_stores_nothing(running: Running) -> None:
    await some_traffic(running)
    await history_of(running)
    engine = open_engine(running.url)
    try:
        with engine.begin() as connection:
            connection.execute(update(history_cursor).values(seq=0, closed_through_us=0))
            first = read_cursor(connection)
            step = read_step(connection, first, 1_000_000)
            total = select(func.sum(history.c.decisions)).where(history.c.level_minutes == 1)
            counted = connection.execute(total).scalar_one()
            assert store_step(first, step)(connection, 0, 0)
            assert not store_step(first, step)(connection, 0, 0)
            assert connection.execute(total).scalar_one() == 2 * counted
            connection.rollback()
    finally:
        engine.dispose()


@POSTGRESQL
async def test_several_servers_count_everything_once(url: str, featuriser: Featuriser) -> None:
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(running_app(url, featuriser)) for _ in range(3)]
        await started(servers[0])
        for served in servers[1:]:
            await eventually(lambda served=served: _knows_models(served))
        await asyncio.gather(*(some_traffic(served) for served in servers))
        total = sum(summed(await history_of(servers[1])).values(), Counter())
    assert (total["decision_count"], total["reward_count"], total["error_count"]) == (90, 30, 30)


async def _knows_models(served: Running) -> bool:
    request = registry_pb.ListModelsRequest(parent=ROUTER)
    try:
        return len((await served.registry.ListModels(request)).models) == 2
    except grpc.aio.AioRpcError:
        return False


async def test_old_minutes_go_and_their_hours_and_days_stay(machine: Machine, running: Running) -> None:
    await some_traffic(running, 9)
    await running.settled(ROUTER)
    before = await history_of(running, start_time=recently(machine), bucket={"seconds": 60})
    machine.pass_us(4 * DAY_US)
    await running.route(router=ROUTER, prompt="days later")

    async def pruned() -> bool:
        def first() -> int:
            engine = open_engine(running.url)
            try:
                with engine.connect() as connection:
                    mine = history.c.level_minutes == 1
                    oldest = select(func.min(history.c.start_minute)).where(mine)
                    return int(connection.execute(oldest).scalar_one() or 0)
            finally:
                engine.dispose()

        return await asyncio.to_thread(first) * MINUTE_US > before.end_time.ToMicroseconds()

    await eventually(pruned)
    start = before.start_time
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await history_of(running, start_time=start, bucket={"seconds": 600})
    refusal = refused(caught.value)
    assert "bucket: must be made of what is still kept" in refusal.message
    found = await history_of(running, start_time=start)
    assert found.bucket.seconds % 3600 == 0
    assert sum(summed(found).values(), Counter())["decision_count"] == 10


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"bucket": {"seconds": 61}}, "bucket: must be a whole number of minutes"),
        ({"bucket": {"seconds": 0}}, "bucket: must be a whole number of minutes"),
        ({"bucket": {"seconds": -60}}, "bucket: must be a whole number of minutes"),
        ({"bucket": {"seconds": 315_360_000_000}}, "bucket: must be a whole number of minutes"),
        ({"start_time": {"seconds": 4_102_444_800}}, "start_time: must be before end_time, and before now"),
        ({"bucket": {"seconds": 60}}, "bucket: must be longer: at most 500 are given, not 144"),
        ({"start_time": {"seconds": 10}, "end_time": {"seconds": 10}}, "start_time: must be before end_time"),
        ({"start_time": {"seconds": 1 << 40}}, "start_time: must be a time between 1970 and 9999"),
        ({"start_time": {"seconds": 0}, "bucket": {"seconds": 60}}, "bucket: must be made of what is still kept"),
        ({"name": "routers/none"}, "there is no router 'none'"),
    ],
)
async def test_what_cannot_be_given_is_refused_with_the_field(
    running: Running, asked: Mapping[str, Any], told: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await running.registry.GetHistory(registry_pb.GetHistoryRequest(**{"name": ROUTER, **asked}))
    assert told in refused(caught.value).message


async def test_from_the_beginning_of_time_until_now_there_are_few_buckets(running: Running) -> None:
    await some_traffic(running, 3)
    found = await history_of(running, start_time={"seconds": 0})
    days = found.bucket.seconds / 86_400
    assert days == int(days)
    assert (found.end_time.seconds - found.start_time.seconds) / found.bucket.seconds <= 121
    assert sum(summed(found).values(), Counter())["decision_count"] == 3
