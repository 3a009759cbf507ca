"""Which writes share a commit, and when they are made."""

from __future__ import annotations

import asyncio
import time
from functools import partial

import pytest
from commits import running, write
from engines import BOTH_ENGINES
from servers import Disk, hex_id

from policy.log import DecisionRecord
from server.errors import DecisionNotFoundError
from server.storage.writes import DecisionWrite, Transact

pytestmark = BOTH_ENGINES


async def test_many_submits_share_a_commit(disk: Disk) -> None:
    async with running(disk) as commits:
        first = await commits.hold()
        rest = [asyncio.ensure_future(commits.group.submit(write(i))) for i in range(1, 301)]
        await asyncio.sleep(0)
        commits.held.set()
        await asyncio.gather(first, *rest)
        assert (commits.count, commits.heard) == (2, 2)
    assert len(disk.reader.decisions([hex_id(i) for i in range(301)])) == 301


@pytest.mark.parametrize(
    ("usual", "at_a_time", "waited_for"),
    [(2, 2, 0), (8, 1, 1), (8, 2, 6), (20, 1, 3)],
    ids=["small", "larger, and one comes", "larger, and two come at a time", "large, and they come one by one"],
)
async def test_a_commit_waits_for_more_where_batches_have_been_large_for_some_time(
    disk: Disk, monkeypatch: pytest.MonkeyPatch, usual: int, at_a_time: int, waited_for: int
) -> None:
    async with running(disk) as commits:
        for batch in range(60):
            writes = [write(100 * batch + each) for each in range(usual)]
            await asyncio.gather(*(commits.group.submit(each) for each in writes))
        assert commits.count == 60
        later: list[asyncio.Future[object]] = []
        looks = 0
        sleep = asyncio.sleep

        async def sleep_while_some_come(_seconds: float) -> None:
            nonlocal looks
            looks += 1
            if looks <= 3:
                for _ in range(at_a_time):
                    later.append(asyncio.ensure_future(commits.group.submit(write(8000 + len(later)))))
            await sleep(0)

        monkeypatch.setattr(asyncio, "sleep", sleep_while_some_come)
        await commits.group.submit(write(7000))
        await asyncio.gather(*later)
        assert (len(later), commits.count) == (waited_for, 61)


async def test_what_makes_writes_is_called_in_one_go_once_their_transaction_begins(disk: Disk) -> None:
    made: list[int] = []

    def making(number: int) -> DecisionWrite:
        made.append(number)
        return write(number)

    async with running(disk) as commits:
        first = await commits.hold()
        rest = [asyncio.ensure_future(commits.group.submit(partial(making, each))) for each in range(1, 6)]
        await asyncio.sleep(0.05)
        assert made == []
        rest[2].cancel()
        commits.held.set()
        logged = await asyncio.gather(first, *rest[:2], *rest[3:])
        assert made == [1, 2, 4, 5]
        assert [each.decision_id for each in logged] == [hex_id(each) for each in (0, 1, 2, 4, 5)]
        assert commits.count == 2
    assert disk.reader.decision(hex_id(3)) is None


async def test_what_goes_wrong_in_making_a_write_is_its_callers_alone(disk: Disk) -> None:
    def wrong() -> DecisionWrite:
        raise ZeroDivisionError

    async with running(disk) as commits:
        first = await commits.hold()
        rest = [asyncio.ensure_future(commits.group.submit(each)) for each in (wrong, partial(write, 1), wrong)]
        await asyncio.sleep(0)
        commits.held.set()
        outcomes = await asyncio.gather(first, *rest, return_exceptions=True)
        assert [type(each) for each in outcomes] == [
            DecisionRecord,
            ZeroDivisionError,
            DecisionRecord,
            ZeroDivisionError,
        ]
        with pytest.raises(ZeroDivisionError):
            await commits.group.submit(wrong)
        await commits.group.submit(write(2))


async def test_a_change_has_its_position_after_all_that_was_made_without_it(disk: Disk) -> None:
    positions: list[int] = []

    def change(_connection: object, seq: int, _time_us: int) -> None:
        positions.append(seq)

    async with running(disk) as commits:
        first = await commits.hold()
        changing = asyncio.ensure_future(commits.group.submit(Transact(change)))
        rest = [asyncio.ensure_future(commits.group.submit(partial(write, each))) for each in range(1, 4)]
        await asyncio.sleep(0)
        commits.held.set()
        _, _, *logged = await asyncio.gather(first, changing, *rest)
        assert positions == [1 + max(each.seq for each in logged)]
        assert commits.count == 2


async def test_what_is_stored_is_said_before_anything_else_is_made_and_if_nobody_waits_for_it_too(
    disk: Disk,
) -> None:
    said: list[str] = []

    def making() -> DecisionWrite:
        said.append("made")
        return write(1)

    def refuse(_connection: object, _seq: int, _time_us: int) -> None:
        raise DecisionNotFoundError("x")

    async with running(disk) as commits:
        stopping = Transact(commits.stop, lambda _: said.append("stored"))
        changing = asyncio.ensure_future(commits.group.submit(stopping))
        assert await asyncio.to_thread(commits.stopped.wait, 30)
        after = asyncio.ensure_future(commits.group.submit(making))
        await asyncio.sleep(0)
        changing.cancel()
        commits.go_on.set()
        await after
        with pytest.raises(DecisionNotFoundError):
            await commits.group.submit(Transact(refuse, lambda _: said.append("refused")))
        first = await commits.hold()
        never = asyncio.ensure_future(commits.group.submit(Transact(commits.stop, lambda _: said.append("gone"))))
        await asyncio.sleep(0)
        never.cancel()
        commits.held.set()
        await first
    assert said == ["stored", "made"]


async def test_no_more_is_made_at_a_time_than_all_else_can_wait_for(disk: Disk) -> None:
    def making(number: int) -> DecisionWrite:
        began = time.perf_counter()
        while time.perf_counter() - began < 0.01:
            pass
        return write(number)

    async with running(disk) as commits:
        first = await commits.hold()
        rest = [asyncio.ensure_future(commits.group.submit(partial(making, each))) for each in range(1, 13)]
        await asyncio.sleep(0)
        commits.held.set()
        await asyncio.gather(first, *rest)
        # At most three begin within 25 ms.
        assert commits.count >= 1 + 12 / 3


@pytest.mark.parametrize("logs", [False, True])
async def test_the_followers_of_the_log_ask_the_database_only_for_what_a_change_may_have_logged(
    disk: Disk, logs: bool
) -> None:
    async with running(disk) as commits:
        first = await commits.group.submit(write(1))
        changing = Transact(lambda _connection, seq, _time_us: seq, logs=logs)
        second, change_seq = await asyncio.gather(commits.group.submit(write(2)), commits.group.submit(changing))
        last = await commits.group.submit(write(3))
        page = commits.tail.take(first.seq - 1, 100)
        assert page is not None
        followed = [each.seq for each in page.records]
        if logs:
            assert (followed, page.upto) == ([first.seq], first.seq)
        else:
            assert (followed, page.upto) == ([first.seq, second.seq, last.seq], last.seq)
        assert {second.seq, change_seq} == {first.seq + 1, first.seq + 2}
