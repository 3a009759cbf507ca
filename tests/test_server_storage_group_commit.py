"""Group commit: shared commits, a bounded queue, and storage that fails for a while."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator

import pytest
from engines import BOTH_ENGINES, POSTGRESQL
from servers import DAY_US, Disk, draft_decision, draft_report, hex_id
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from policy.domain import RouterSpec
from policy.log import DecisionRecord
from server.errors import DecisionNotFoundError, QueueFullError, StorageUnavailableError
from server.storage.group_commit import GroupCommit
from server.storage.tail import LogTail
from server.storage.writes import DecisionWrite, ReportWrite, Transact

pytestmark = BOTH_ENGINES

QUEUE_MAX = 5


class Commits:
    """A group commit on a disk, whose transactions can be counted, held up and made to fail."""

    def __init__(self, disk: Disk, queue_max: int) -> None:
        self.count = 0
        self.heard = 0
        self.failing = False
        self.held = threading.Event()
        self.entered = threading.Event()
        self.held.set()
        self.group = GroupCommit(disk.engine, disk.registry, lambda: disk.now_us, self._hear, queue_max, LogTail())
        event.listen(disk.engine, "begin", self._begin)
        event.listen(disk.engine, "commit", self._commit)

    def _hear(self) -> None:
        self.heard += 1

    def _begin(self, _connection: object) -> None:
        self.entered.set()
        assert self.held.wait(30)
        if self.failing:
            raise OperationalError("the disk is full", None, Exception())

    def _commit(self, _connection: object) -> None:
        self.count += 1

    async def hold(self) -> asyncio.Future[object]:
        """A write whose transaction stays open until `held` is set."""
        self.held.clear()
        self.entered.clear()
        first = asyncio.ensure_future(self.group.submit(write(0)))
        assert await asyncio.to_thread(self.entered.wait, 30)
        return first


def write(number: int, **fields: object) -> DecisionWrite:
    return DecisionWrite(draft_decision(hex_id(number), **fields), DAY_US)  # type: ignore[arg-type]


@contextlib.asynccontextmanager
async def running(disk: Disk, queue_max: int = 4096) -> AsyncIterator[Commits]:
    disk.put_router("default", RouterSpec(), "a", "b")
    commits = Commits(disk, queue_max)
    run = asyncio.ensure_future(commits.group.run())
    yield commits
    commits.group.close()
    await run


async def test_many_submits_share_a_commit(disk: Disk) -> None:
    async with running(disk) as commits:
        first = await commits.hold()
        rest = [asyncio.ensure_future(commits.group.submit(write(i))) for i in range(1, 301)]
        await asyncio.sleep(0)
        commits.held.set()
        await asyncio.gather(first, *rest)
        assert (commits.count, commits.heard) == (2, 2)
    assert len(disk.reader.decisions([hex_id(i) for i in range(301)])) == 301


async def test_a_write_is_on_disk_when_submit_returns(disk: Disk) -> None:
    async with running(disk) as commits:
        await commits.group.submit(write(7))
        assert disk.reader.decision(hex_id(7)) is not None


async def test_a_full_queue_refuses_one_more_and_takes_writes_again_once_it_is_empty(disk: Disk) -> None:
    async with running(disk, QUEUE_MAX) as commits:
        first = await commits.hold()
        waiting = [asyncio.ensure_future(commits.group.submit(write(i))) for i in range(1, QUEUE_MAX + 1)]
        await asyncio.sleep(0)
        with pytest.raises(QueueFullError):
            await commits.group.submit(write(99))
        commits.held.set()
        await asyncio.gather(first, *waiting)
        await commits.group.submit(write(100))
    assert disk.reader.decision(hex_id(99)) is None
    assert disk.reader.decision(hex_id(100)) is not None


async def test_a_storage_failure_is_said_to_every_caller_and_the_next_write_works(disk: Disk) -> None:
    async with running(disk) as commits:
        commits.failing = True
        outcomes = await asyncio.gather(
            *(commits.group.submit(write(i)) for i in range(3)), return_exceptions=True
        )
        assert [type(each) for each in outcomes] == [StorageUnavailableError] * 3
        commits.failing = False
        await commits.group.submit(write(9))
    found = disk.reader.decisions([hex_id(i) for i in (0, 1, 2, 9)])
    assert set(found) == {hex_id(9)}


async def test_a_failure_that_lasts_is_logged_once_and_so_is_its_end(
    disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(disk) as commits:
        for times in (20, 3):
            caplog.clear()
            commits.failing = True
            for number in range(times):
                with pytest.raises(StorageUnavailableError):
                    await commits.group.submit(write(number))
            commits.failing = False
            await commits.group.submit(write(100 + times))
            await commits.group.submit(write(200 + times))
            said = [each.getMessage() for each in caplog.records if each.name == "server.storage.group_commit"]
            assert said == [
                "writes are not stored, and refused until they can be",
                f"writes are stored again; {times} were refused meanwhile",
            ]


async def test_a_fault_of_ours_does_not_end_the_writer(disk: Disk) -> None:
    def stumble(_connection: object, _seq: int, _time_us: int) -> None:
        raise ZeroDivisionError

    async with running(disk) as commits:
        with pytest.raises(ZeroDivisionError):
            await commits.group.submit(Transact(stumble))
        await commits.group.submit(write(1))


async def test_a_refusal_reaches_its_own_caller_alone(disk: Disk) -> None:
    async with running(disk) as commits:
        refused, decided = await asyncio.gather(
            commits.group.submit(ReportWrite(draft_report(hex_id(404)))),
            commits.group.submit(write(1)),
            return_exceptions=True,
        )
        assert isinstance(refused, DecisionNotFoundError)
        assert decided.decision_id == hex_id(1)


@POSTGRESQL
async def test_what_the_database_cannot_keep_fails_alone(disk: Disk) -> None:
    async with running(disk) as commits:
        first = await commits.hold()
        waiting = [commits.group.submit(write(i, session_id="\0" if i == 2 else "s")) for i in range(1, 4)]
        rest = asyncio.gather(*waiting, return_exceptions=True)
        await asyncio.sleep(0)
        commits.held.set()
        await first
        outcomes = await rest
    assert [type(each) for each in outcomes] == [DecisionRecord, StorageUnavailableError, DecisionRecord]
    assert set(disk.reader.decisions([hex_id(i) for i in range(1, 4)])) == {hex_id(1), hex_id(3)}


async def test_what_a_caller_who_went_away_asked_for_is_stored_all_the_same(disk: Disk) -> None:
    async with running(disk) as commits:
        first = await commits.hold()
        gone = asyncio.ensure_future(commits.group.submit(write(1)))
        await asyncio.sleep(0)
        gone.cancel()
        commits.held.set()
        await first
    assert disk.reader.decision(hex_id(1)) is not None


async def test_closing_writes_what_is_pending_and_refuses_what_comes_after(disk: Disk) -> None:
    async with running(disk) as commits:
        first = await commits.hold()
        pending = asyncio.ensure_future(commits.group.submit(write(1)))
        await asyncio.sleep(0)
        commits.group.close()
        with pytest.raises(StorageUnavailableError):
            await commits.group.submit(write(2))
        commits.held.set()
        await asyncio.gather(first, pending)
    assert disk.reader.decision(hex_id(1)) is not None


async def test_one_request_id_from_many_callers_gives_all_of_them_one_decision(disk: Disk) -> None:
    async with running(disk) as commits:
        answers = await asyncio.gather(
            *(commits.group.submit(write(i, request_id="same", seed=i)) for i in range(50))
        )
    assert len({each.decision_id for each in answers}) == 1


async def test_a_write_that_a_constraint_refuses_fails_alone(disk: Disk) -> None:
    async with running(disk) as commits:
        await commits.group.submit(write(1))
        first = await commits.hold()
        rest = [asyncio.ensure_future(commits.group.submit(write(number))) for number in (2, 1, 3)]
        await asyncio.sleep(0)
        commits.held.set()
        fates = await asyncio.gather(first, *rest, return_exceptions=True)
    assert [type(each) for each in fates] == [
        DecisionRecord,
        DecisionRecord,
        StorageUnavailableError,
        DecisionRecord,
    ]
    assert all(disk.reader.decision(hex_id(number)) for number in range(4))
