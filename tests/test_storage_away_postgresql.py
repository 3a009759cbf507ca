"""A PostgreSQL that goes away under a running server, and comes back: stopped, cut off, hanging."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import grpc
import pytest
from cables import Cable, cable
from engines import PostgreSQL, running_postgresql
from pointsman.v1 import policy_service_pb2 as policy_pb
from pointsman.v1 import router_service_pb2 as pb
from servers import NOT_STORED, eventually, refusal, refused, running_app
from test_storage_away import require_away, require_back, require_consistent, two_routers

import server.storage.engine
from policy.features import Featuriser


@pytest.fixture(scope="module")
def own() -> Iterator[PostgreSQL]:
    with running_postgresql() as running:
        yield running


@pytest.fixture
async def line(own: PostgreSQL) -> AsyncIterator[Cable]:
    """A cable to that running, and a database behind it."""
    async with cable(own.socket) as made:
        yield made


async def test_postgresql_stopped_and_started_again_under_a_running_server(
    own: PostgreSQL, featuriser: Featuriser
) -> None:
    url = own.new_database()
    async with two_routers(url, featuriser) as running:
        before = await running.route(prompt="before")
        own.stop()
        try:
            unlogged = await require_away(running, before)
            read = await refusal(running.router.GetDecision(pb.GetDecisionRequest(decision_id=before.decision_id)))
            assert (read.code, read.reason) == (grpc.StatusCode.UNAVAILABLE, NOT_STORED)
        finally:
            own.start()
        await require_back(running, before, unlogged)
    require_consistent(url)


async def test_a_network_that_swallows_everything_is_not_waited_for_and_heals(
    own: PostgreSQL, line: Cable, featuriser: Featuriser
) -> None:
    direct = own.new_database()
    async with two_routers(line.url(direct), featuriser) as running:
        before = await running.route(prompt="before")
        line.hang()
        unlogged = await require_away(running, before)
        read = await refusal(running.router.GetDecision(pb.GetDecisionRequest(decision_id=before.decision_id)))
        assert (read.code, read.reason) == (grpc.StatusCode.UNAVAILABLE, NOT_STORED)
        line.cut()
        line.mend()
        await require_back(running, before, unlogged)
    require_consistent(direct)


async def test_connections_that_hang_for_ever_are_given_up_and_new_ones_are_made(
    own: PostgreSQL, line: Cable, featuriser: Featuriser, monkeypatch: pytest.MonkeyPatch
) -> None:
    direct = own.new_database()
    monkeypatch.setattr(server.storage.engine, "_ANSWER_SECONDS", 2)
    async with two_routers(line.url(direct), featuriser) as running:
        before = await running.route(prompt="before")
        line.hang()
        unlogged = await require_away(running, before)
        line.forget()
        await require_back(running, before, unlogged)
    require_consistent(direct)


async def test_what_is_read_of_policies_and_snapshots_is_unavailable_while_postgresql_is_away(
    own: PostgreSQL, line: Cable, featuriser: Featuriser
) -> None:
    direct = own.new_database()
    async with two_routers(line.url(direct), featuriser) as running:
        await running.report(await running.route(prompt="before"), reward=1.0)

        async def listed() -> str:
            found = (await running.policies.ListSnapshots(policy_pb.ListSnapshotsRequest())).snapshots
            return found[0].name if found else ""

        name = await eventually(listed)

        async def export() -> int:
            request = policy_pb.ExportSnapshotRequest(name=name)
            return sum([len(each.chunk) async for each in running.policies.ExportSnapshot(request)])

        async def transitions() -> object:
            return await running.policies.ListTransitions(policy_pb.ListTransitionsRequest())

        assert await export() > 0
        await transitions()
        line.hang()
        for _ in range(2):
            for ask in (listed, export, transitions):
                told = await asyncio.wait_for(refusal(ask()), 10.0)
                assert (told.code, told.reason) == (grpc.StatusCode.UNAVAILABLE, NOT_STORED), ask
        line.cut()
        line.mend()

        async def back() -> bool:
            try:
                return await export() > 0
            except grpc.aio.AioRpcError as error:
                assert refused(error).reason == NOT_STORED
                return False

        await eventually(back)
        await transitions()


async def test_a_stop_does_not_wait_for_a_postgresql_that_hangs(
    own: PostgreSQL, line: Cable, featuriser: Featuriser
) -> None:
    """Each who waits for it would do so for thirty seconds."""
    direct = own.new_database()
    clock = asyncio.get_running_loop().time
    async with two_routers(line.url(direct), featuriser, grace_seconds=2.0) as running:
        before = await running.route(prompt="before")
        line.hang()
        assert (await refusal(running.report(before, reward=1.0))).reason == NOT_STORED
        began = clock()
    assert clock() - began < 15.0
    line.cut()
    line.mend()
    async with running_app(direct, featuriser) as running:
        assert (await running.decision(before)).decision_id == before.decision_id
    require_consistent(direct)
