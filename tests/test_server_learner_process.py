"""The watch over the learner's process: what becomes of it when it cannot be started, or is stopped meanwhile."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from servers import DEADLINE_SECONDS, eventually

from server import learner_process
from server.learner_process import LearnerProcess
from server.settings import Settings

START = asyncio.create_subprocess_exec


async def sleeper(*_arguments: Any, **given: Any) -> asyncio.subprocess.Process:
    """A process that does nothing until its standard input ends."""
    return await START("cat", stdin=given["stdin"], start_new_session=True)


def starting_by(monkeypatch: pytest.MonkeyPatch, start: Callable[..., Awaitable[Any]]) -> LearnerProcess:
    monkeypatch.setattr(learner_process, "_AGAIN_SECONDS", 0.01)
    monkeypatch.setattr(asyncio, "create_subprocess_exec", start)
    return LearnerProcess(Settings(), lambda: None)


async def test_one_that_is_stopped_while_it_is_being_started_is_not_left_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun, started = asyncio.Event(), asyncio.Event()
    made: list[asyncio.subprocess.Process] = []

    async def slow(*arguments: Any, **given: Any) -> asyncio.subprocess.Process:
        begun.set()
        await started.wait()
        made.append(await sleeper(*arguments, **given))
        return made[0]

    learner = starting_by(monkeypatch, slow)
    watching = asyncio.create_task(learner.run())
    await begun.wait()
    stopping = asyncio.create_task(learner.stop())
    await asyncio.sleep(0)
    started.set()
    await asyncio.wait_for(asyncio.gather(stopping, watching), DEADLINE_SECONDS)
    assert made[0].returncode == 0
    assert learner.pid is None


async def test_one_that_cannot_be_started_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failures = [OSError("no room"), OSError("no room")]

    async def start(*arguments: Any, **given: Any) -> asyncio.subprocess.Process:
        if failures:
            raise failures.pop()
        return await sleeper(*arguments, **given)

    learner = starting_by(monkeypatch, start)
    watching = asyncio.create_task(learner.run())

    async def lives() -> bool:
        return learner.pid is not None

    with caplog.at_level(logging.ERROR):
        await eventually(lives)
    assert [each.getMessage() for each in caplog.records] == [
        f"the learner's process cannot be started: no room, and is started again in {pause} s" for pause in (0, 0)
    ]
    await learner.stop()
    await watching


async def test_one_that_ends_when_the_server_is_about_to_is_not_started_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    learner = starting_by(monkeypatch, sleeper)
    changed = asyncio.Event()
    learner._on_change = changed.set
    watching = asyncio.create_task(learner.run())
    await changed.wait()
    learner.let_end()
    assert learner._process is not None
    learner._process.terminate()
    await asyncio.wait_for(watching, DEADLINE_SECONDS)
    await learner.stop()
    assert caplog.records == []


async def test_a_port_for_its_metrics_that_is_let_go_of_soon_is_waited_for() -> None:
    """By the learner of a server that was killed, say, which has yet to save."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        given = Settings(learner_process=True, learner_metrics_port=taken.getsockname()[1])
        asking = asyncio.ensure_future(LearnerProcess(given, lambda: None).require_port())
        await asyncio.sleep(0)
        assert not asking.done()
    await asking
