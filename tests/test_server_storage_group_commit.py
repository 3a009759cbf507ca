"""Group commit: shared commits, a bounded queue, and storage that fails for a while."""

from __future__ import annotations

import asyncio
import itertools
import math
import os
import socket
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from commits import running, write
from engines import BOTH_ENGINES, POSTGRESQL
from servers import Disk, draft_report, eventually, hex_id
from sqlalchemy import Connection, event
from sqlalchemy.exc import OperationalError

from policy.log import DecisionRecord
from server.errors import DecisionNotFoundError, QueueFullError, StorageUnavailableError
from server.storage.writes import ReportWrite, Transact

pytestmark = BOTH_ENGINES

QUEUE_MAX = 5


async def test_a_write_is_on_disk_when_submit_returns(disk: Disk) -> None:
    async with running(disk) as commits:
        await commits.group.submit(write(7))
        assert disk.reader.decision(hex_id(7)) is not None


async def test_nothing_of_a_batch_is_held_while_the_next_is_waited_for(disk: Disk) -> None:
    class Held:
        def __call__(self, _connection: Connection, _seq: int, _time_us: int) -> None:
            return None

    async with running(disk) as commits:
        held = Held()
        gone = weakref.ref(held)
        await commits.group.submit(Transact(held, logs=False))
        del held

        async def is_gone() -> bool:
            return gone() is None

        await eventually(is_gone)


async def test_a_full_queue_refuses_one_more_and_takes_writes_again_once_it_is_empty(disk: Disk) -> None:
    async with running(disk, QUEUE_MAX, wait_seconds=30.0) as commits:
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


async def test_a_write_that_waits_as_long_as_it_takes_is_not_refused_by_a_full_queue(disk: Disk) -> None:
    """As the learner's are, which would start again from its last snapshot."""
    async with running(disk, QUEUE_MAX, wait_seconds=30.0) as commits:
        first = await commits.hold()
        waiting = [asyncio.ensure_future(commits.group.submit(write(i))) for i in range(1, QUEUE_MAX + 1)]
        await asyncio.sleep(0)
        patient = asyncio.ensure_future(commits.group.submit(write(99), math.inf))
        await asyncio.sleep(0)
        commits.held.set()
        await asyncio.gather(first, patient, *waiting)
    assert disk.reader.decision(hex_id(99)) is not None


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


async def test_what_a_caller_who_went_away_asked_for_is_stored_only_if_it_had_begun(disk: Disk) -> None:
    async with running(disk) as commits:
        first = await commits.hold()
        gone = [asyncio.ensure_future(commits.group.submit(write(i))) for i in (1, 2)]
        await asyncio.sleep(0)
        gone[0].cancel()
        commits.held.set()
        await asyncio.gather(first, gone[1])
        assert disk.reader.decision(hex_id(1)) is None
        # It has its place in the log before the transaction that it waited for is over.
        begun = asyncio.ensure_future(commits.group.submit(Transact(commits.stop)))
        assert await asyncio.to_thread(commits.stopped.wait, 30)
        begun.cancel()
        commits.go_on.set()
        await commits.group.submit(write(3))
    assert disk.reader.head() == 3 + len(("write 0", "write 2", "stop", "write 3"))


async def test_what_is_not_stored_is_said_though_its_caller_has_gone_and_nothing_of_what_is(disk: Disk) -> None:
    lost: list[str] = []

    def fail(*given: Any) -> None:
        commits.stop(*given)
        raise OperationalError("the disk is full", None, Exception())

    def ask(name: str, apply: Callable[..., Any]) -> asyncio.Future[Any]:
        commits.stopped.clear()
        commits.go_on.clear()
        return asyncio.ensure_future(commits.group.submit(Transact(apply), on_lost=lambda: lost.append(name)))

    async with running(disk) as commits:
        first = await commits.hold()
        never = ask("never begun", commits.stop)
        await asyncio.sleep(0)
        never.cancel()
        commits.held.set()
        await first
        for number, (name, apply) in enumerate({"stored": commits.stop, "failed": fail}.items(), 1):
            begun = ask(name, apply)
            assert await asyncio.to_thread(commits.stopped.wait, 30)
            begun.cancel()
            commits.go_on.set()
            await commits.group.submit(write(number))
    assert lost == ["never begun", "failed"]


async def test_a_write_waits_so_long_and_is_not_stored_later(disk: Disk) -> None:
    async with running(disk) as commits:
        first = await commits.hold()
        with pytest.raises(StorageUnavailableError, match="nothing was stored"):
            await commits.group.submit(write(1), 0.01)
        commits.held.set()
        await first
        await commits.group.submit(write(2))
    assert set(disk.reader.decisions([hex_id(i) for i in range(3)])) == {hex_id(0), hex_id(2)}


async def test_a_write_that_waits_for_the_database_itself_is_dropped_from_its_transaction(disk: Disk) -> None:
    async with running(disk) as commits:
        commits.held.clear()
        with pytest.raises(StorageUnavailableError, match="nothing was stored"):
            await commits.group.submit(write(1), 0.01)
        commits.held.set()
        await commits.group.submit(write(2))
    assert set(disk.reader.decisions([hex_id(1), hex_id(2)])) == {hex_id(2)}


async def test_a_write_whose_transaction_has_begun_is_not_said_to_be_lost(disk: Disk) -> None:
    async with running(disk) as commits:
        stopping = asyncio.ensure_future(commits.group.submit(Transact(commits.stop), 0.2))
        assert await asyncio.to_thread(commits.stopped.wait, 30)
        with pytest.raises(StorageUnavailableError, match="is not known"):
            await stopping
        commits.go_on.set()
        await commits.group.submit(write(1))


async def test_while_storage_hangs_nobody_waits_for_it_and_it_is_found_again(
    disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(disk, wait_seconds=0.05) as commits:
        commits.held.clear()
        with pytest.raises(StorageUnavailableError):
            await commits.group.submit(write(1))
        assert commits.group.is_away
        for number in range(2, 100):
            refused = commits.group.submit(write(number))
            with pytest.raises(StorageUnavailableError):
                refused.send(None)  # It waits for nothing.
        commits.held.set()
        stored = await commits.group.submit(write(100), math.inf)
        assert stored.decision_id == hex_id(100)
        assert not commits.group.is_away
        await commits.group.submit(write(101), math.inf)
    found = disk.reader.decisions([hex_id(i) for i in range(102)])
    assert set(found) == {hex_id(100), hex_id(101)}
    said = [each.getMessage() for each in caplog.records if each.name == "server.storage.group_commit"]
    assert said[0].startswith(
        "writes are not stored, and refused until they can be: storage has not answered for 0."
    )
    assert said[1:] == ["writes are stored again; 99 were refused meanwhile"]


async def test_while_storage_fails_one_write_at_a_time_finds_out_whether_it_is_back(disk: Disk) -> None:
    async with running(disk, wait_seconds=30.0) as commits:
        commits.failing = True
        with pytest.raises(StorageUnavailableError):
            await commits.group.submit(write(1))
        first = await commits.hold()
        with pytest.raises(StorageUnavailableError):
            commits.group.submit(write(2)).send(None)
        commits.failing = False
        commits.held.set()
        await first
        await asyncio.gather(*(commits.group.submit(write(i)) for i in range(3, 6)))
    assert set(disk.reader.decisions([hex_id(i) for i in range(6)])) == {hex_id(i) for i in (0, 3, 4, 5)}


async def test_a_queue_that_moves_is_not_taken_for_storage_that_is_away(disk: Disk) -> None:
    async with running(disk, wait_seconds=30.0) as commits:
        first = await commits.hold()
        with pytest.raises(StorageUnavailableError):
            await commits.group.submit(write(1), 0.01)
        assert not commits.group.is_away
        commits.held.set()
        await first


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


@POSTGRESQL
async def test_a_write_tried_alone_whose_connection_is_lost_in_its_commit_is_not_said_to_be_lost(
    disk: Disk,
) -> None:
    """The database has committed it, and is gone before it has said so."""
    until_lost = itertools.count(-2)

    def lose(connection: Connection) -> None:
        if next(until_lost) == 0:
            driver: Any = connection.connection.dbapi_connection
            driver.execute("COMMIT")
            driver.execute("BEGIN")
            with socket.socket() as unconnected:
                os.dup2(unconnected.fileno(), driver.pgconn.socket)

    async with running(disk) as commits:
        await commits.group.submit(write(1))
        first = await commits.hold()
        rest = [asyncio.ensure_future(commits.group.submit(write(number))) for number in (2, 1, 3)]
        await asyncio.sleep(0)
        event.listen(disk.engine, "commit", lose)
        commits.held.set()
        fates = await asyncio.gather(first, *rest, return_exceptions=True)
    told = {number: str(fate) for number, fate in zip((0, 2, 1, 3), fates, strict=True)}
    assert "nothing was stored" in told[1]
    assert "is not known" in told[3]
    assert all(disk.reader.decision(hex_id(number)) for number in range(4))
