"""A server whose disk is full refuses to write, and goes on by itself once there is room again."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest
from pointsman.v1 import router_service_pb2 as pb
from servers import NOT_STORED, Running, eventually, refused, serving_process
from sqlalchemy import select

from server.audit import audit
from server.storage.engine import open_engine
from server.storage.reader import LogReader
from server.storage.schema import decisions

SERVING = 1

resource = pytest.importorskip("resource")
pytestmark = pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="needs a limit on another process")


def limit_files(process: int, size: int) -> None:
    """No file of the process may grow beyond this size: a write fails as on a full disk."""
    resource.prlimit(process, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


async def fill(server: Running, refusals: int) -> list[str]:
    """Routes until so many were refused, since the disk is full; gives what was acknowledged.

    There may be some of these between refusals: a snapshot that goes leaves room in the file.
    """
    stored = []
    while refusals:
        try:
            stored.append((await server.route(prompt=f"question {len(stored)}")).decision_id)
        except grpc.aio.AioRpcError as error:
            assert refused(error).reason == NOT_STORED
            refusals -= 1
    return stored


async def goes_on(server: Running) -> pb.RouteResponse | None:
    try:
        return await server.route(prompt="again")
    except grpc.aio.AioRpcError:
        return None


@pytest.mark.parametrize("room_bytes", [0, 150_000])
async def test_a_full_disk_refuses_writes_and_with_room_again_all_goes_on_and_nothing_is_lost(
    tmp_path: Path, room_bytes: int
) -> None:
    url = f"sqlite:///{tmp_path / 'pointsman.db'}"
    with serving_process("--database-url", url, POINTSMAN_SNAPSHOT_SECONDS="0.2") as (process, port):
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            server = Running(url, f"127.0.0.1:{port}", channel)
            await server.create_models(a={}, b={})
            first = await server.route(prompt="before")
            await server.report(first, reward=1.0)
            await server.settled()
            largest = max(each.stat().st_size for each in tmp_path.iterdir())
            limit_files(process.pid, largest + room_bytes)
            stored = [first.decision_id, *(await fill(server, refusals=50))]
            assert (await server.decision(first)).decision_id == first.decision_id
            limit_files(process.pid, resource.RLIM_INFINITY)
            again = await eventually(lambda: goes_on(server), 5.0)
            await server.report(again, reward=0.5)
            await asyncio.wait_for(server.health_is(SERVING), 10.0)
            statistics = (await server.settled()).statistics
            stored.append(again.decision_id)
            assert (statistics.decision_count, statistics.reward_count) == (len(stored), 2)
    engine = open_engine(url)
    try:
        with engine.connect() as connection:
            query = select(decisions.c.decision_id).order_by(decisions.c.seq)
            assert connection.execute(query).scalars().all() == stored
        assert audit(LogReader(engine), lambda _: None).passed
    finally:
        engine.dispose()
