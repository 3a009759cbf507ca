"""The write-ahead log is copied into the database while the writer goes on, and by somebody else."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import Disk, draft_decision, hex_id
from sqlalchemy import make_url

from server.storage import checkpoints
from server.storage.checkpoints import Checkpoints

DEADLINE_SECONDS = 20.0


@pytest.fixture
def copying(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> Iterator[Checkpoints]:
    """The thread at work, in a hurry."""
    monkeypatch.setattr(checkpoints, "_EVERY_SECONDS", 0.02)
    thread = Checkpoints(disk.engine)
    thread.start()
    yield thread
    thread.stop()


def file_of(disk: Disk) -> Path:
    return Path(str(make_url(disk.engine.url).database))


def fill(disk: Disk) -> None:
    """More commits than fit into the thousand pages after which a writer copies by itself, if it is left to."""
    for number in range(200):
        disk.decide(draft_decision(hex_id(number), dimensions=256))


def test_the_writer_does_not_copy(disk: Disk) -> None:
    before = file_of(disk).stat().st_size
    fill(disk)
    assert file_of(disk).stat().st_size == before


def test_the_thread_does(disk: Disk, copying: Checkpoints) -> None:
    before = file_of(disk).stat().st_size
    fill(disk)
    deadline = time.monotonic() + DEADLINE_SECONDS
    while file_of(disk).stat().st_size < before + 200_000 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert file_of(disk).stat().st_size >= before + 200_000


def test_what_cannot_be_copied_is_said_once_and_tried_again(
    disk: Disk, copying: Checkpoints, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tries = []

    def fails() -> None:
        tries.append(time.monotonic())
        raise OSError("no space")

    with caplog.at_level(logging.WARNING):
        monkeypatch.setattr(copying, "_copy", fails)
        deadline = time.monotonic() + DEADLINE_SECONDS
        while len(tries) < 3 and time.monotonic() < deadline:
            time.sleep(0.02)
    assert len(tries) >= 3
    assert [each.getMessage() for each in caplog.records] == ["the write-ahead log cannot be copied now: no space"]
