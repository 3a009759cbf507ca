"""A group commit whose transactions can be counted, held up and made to fail."""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
from collections.abc import AsyncIterator

from servers import DAY_US, Disk, draft_decision, hex_id
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from policy.domain import RouterSpec
from server.storage.group_commit import GroupCommit
from server.storage.tail import LogTail
from server.storage.writes import DecisionWrite


class Commits:
    """A group commit on a disk, whose transactions can be counted, held up and made to fail."""

    def __init__(self, disk: Disk, queue_max: int, wait_seconds: float) -> None:
        self.count = 0
        self.heard = 0
        self.failing = False
        self.held = threading.Event()
        self.entered = threading.Event()
        self.held.set()
        self.stopped = threading.Event()
        self.go_on = threading.Event()
        self.tail = LogTail()
        self.group = GroupCommit(
            disk.engine, disk.registry, lambda: disk.now_us, self._hear, queue_max, [self.tail], wait_seconds
        )
        event.listen(disk.engine, "begin", self._begin)
        event.listen(disk.engine, "commit", self._commit)

    def stop(self, _connection: object, _seq: int, _time_us: int) -> None:
        """In the middle of a transaction, until `go_on` is set."""
        self.stopped.set()
        assert self.go_on.wait(30)

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
    """A decision of this number."""
    return DecisionWrite(draft_decision(hex_id(number), **fields), DAY_US)  # type: ignore[arg-type]


@contextlib.asynccontextmanager
async def running(disk: Disk, queue_max: int = 4096, wait_seconds: float = math.inf) -> AsyncIterator[Commits]:
    """A group commit at work, on a router with two models."""
    disk.put_router("default", RouterSpec(), "a", "b")
    commits = Commits(disk, queue_max, wait_seconds)
    run = asyncio.ensure_future(commits.group.run())
    yield commits
    commits.group.close()
    await run
