"""Reads that hang or fail: each is waited for so long and no longer."""

from __future__ import annotations

import asyncio
import gc
import logging
import re
import threading
from typing import Any

import pytest
from servers import eventually
from sqlalchemy.exc import OperationalError

from server.errors import StorageUnavailableError
from server.storage.bounded_reads import BoundedReads


async def test_a_read_that_nobody_waits_for_any_more_keeps_the_next_ones_from_waiting() -> None:
    reads = BoundedReads(wait_seconds=0.01)
    hanging = threading.Event()
    with pytest.raises(StorageUnavailableError):
        await reads(lambda: hanging.wait(30))
    for _ in range(100):
        with pytest.raises(StorageUnavailableError):
            reads(lambda: 1).send(None)  # It waits for nothing.
    hanging.set()

    async def answers() -> bool:
        try:
            return await reads(lambda: True, 30.0)
        except StorageUnavailableError:
            return False

    await eventually(answers)
    reads.close()


async def test_who_has_little_time_does_not_keep_the_others_from_reading() -> None:
    reads = BoundedReads(wait_seconds=30.0)
    slow = threading.Event()
    with pytest.raises(StorageUnavailableError):
        await reads(lambda: slow.wait(30), 0.01)
    assert await reads(lambda: 1) == 1
    slow.set()
    reads.close()


async def test_what_someone_with_little_time_asked_for_hangs_once_it_takes_longer_than_all_wait() -> None:
    reads = BoundedReads(wait_seconds=0.2)
    hanging = threading.Event()
    with pytest.raises(StorageUnavailableError):
        await reads(lambda: hanging.wait(30), 0.01)

    async def refuses() -> bool:
        try:
            return not await reads(lambda: True, 30.0)
        except StorageUnavailableError:
            return True

    await eventually(refuses)
    hanging.set()
    reads.close()


async def test_a_read_that_fails_once_its_caller_has_gone_is_no_fault_of_ours() -> None:
    faults: list[dict[str, Any]] = []
    # Of this loop alone: what earlier tests left behind may be collected here.
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: faults.append(context))
    reads = BoundedReads(wait_seconds=30.0)
    begun, go_on = threading.Event(), threading.Event()

    def fail() -> None:
        begun.set()
        assert go_on.wait(30)
        raise OperationalError("SELECT 1", None, Exception("gone"))

    reading = asyncio.ensure_future(reads(fail))
    assert await asyncio.to_thread(begun.wait, 30)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    go_on.set()
    await asyncio.to_thread(reads._threads.shutdown)
    await asyncio.sleep(0)
    gc.collect()
    assert faults == []


async def test_reads_that_are_refused_are_in_the_log_but_not_a_line_each(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    reads = BoundedReads(wait_seconds=30.0, clock=lambda: now[0])

    def fail() -> None:
        raise OperationalError("SELECT a secret", {}, Exception("database is locked"))

    async def refuse(count: int) -> None:
        for _ in range(count):
            with pytest.raises(StorageUnavailableError):
                await reads(fail)

    with caplog.at_level(logging.WARNING, logger="server.storage.bounded_reads"):
        await refuse(100)
        now[0] = 60.0
        await refuse(1)
    said = [each.getMessage() for each in caplog.records]
    assert [re.findall(r"refused, (\d+)", each) for each in said] == [["1"], ["100"]]
    assert all("database is locked" in each and "secret" not in each for each in said)
    reads.close()
