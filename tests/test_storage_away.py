"""Storage that goes away under a running server, and comes back: a file that another process has locked."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import grpc
import pytest
from engines import BOTH_ENGINES, SQLITE
from pointsman.v1 import registry_service_pb2 as registry_pb
from pointsman.v1 import router_service_pb2 as pb
from servers import NOT_STORED, Running, eventually, refusal, refused, running_app
from sqlalchemy import make_url

import server.storage.group_commit
from policy.features import Featuriser, QueryFeatures
from server.audit import audit
from server.storage.engine import open_engine
from server.storage.reader import LogReader

SERVING = 1
UNLOGGED = registry_pb.STORAGE_AWAY_ANSWER_UNLOGGED
# Far below what anything in the database waits for, and far above what a loaded machine needs for a commit.
WAIT = {"storage_wait_seconds": 1.5, "snapshot_seconds": 0.2, "evaluation_seconds": 0.2}


@contextmanager
def locked(url: str) -> Iterator[None]:
    """Another process, say, writes into the file as long as the block."""
    connection = sqlite3.connect(make_url(url).database or "", isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")
        connection.close()


@asynccontextmanager
async def two_routers(url: str, featuriser: Featuriser, **settings: object) -> AsyncIterator[Running]:
    """A server whose default router refuses, and whose router "always" answers unlogged."""
    async with running_app(url, featuriser, **WAIT | settings) as running:
        await running.create_models(a={}, b={})
        name = await running.create_router("always", storage_away=UNLOGGED)
        await running.create_models(name, a={}, b={})
        yield running


async def require_away(running: Running, before: pb.RouteResponse) -> pb.RouteResponse:
    """Nothing is acknowledged: one router refuses, the other answers unlogged; gives that answer."""
    assert (await refusal(running.route(prompt="q"))).reason == NOT_STORED
    answer = await running.route(router="routers/always", prompt="q", request_id="r", session_id="s")
    assert answer.not_logged
    assert answer.model in ("a", "b")
    assert 0.0 < answer.probability <= 1.0
    assert not answer.HasField("expire_time")
    told = await refusal(running.report(before, reward=1.0, report_id="while away"))
    assert (told.code, told.reason) == (grpc.StatusCode.UNAVAILABLE, NOT_STORED)
    requests = [pb.ReportRewardRequest(decision_id=before.decision_id, reward=0.5) for _ in range(20)]
    batch = await running.router.BatchReportRewards(pb.BatchReportRewardsRequest(requests=requests))
    assert [each.reason for each in batch.results] == [NOT_STORED] * 20
    return answer


async def require_back(running: Running, before: pb.RouteResponse, unlogged: pb.RouteResponse) -> None:
    """All goes on by itself, and nothing of what was not acknowledged is there."""

    async def routed() -> bool:
        try:
            return not (await running.route(router="routers/always", prompt="again")).not_logged
        except grpc.aio.AioRpcError as error:
            assert refused(error).reason == NOT_STORED
            return False

    await eventually(routed)
    told = await refusal(running.report(unlogged, reward=1.0))
    assert (told.code, told.reason) == (grpc.StatusCode.NOT_FOUND, "DECISION_NOT_FOUND")
    assert "not_logged" in told.message
    decided = await running.route(router="routers/always", prompt="q", request_id="r")
    assert not decided.not_logged
    assert decided.decision_id != unlogged.decision_id
    assert await running.report(before, reward=1.0, report_id="while away") == pb.DISPOSITION_RECORDED
    await asyncio.wait_for(running.health_is(SERVING), 30.0)
    assert (await running.settled()).statistics.reward_count == 1
    await running.create_router("afterwards")


def require_consistent(url: str) -> None:
    engine = open_engine(url)
    try:
        result = audit(LogReader(engine), lambda _: None)
        assert result.passed, result.examples
    finally:
        engine.dispose()


@SQLITE
async def test_a_locked_file_refuses_or_answers_unlogged_and_then_all_goes_on(
    url: str, featuriser: Featuriser
) -> None:
    async with two_routers(url, featuriser) as running:
        before = await running.route(prompt="before")
        with locked(url):
            unlogged = await require_away(running, before)
            # What is read needs no lock.
            assert (await running.decision(before)).decision_id == before.decision_id
        await require_back(running, before, unlogged)
    require_consistent(url)


@SQLITE
async def test_while_a_file_is_locked_only_the_first_waits(url: str, featuriser: Featuriser) -> None:
    async with two_routers(url, featuriser, storage_wait_seconds=3.0) as running:
        with locked(url):
            await running.route(router="routers/always")
            # Each by itself would wait three seconds, and the lock of the file ten.
            answers = await asyncio.wait_for(
                asyncio.gather(*(running.route(router="routers/always") for _ in range(300))), 8.0
            )
            assert all(each.not_logged for each in answers)


@SQLITE
async def test_an_unlogged_answer_comes_before_the_callers_deadline(url: str, featuriser: Featuriser) -> None:
    async with two_routers(url, featuriser, storage_wait_seconds=60.0) as running:
        with locked(url):
            request = pb.RouteRequest(router="routers/always", prompt="q")
            assert (await running.router.Route(request, timeout=3.0)).not_logged


class Counting(Featuriser):
    """Counts how often it is asked: once for each decision."""

    count = 0

    def featurise(self, *given: Any) -> QueryFeatures:
        """As Featuriser."""
        self.count += 1
        return super().featurise(*given)


async def slow(running: Running) -> asyncio.Task[object]:
    """A request that waits for storage, which is known to be slow since."""
    assert running.app is not None
    log = running.app._log
    first = asyncio.ensure_future(running.route(router="routers/always"))

    async def is_slow() -> bool:
        return log.is_slow

    await eventually(is_slow)
    return first


@SQLITE
async def test_what_waits_for_a_storage_that_hangs_is_decided_before_its_time_is_over(url: str) -> None:
    counting = Counting()
    async with two_routers(url, counting, storage_wait_seconds=60.0) as running:
        with locked(url):
            first = await slow(running)
            rest = [
                asyncio.ensure_future(running.route(router=name, prompt=f"{each}"))
                for name in ("routers/always", "routers/default")
                for each in range(20)
            ]

            async def all_are_decided() -> bool:
                return counting.count == 1 + len(rest)

            await eventually(all_are_decided)
            assert not any(each.done() for each in (first, *rest))
        assert not any(each.not_logged for each in await asyncio.gather(first, *rest))
        assert counting.count == 1 + len(rest)
    require_consistent(url)


@SQLITE
async def test_a_request_that_is_wrong_hears_so_while_storage_is_away(url: str, featuriser: Featuriser) -> None:
    async with two_routers(url, featuriser, storage_wait_seconds=60.0) as running:
        with locked(url):
            first = await slow(running)
            told = await refusal(running.route(embedding=[1.0, 2.0]))
            assert (told.code, told.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["embedding"])
            told = await refusal(running.route(constraints={"required_capabilities": ["wings"]}))
            assert told.reason == "NO_ELIGIBLE_MODEL"
            assert not first.done()
        await first


@SQLITE
async def test_a_request_that_is_wrong_hears_so_though_it_came_before_storage_was_known_to_be_away(
    url: str, featuriser: Featuriser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server.storage.group_commit, "_SLOW_SECONDS", 60.0)
    async with two_routers(url, featuriser) as running:
        with locked(url):
            first = asyncio.ensure_future(refusal(running.route()))
            wrong = [
                refusal(running.route(embedding=embedding)) for embedding in ([1.0, 2.0], [float("nan")] * 256)
            ]
            for told in await asyncio.gather(*wrong):
                assert (told.code, told.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["embedding"])
            assert (await first).reason == NOT_STORED


@SQLITE
async def test_what_was_decided_while_storage_hung_is_decided_again_if_its_router_is_another_since(
    url: str, featuriser: Featuriser
) -> None:
    async with two_routers(url, featuriser, storage_wait_seconds=60.0) as running:
        assert running.app is not None
        log = running.app._log
        await running.update_router("routers/always", policy="fixed:a")
        with locked(url):
            gone = registry_pb.DeleteModelRequest(name="routers/always/models/a")
            deleting = asyncio.ensure_future(running.registry.DeleteModel(gone))

            async def is_slow() -> bool:
                return log.is_slow

            await eventually(is_slow)
            answer = asyncio.ensure_future(running.route(router="routers/always"))

            async def waits() -> bool:
                return log.waiting > 0

            await eventually(waits)
        await deleting
        assert (await answer).model == "b"


@SQLITE
async def test_what_a_caller_gave_up_before_it_was_begun_is_not_stored(url: str, featuriser: Featuriser) -> None:
    async with two_routers(url, featuriser, storage_wait_seconds=60.0) as running:
        with locked(url):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await running.router.Route(pb.RouteRequest(request_id="late"), timeout=0.3)
            assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            call = running.router.Route(pb.RouteRequest(request_id="cancelled"))
            # It has reached the running once another call on the same connection is answered.
            await running.get_router()
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            await running.get_router()
        after = await running.route(prompt="after")
        router = await running.settled()
        assert router.statistics.decision_count == 1
        assert (await running.decision(after)).decision_id == after.decision_id
    require_consistent(url)


@SQLITE
async def test_a_session_keeps_its_model_while_its_answers_are_not_logged(
    url: str, featuriser: Featuriser
) -> None:
    async with two_routers(url, featuriser) as running:
        with locked(url):
            first = await running.route(
                router="routers/always", session_id="s", constraints={"allowed_models": ["b"]}
            )
            assert first.not_logged
            for _ in range(10):
                again = await running.route(router="routers/always", session_id="s")
                assert (again.not_logged, again.model, again.probability) == (True, "b", 1.0)


@BOTH_ENGINES
async def test_storage_that_is_there_is_waited_for_and_every_answer_is_logged(
    url: str, featuriser: Featuriser
) -> None:
    async with two_routers(url, featuriser, storage_wait_seconds=30.0) as running:
        answers = await asyncio.gather(*(running.route(router="routers/always") for _ in range(200)))
        assert not any(each.not_logged for each in answers)
        assert all(each.HasField("expire_time") for each in answers)
