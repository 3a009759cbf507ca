"""A server whose clock jumps by ten years: it goes on to learn, to save, to probe, to pace, and drops nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from clocks import DAY_US, MINUTE_US, YEARS_US, Machine
from engines import BOTH_ENGINES, POSTGRESQL
from grpc_health.v1 import health_pb2
from pointsman.v1 import router_service_pb2 as pb
from servers import Disk, Running, eventually, running_app

from policy.circuit import BACK_OFF_US, FAILURES_TO_OPEN
from policy.features import Featuriser
from server.audit import audit
from server.storage.engine import open_engine
from server.storage.reader import LogReader

pytestmark = BOTH_ENGINES

RETENTION_DAYS = 20
WINDOW_US = 60 * MINUTE_US
SESSION_US = 10 * MINUTE_US
BUDGET_USD = 1.0
# In this time a clock that was set back has gone on for at least the time that a test waits for.
SLOWER = 10 / 9


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.fixture
async def running(machine: Machine, url: str, featuriser: Featuriser) -> AsyncIterator[Running]:
    """A server with three models, a session, a budget, and decisions with rewards."""
    clock = machine.log_clock()
    settings = {"retention_days": RETENTION_DAYS, "snapshot_seconds": 0.05}
    async with running_app(url, featuriser, clock=clock, **settings) as served:
        await served.update_router(
            policy="fixed:a",
            session_ttl={"seconds": SESSION_US // 1_000_000},
            reward_rule={"join_window": {"seconds": WINDOW_US // 1_000_000}},
            objective={"budget_usd_per_day": BUDGET_USD},
        )
        await served.create_models(a={"prices": (0.0, 0.0, 0.01)}, b={}, c={})
        for each in range(20):
            decision = await served.route(prompt=f"hello {each}")
            if each % 2:
                await served.report(decision, reward=0.5, usage={"input_tokens": 1, "output_tokens": 1})
        await served.settled()
        yield served


async def jumped(machine: Machine, running: Running, by_us: int) -> None:
    """The clock jumps and stays there, until the server takes no more offence at it."""
    machine.jump_us(by_us)
    await running.route(prompt="just after it")
    machine.pass_us(6 * MINUTE_US)
    await running.route(prompt="later")


async def saved(url: str, seq: int) -> bool:
    """Whether there is a snapshot of this position or a later one."""

    def newest() -> int:
        engine = open_engine(url)
        try:
            return LogReader(engine).latest_snapshots()[0].seq
        finally:
            engine.dispose()

    return await asyncio.to_thread(newest) >= seq


@pytest.fixture(params=["ahead", "back", "ahead and back"])
async def shaken(request: pytest.FixtureRequest, machine: Machine, running: Running) -> Running:
    """The server once its clock has jumped in one way or another."""
    if request.param != "back":
        await jumped(machine, running, YEARS_US)
    if request.param != "ahead":
        await jumped(machine, running, -YEARS_US)
    return running


async def test_it_stays_healthy_and_learns_and_saves_snapshots(shaken: Running, url: str) -> None:
    count = (await shaken.settled()).statistics.decision_count
    decision = await shaken.route(prompt="after the jump")
    assert await shaken.report(decision, reward=1.0) == pb.DISPOSITION_RECORDED
    learned = await shaken.settled()
    assert learned.statistics.decision_count == count + 1
    await eventually(lambda: saved(url, int(learned.statistics.snapshot)))
    await shaken.health_is(health_pb2.HealthCheckResponse.SERVING)


async def test_windows_close_after_their_time(shaken: Running, machine: Machine) -> None:
    decision = await shaken.route(prompt="never reported")
    await shaken.report(await shaken.route(), reward=1.0)
    closed = (await shaken.settled()).statistics
    machine.pass_us(round(WINDOW_US * SLOWER) + MINUTE_US)
    late = await shaken.report(decision, reward=1.0)
    assert late == pb.DISPOSITION_LATE

    async def counted() -> bool:
        found = (await shaken.get_model("a")).statistics
        return found.missing_reward_rate > 0

    await eventually(counted)
    assert closed.decision_count > 0


async def test_a_model_that_failed_is_tried_again_after_its_back_off(shaken: Running, machine: Machine) -> None:
    for _ in range(FAILURES_TO_OPEN):
        await shaken.report(await shaken.route(), error="MODEL_ERROR_UNAVAILABLE")
    await shaken.settled()
    assert (await shaken.route()).model != "a"
    machine.pass_us(round(BACK_OFF_US * SLOWER) + 1_000_000)
    assert (await shaken.route()).model == "a"


async def test_a_session_keeps_its_model_as_long_as_it_should(shaken: Running, machine: Machine) -> None:
    await shaken.update_router(policy="uniform")
    first = (await shaken.route(session_id="s", prompt="one")).model
    for each in range(8):
        machine.pass_us(MINUTE_US)
        assert (await shaken.route(session_id="s", prompt=f"{each}")).model == first
    await shaken.update_router(policy=f"fixed:{'b' if first == 'a' else 'a'}")
    assert (await shaken.route(session_id="s", prompt="still")).model == first
    machine.pass_us(round(SESSION_US * SLOWER) + MINUTE_US)
    assert (await shaken.route(session_id="s", prompt="over")).model != first


async def test_a_day_of_the_budget_ends_and_another_begins(shaken: Running, machine: Machine) -> None:
    async def spend() -> None:
        for _ in range(10):
            decision = await shaken.route()
            await shaken.report(decision, usage={"input_tokens": 1, "output_tokens": 1})

    await spend()
    before = (await shaken.settled()).statistics
    assert before.period_spent_usd > 0.0
    machine.pass_us(round(DAY_US * SLOWER) + MINUTE_US)
    await spend()
    after = (await shaken.settled()).statistics
    assert after.period_start_time.seconds > before.period_start_time.seconds
    assert after.period_budget_usd == BUDGET_USD
    assert after.period_spent_usd <= 10 * 0.01 + 1e-9, "the day before is not charged to this one"


async def test_the_retention_drops_nothing_before_its_time_and_all_of_it_after(
    shaken: Running, machine: Machine, disk: Disk
) -> None:
    assert shaken.app is not None
    retention = shaken.app._retention

    async def days(count: int) -> int:
        """Lets days pass; gives up to where the log was dropped then."""
        for _ in range(2 * count):
            machine.pass_us(DAY_US // 2)
            await retention.prepare()
        await shaken.route(prompt="closes the windows")
        covers = int((await shaken.settled()).statistics.snapshot)
        await eventually(lambda: saved(shaken.url, covers))
        while await retention.drop():
            pass
        return disk.reader.dropped()[0]

    assert await days(RETENTION_DAYS - 2) == 0
    assert await days(5 if disk.engine.dialect.name == "sqlite" else 10) >= 20


async def test_a_jump_ahead_for_a_moment_changes_nothing(running: Running, machine: Machine, url: str) -> None:
    open_one = await running.route(prompt="in flight")
    machine.jump_us(YEARS_US)
    during = await running.route(prompt="in between")
    assert await running.report(open_one, reward=1.0) == pb.DISPOSITION_RECORDED
    machine.jump_us(-YEARS_US)
    after = await running.route(prompt="afterwards")
    assert during.create_time.seconds <= after.create_time.seconds <= during.create_time.seconds + 60
    await running.settled()
    engine = open_engine(url)
    assert audit(LogReader(engine), lambda _: None).passed
    engine.dispose()


async def test_started_again_with_a_clock_that_is_behind_it_goes_on_from_the_log(
    url: str, featuriser: Featuriser
) -> None:
    ahead = Machine()
    async with running_app(url, featuriser, clock=ahead.log_clock()) as served:
        await served.create_models(a={}, b={})
        await jumped(ahead, served, YEARS_US)
        before = await served.route(prompt="in ten years")
    right = Machine()
    async with running_app(url, featuriser, clock=right.log_clock()) as served:
        decision = await served.route(prompt="now")
        assert decision.create_time.seconds >= before.create_time.seconds
        assert decision.decision_id > before.decision_id
        right.pass_us(DAY_US)
        later = await served.route(prompt="tomorrow")
        assert later.create_time.seconds >= decision.create_time.seconds + 0.85 * 86_400


@POSTGRESQL
async def test_a_clock_that_is_ahead_of_the_databases_keeps_a_server_from_starting(
    url: str, featuriser: Featuriser
) -> None:
    wrong = Machine()
    async with running_app(url, featuriser, clock=Machine().log_clock()) as served:
        await served.create_models(a={}, b={})
        before = await served.route(prompt="before")
        wrong.jump_us(YEARS_US)
        with pytest.raises(OSError, match="ahead of the database's, and of its log, by 3155"):
            async with running_app(url, featuriser, clock=wrong.log_clock()):
                pass
        after = await served.route(prompt="after")
        assert after.create_time.seconds < before.create_time.seconds + YEARS_US // 2_000_000
        assert await served.report(before, reward=1.0) == pb.DISPOSITION_RECORDED
    # One that is a little ahead, or years behind, does not.
    for off_us in (4 * MINUTE_US, -YEARS_US):
        other = Machine()
        other.jump_us(off_us)
        async with running_app(url, featuriser, clock=other.log_clock()) as served:
            assert (await served.route(prompt="again")).create_time.seconds >= after.create_time.seconds


@POSTGRESQL
async def test_where_the_log_has_come_as_far_a_server_with_that_clock_may_start(
    url: str, featuriser: Featuriser
) -> None:
    machine = Machine()
    async with running_app(url, featuriser, clock=machine.log_clock()) as served:
        await served.create_models(a={}, b={})
        await jumped(machine, served, YEARS_US)
    async with running_app(url, featuriser, clock=machine.log_clock()) as served:
        await served.route(prompt="again")
