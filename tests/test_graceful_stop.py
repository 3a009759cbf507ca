"""A server that is told to stop under load finishes what it has begun, says so to the rest, and ends with 0."""

from __future__ import annotations

import asyncio
import signal
from random import Random

import grpc
from engines import BOTH_ENGINES
from servers import Running, seeded, serving_process
from sqlalchemy import func, select

from server.audit import audit
from server.storage.engine import open_engine
from server.storage.reader import LogReader
from server.storage.schema import decisions, reports, snapshots

pytestmark = BOTH_ENGINES

CALLERS = 12
ENOUGH = 150


async def caller(server: Running, random: Random, acknowledged: list[tuple[str, str]]) -> grpc.StatusCode:
    """Routes and reports until a call fails; gives its code."""
    while True:
        try:
            decision = await server.route(prompt=f"question {random.random()}")
            acknowledged.append(("decision", decision.decision_id))
            await server.report(decision, reward=random.random())
            acknowledged.append(("report", decision.decision_id))
        except grpc.aio.AioRpcError as error:
            return error.code()


async def load(port: int, stop: object, acknowledged: list[tuple[str, str]]) -> list[grpc.StatusCode]:
    random = seeded("a graceful stop")
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        server = Running("", "", channel)
        await server.create_models(a={}, b={})
        callers = [
            asyncio.ensure_future(caller(server, Random(random.random()), acknowledged)) for _ in range(CALLERS)
        ]
        while len(acknowledged) < ENOUGH:
            await asyncio.sleep(0.005)
        stop()  # type: ignore[operator]
        return await asyncio.gather(*callers)


def test_a_server_that_is_stopped_under_load_keeps_what_it_acknowledged_and_has_learned_it(url: str) -> None:
    acknowledged: list[tuple[str, str]] = []
    # A snapshot comes only with the stop.
    with serving_process("--database-url", url, POINTSMAN_SNAPSHOT_SECONDS="3600") as (process, port):
        codes = asyncio.run(load(port, lambda: process.send_signal(signal.SIGTERM), acknowledged))
        assert process.wait(60) == 0
    # gRPC drops as cancelled what it had received and not yet handed over.
    assert set(codes) <= {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
    engine = open_engine(url)
    with engine.connect() as connection:
        decided = set(connection.execute(select(decisions.c.decision_id)).scalars())
        told = set(connection.execute(select(reports.c.decision_id)).scalars())
        last = max(connection.execute(select(func.max(each.c.seq))).scalar_one() for each in (decisions, reports))
        assert connection.execute(select(func.max(snapshots.c.seq))).scalar_one() >= last
    assert {each for kind, each in acknowledged if kind == "decision"} <= decided
    assert {each for kind, each in acknowledged if kind == "report"} <= told
    assert audit(LogReader(engine), lambda _: None).passed
    engine.dispose()
