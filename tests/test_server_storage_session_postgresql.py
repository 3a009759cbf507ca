"""The session beside the pool through a proxy that hangs: given up as soon as the database gives it up."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest
from cables import Cable, cable
from engines import POSTGRESQL, PostgreSQL
from servers import DEADLINE_SECONDS, eventually
from sqlalchemy import Engine

import server.storage.engine
from server.election import Election
from server.storage.engine import open_engine
from server.storage.session import SessionLostError
from server.storage.session_postgresql import PostgreSQLSession

pytestmark = POSTGRESQL


@pytest.fixture
async def line(postgresql: PostgreSQL) -> AsyncIterator[Cable]:
    async with cable(postgresql.socket) as made:
        yield made


@pytest.fixture
async def through(line: Cable, url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Engine]:
    """An engine behind the cable, whose own connections wait for an answer for longer than any test does."""
    monkeypatch.setattr(server.storage.engine, "_ANSWER_SECONDS", 10 * int(DEADLINE_SECONDS))
    engine = open_engine(line.url(url))
    yield engine
    line.cut()
    engine.dispose()


async def test_a_session_that_hangs_is_lost_to_both_sides(line: Cable, through: Engine, url: str) -> None:
    session = await asyncio.to_thread(PostgreSQLSession, through)
    assert await asyncio.to_thread(session.try_lock, "learn")
    line.hang()
    checking = asyncio.ensure_future(asyncio.to_thread(session.check))
    with pytest.raises(SessionLostError, match="does not answer"):
        await asyncio.wait_for(asyncio.shield(checking), DEADLINE_SECONDS)
    session.close()
    beside = open_engine(url)
    other = await asyncio.to_thread(PostgreSQLSession, beside)

    async def locked() -> bool:
        return await asyncio.to_thread(other.try_lock, "learn")

    await eventually(locked)
    other.close()
    beside.dispose()


async def test_a_server_behind_a_proxy_that_hangs_no_longer_takes_it_for_its_turn(
    line: Cable, through: Engine
) -> None:
    won, lost = threading.Event(), threading.Event()
    election = Election(through, won.set, lost.set, lambda: True)
    election.start()
    assert await asyncio.to_thread(won.wait, DEADLINE_SECONDS)
    line.hang()
    assert await asyncio.to_thread(lost.wait, DEADLINE_SECONDS)
    line.cut()
    line.mend()
    await asyncio.to_thread(election.stop)
