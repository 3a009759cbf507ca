"""A server killed again and again under load loses nothing that it acknowledged, and counts nothing twice.

POINTSMAN_CRASHES says how often it is killed (4; the long form is 20), POINTSMAN_TEST_SEED repeats a run.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from dataclasses import dataclass, field
from random import Random

import grpc
import pytest
from engines import BOTH_ENGINES
from pointsman.v1 import registry_service_pb2 as registry_pb
from pointsman.v1 import router_service_pb2 as pb
from servers import Running, seeded, serving_process
from sqlalchemy import func, select

from server.audit import audit
from server.storage.engine import open_engine
from server.storage.reader import LogReader
from server.storage.schema import decisions, reports

pytestmark = BOTH_ENGINES

CRASHES = int(os.environ.get("POINTSMAN_CRASHES", "4"))
CALLERS = 12
ROUTERS = ("routers/default", "routers/second")
BUSY = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.CANCELLED}


@dataclass
class Ledger:
    """What the server has acknowledged, and what was asked and not answered."""

    decisions: dict[str, pb.RouteResponse] = field(default_factory=dict)
    reports: dict[tuple[str, str], float] = field(default_factory=dict)
    unanswered: list[object] = field(default_factory=list)


async def call(server: Running, ledger: Ledger, request: pb.RouteRequest | pb.ReportRewardRequest) -> bool:
    """Asks, and writes down what is acknowledged; False once the server is gone."""
    try:
        if isinstance(request, pb.RouteRequest):
            answer = await server.router.Route(request)
            known = ledger.decisions.setdefault(request.request_id, answer)
            assert known == answer, "the same request_id got another decision"
        else:
            await server.router.ReportReward(request)
            ledger.reports[request.decision_id, request.report_id] = request.reward
    except grpc.aio.AioRpcError as error:
        assert error.code() in BUSY, error
        ledger.unanswered.append(request)
        return False
    return True


async def caller(server: Running, ledger: Ledger, random: Random, name: str) -> None:
    """Routes and reports until the server is gone; asks some things twice."""
    for number in range(1_000_000):
        request_id = f"{name}-{number}"
        route = pb.RouteRequest(
            router=random.choice(ROUTERS), request_id=request_id, prompt=f"question {random.random()}"
        )
        for _ in range(random.choice((1, 1, 1, 2))):
            if not await call(server, ledger, route):
                return
        decision_id = ledger.decisions[request_id].decision_id
        told = random.choice(((), ("r",), ("r", "r"), ("r", "s")))
        if ledger.decisions[request_id].second_model:
            told += random.choice(((), ("second",), ("second", "second")))
        for report_id in told:
            report = pb.ReportRewardRequest(decision_id=decision_id, report_id=report_id, reward=random.random())
            if report_id == "second":
                report.second = True
                report.usage.cost_usd = random.random() * 0.01
            if not await call(server, ledger, report):
                return


async def one_life(port: int, kill: object, ledger: Ledger, random: Random, life: int) -> None:
    """Asks again what was not answered, then loads the server until it is killed at a random moment."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        server = Running("", "", channel)
        again, ledger.unanswered = ledger.unanswered, []
        for request in again:
            assert await call(server, ledger, request)
        target = len(ledger.decisions) + random.randrange(5, 400)
        callers = [
            asyncio.create_task(caller(server, ledger, Random(random.random()), f"{life}-{i}"))
            for i in range(CALLERS)
        ]
        while len(ledger.decisions) < target:
            await asyncio.sleep(random.random() * 0.01)
        kill()
        await asyncio.gather(*callers)


async def register(port: int) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        server = Running("", "", channel)
        await server.create_router(
            "second",
            objective={"budget_usd_per_request": 0.002},
            paid_shadow={"share": 0.2, "max_usd_per_day": 0.5},
            reward_rule={"join": registry_pb.REWARD_JOIN_MEAN},
        )
        for router in ROUTERS:
            await server.create_models(router, a={"prices": (0.0, 0.0, 0.001)}, b={"prices": (0.0, 0.0, 0.01)})


async def learned_rewards(url: str, port: int) -> int:
    """How many rewards the learner has learned once it is through the log."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        server = Running(url, "", channel)
        learned: list[registry_pb.Router] = [await server.settled(router) for router in ROUTERS]
    return sum(each.statistics.reward_count for each in learned)


def require_kept(url: str, ledger: Ledger) -> int:
    """Every acknowledged decision and report is there, once; gives how many calls have a reward."""
    engine = open_engine(url)
    with engine.connect() as connection:
        stored = dict(connection.execute(select(decisions.c.decision_id, decisions.c.model)).all())
        rows = connection.execute(select(reports.c.decision_id, reports.c.report_id, reports.c.second)).all()
        once = select(func.count(func.distinct(decisions.c.router + decisions.c.request_id)))
        assert connection.execute(once).scalar_one() == len(stored)
    engine.dispose()
    for answer in ledger.decisions.values():
        assert stored.get(answer.decision_id) == answer.model
    assert set(Counter((row.decision_id, row.report_id) for row in rows).values()) <= {1}
    kept = {(row.decision_id, row.report_id) for row in rows}
    assert set(ledger.reports) <= kept
    return len({(row.decision_id, row.second) for row in rows})


def require_consistent(url: str) -> None:
    """The draws, the snapshots and the books of second calls follow from the log."""
    engine = open_engine(url)
    result = audit(LogReader(engine), lambda _: None)
    engine.dispose()
    assert result.passed, result.examples
    assert result.decisions > 0


@pytest.mark.slow
def test_a_server_killed_under_load_loses_nothing_and_counts_nothing_twice(url: str) -> None:
    random = seeded(f"{CRASHES} crashes")
    ledger = Ledger()
    environment = {"POINTSMAN_SNAPSHOT_SECONDS": "0.1"}
    for life in range(CRASHES):
        with serving_process("--database-url", url, **environment) as (process, port):
            if life == 0:
                asyncio.run(register(port))
            asyncio.run(one_life(port, process.kill, ledger, random, life))
        require_kept(url, ledger)
        require_consistent(url)
    rewarded = require_kept(url, ledger)
    assert rewarded > 0
    with serving_process("--database-url", url, **environment) as (_, port):
        assert asyncio.run(learned_rewards(url, port)) == rewarded
    require_consistent(url)
