"""A backup that is taken under load is of one moment, and a server on it knows what was known then, to the bit."""

from __future__ import annotations

import asyncio
import sqlite3
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner
from engines import SQLITE
from servers import Running, eventually, running_app, seeded

from policy.domain import InvalidFieldError
from policy.features import Featuriser
from server.audit import audit
from server.cli.backup import backup
from server.learner_fold import LearnerFold
from server.storage.backup import back_up
from server.storage.engine import open_engine
from server.storage.reader import LogReader

pytestmark = SQLITE


async def caller(server: Running, seed: int) -> None:
    """Routes and reports until it is cancelled."""
    random = seeded(f"caller {seed}")
    while True:
        decision = await server.route(prompt=f"question {random.random()}")
        await server.report(decision, reward=random.random())


async def has_decided(server: Running, count: int) -> bool:
    return (await server.get_router()).statistics.decision_count >= count


def states_at(reader: LogReader, seq: int) -> dict[str, bytes]:
    """What a learner of the whole log knows at a position, by router."""
    fold = LearnerFold(reader, [])
    while fold.seq < seq:
        fold.advance(seq - fold.seq)
    assert fold.seq == seq
    found = {router: fold.snapshot(router) for router in fold.routers}
    return {router: each.state for router, each in found.items() if each is not None}


async def test_a_backup_under_load_is_of_one_moment_and_gives_the_same_bits(
    tmp_path: Path, url: str, featuriser: Featuriser
) -> None:
    copies = []
    async with running_app(url, featuriser, snapshot_seconds=0.1) as server:
        await server.create_models(a={}, b={})
        callers = [asyncio.ensure_future(caller(server, number)) for number in range(8)]
        for number in range(3):
            await eventually(partial(has_decided, server, 40 * number))
            copies.append(await asyncio.to_thread(back_up, url, tmp_path / f"copy{number}.db"))
        for each in callers:
            each.cancel()
        await asyncio.gather(*callers, return_exceptions=True)
        await server.settled()
    engine = open_engine(url)
    for copy in copies:
        restored = open_engine(f"sqlite:///{copy.file}", create=False)
        result = audit(LogReader(restored), lambda _: None)
        assert result.passed, result.examples
        assert LogReader(restored).head() == copy.seq
        assert states_at(LogReader(restored), copy.seq) == states_at(LogReader(engine), copy.seq)
        restored.dispose()
    engine.dispose()
    assert copies[0].seq < copies[-1].seq


async def test_a_server_on_a_backup_goes_on_from_there(tmp_path: Path, url: str, featuriser: Featuriser) -> None:
    async with running_app(url, featuriser) as server:
        await server.create_models(a={}, b={})
        before = await server.route(request_id="r", prompt="before")
        await server.report(before, report_id="report", reward=1.0)
        await asyncio.to_thread(back_up, url, tmp_path / "copy.db")
        lost = await server.route(request_id="lost", prompt="after")
    async with running_app(f"sqlite:///{tmp_path / 'copy.db'}", featuriser) as server:
        assert (await server.route(request_id="r", prompt="before")).decision_id == before.decision_id
        assert (await server.route(request_id="lost", prompt="after")).decision_id != lost.decision_id
        assert (await server.settled()).statistics.reward_count == 1


def test_a_file_that_is_there_is_not_written_over(tmp_path: Path, disk: object, url: str) -> None:
    (tmp_path / "copy.db").write_text("precious")
    with pytest.raises(FileExistsError, match="is there already"):
        back_up(url, tmp_path / "copy.db")
    assert (tmp_path / "copy.db").read_text() == "precious"


def test_what_cannot_be_backed_up_leaves_no_file(tmp_path: Path, disk: object, url: str) -> None:
    (tmp_path / "text.db").write_text("not a database " * 100)
    for source, target in (("text.db", "copy.db"), ("none.db", "copy.db"), ("pointsman.db", "none/copy.db")):
        with pytest.raises(OSError, match=r"\.db"):
            back_up(f"sqlite:///{tmp_path / source}", tmp_path / target)
    assert not list(tmp_path.glob("copy*"))
    with pytest.raises(InvalidFieldError, match="pg_dump"):
        back_up("postgresql://me@host/pointsman", tmp_path / "copy.db")


def test_a_damaged_database_is_not_taken_for_a_backup(tmp_path: Path, disk: object, url: str) -> None:
    path = tmp_path / "pointsman.db"
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'decisions'").fetchone()
    connection.close()
    data = bytearray(path.read_bytes())
    data[(page - 1) * 4096 : page * 4096] = b"\x55" * 4096
    path.write_bytes(data)
    with pytest.raises(OSError, match=r"damaged|malformed"):
        back_up(url, tmp_path / "copy.db")
    assert not list(tmp_path.glob("copy*"))


def test_the_command_says_where_the_copy_is_and_how_far_it_goes(tmp_path: Path, disk: object, url: str) -> None:
    run = CliRunner().invoke(backup, [str(tmp_path / "copy.db"), "--database-url", url])
    assert run.exit_code == 0, run.output
    assert run.output.startswith(f"{tmp_path / 'copy.db'}: the log up to position 0, ")
