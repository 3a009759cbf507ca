"""Several servers write one log at once: it stays in order, and what comes twice counts once."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from engines import BOTH_ENGINES
from servers import DAY_US, DEADLINE_SECONDS, Disk, draft_decision, draft_report, hex_id, seeded
from sqlalchemy import text

from policy.domain import RouterSpec
from policy.log import DecisionRecord, LogRecord
from server.storage.engine import open_engine
from server.storage.recent import RecentDecisions
from server.storage.writes import DecisionWrite, Disposition, ReportWrite, write_batch

pytestmark = BOTH_ENGINES
SERVERS = 3
MIGRATE = "import sys; from server.storage.engine import migrate, open_engine; migrate(open_engine(sys.argv[1]))"


@pytest.fixture
def disks(url: str) -> Iterator[list[Disk]]:
    """The storage of several servers on one database, which has a router of two models."""
    opened = [Disk(url) for _ in range(SERVERS)]
    opened[0].put_router("default", RouterSpec(), "a", "b")
    for other in opened[1:]:
        other.registry = opened[0].registry
    yield opened
    for each in opened:
        each.close()


def together(disks: list[Disk], work: Callable[[int, Disk], Any]) -> list[Any]:
    """What the work gives on each server, begun everywhere at the same moment."""
    start = threading.Barrier(len(disks))

    def begun(number: int, disk: Disk) -> Any:
        start.wait(DEADLINE_SECONDS)
        return work(number, disk)

    with ThreadPoolExecutor(len(disks)) as pool:
        return list(pool.map(begun, range(len(disks)), disks))


def followed(disk: Disk, seq: int, done: threading.Event) -> list[LogRecord]:
    """Every record above a position, read page by page while others write, and once more when they are done."""
    records: list[LogRecord] = []
    while True:
        finished = done.is_set()
        page = disk.reader.page(seq, 7)
        assert page.after == seq
        records += page.records
        seq = page.upto
        if finished and page.upto == page.after:
            return records


def until_someone_waits(disk: Disk) -> None:
    """Returns once a transaction waits for another. SQLite does not say, and need not: it has one at a time."""
    if disk.engine.dialect.name == "sqlite":
        return
    waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
    end = time.monotonic() + DEADLINE_SECONDS
    with disk.engine.connect() as connection:
        while not connection.execute(waiting).scalar_one():
            assert time.monotonic() < end, "nobody waits"


def test_a_record_is_not_seen_before_one_that_has_an_earlier_position(disks: list[Disk]) -> None:
    slow, fast, reader = disks
    head = reader.reader.head()
    drafts = [DecisionWrite(slow._owned(draft_decision(hex_id(number))), DAY_US) for number in (1, 2)]
    with ThreadPoolExecutor(1) as pool:
        with slow.engine.begin() as connection:
            first = write_batch(connection, drafts[:1], slow.now_us, slow.registry, RecentDecisions()).results[0]
            second = pool.submit(fast.one, drafts[1])
            until_someone_waits(reader)
            assert reader.reader.page(head, 100).upto == head, "a gap would be read over and never learned"
        assert second.result(DEADLINE_SECONDS).seq == first.seq + 1 == head + 2
    assert [each.seq for each in reader.reader.page(head, 100).records] == [head + 1, head + 2]


def test_a_position_whose_transaction_fails_is_given_out_again(disks: list[Disk]) -> None:
    head = disks[0].reader.head()
    with disks[0].engine.connect() as connection:
        draft = DecisionWrite(disks[0]._owned(draft_decision(hex_id(1))), DAY_US)
        (lost,) = write_batch(connection, [draft], disks[0].now_us, disks[0].registry, RecentDecisions()).results
        connection.rollback()
    assert lost.seq == head + 1
    assert disks[1].decide(draft_decision(hex_id(2))).seq == head + 1


def test_who_follows_the_log_while_several_write_it_misses_nothing(disks: list[Disk]) -> None:
    random = seeded("several writers")
    sizes = [[random.randrange(1, 9) for _ in range(25)] for _ in disks]
    reader = Disk(disks[0].engine.url.render_as_string(hide_password=False))
    done = threading.Event()

    def write(number: int, disk: Disk) -> list[DecisionRecord]:
        written = []
        for batch, size in enumerate(sizes[number]):
            ids = [hex_id(number << 32 | batch << 8 | each) for each in range(size)]
            written += disk.write(*(DecisionWrite(draft_decision(each), DAY_US) for each in ids))
        return written

    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(followed, reader, reader.reader.head(), done)
        written = together(disks, write)
        done.set()
        records = following.result(DEADLINE_SECONDS)
    reader.close()
    ids = {each.seq: each.decision_id for logged in written for each in logged}
    assert [(each.seq, each.decision_id) for each in records] == sorted(ids.items())
    assert len(ids) == sum(map(sum, sizes))
    times = [each.time_us for each in records]
    assert times == sorted(times)


def test_a_request_that_reaches_several_servers_at_once_has_one_decision(disks: list[Disk]) -> None:
    def write(number: int, disk: Disk) -> list[DecisionRecord]:
        drafts = [
            draft_decision(hex_id(number << 16 | request), request_id=f"r{request}", seed=number)
            for request in range(50)
        ]
        return [disk.decide(each) for each in drafts]

    answers = together(disks, write)
    for same in zip(*answers, strict=True):
        assert len({(each.decision_id, each.seq, each.choice) for each in same}) == 1
    winners = {each.decision_id[:28] for each in answers[0]}
    print(f"{len(winners)} servers were first at something")
    head = disks[0].reader.head()
    assert len(disks[0].reader.page(0, head).records) == 3 + 50


def test_a_report_that_reaches_several_servers_at_once_counts_once(disks: list[Disk]) -> None:
    decisions = [disks[0].decide(draft_decision(hex_id(number))) for number in range(50)]

    def write(number: int, disk: Disk) -> list[Disposition]:
        return [
            disk.one(ReportWrite(draft_report(each.decision_id, report_id="r", reward=number / SERVERS)))
            for each in decisions
        ]

    for fates in zip(*together(disks, write), strict=True):
        assert sorted(fates) == [*[Disposition.DUPLICATE] * (SERVERS - 1), Disposition.RECORDED]
    found = disks[0].reader.reports([each.decision_id for each in decisions])
    assert [len(each) for each in found.values()] == [1] * 50


def test_rewards_that_reach_several_servers_at_once_replace_each_other_in_turn(disks: list[Disk]) -> None:
    (decision,) = [disks[0].decide(draft_decision(hex_id(1)))]

    def write(number: int, disk: Disk) -> None:
        for turn in range(20):
            disk.report(decision, report_id=f"{number}-{turn}", reward=1.0)

    together(disks, write)
    stored = disks[0].reader.reports([decision.decision_id])[decision.decision_id]
    assert [each.learned_reward for each in stored] == [1.0, *[None] * (20 * SERVERS - 1)], "one is the first"


def test_a_clock_that_is_behind_on_one_server_does_not_turn_the_log_back(disks: list[Disk]) -> None:
    first = disks[0].decide(draft_decision(hex_id(1)))
    disks[1].now_us -= 60_000_000
    second = disks[1].decide(replace(draft_decision(hex_id(2)), request_id="r"))
    assert second.time_us == first.time_us


def test_the_migrations_run_once_when_several_servers_start_at_once(
    engine: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = f"sqlite:///{tmp_path / 'new.db'}"
    if engine == "postgresql":
        url = request.getfixturevalue("postgresql").new_database(empty=True)
    starting = [subprocess.Popen([sys.executable, "-c", MIGRATE, url], stderr=subprocess.PIPE) for _ in range(4)]
    for each in starting:
        _, said = each.communicate(timeout=DEADLINE_SECONDS)
        assert each.returncode == 0, said.decode()
    opened = open_engine(url)
    with opened.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM alembic_version")).scalar_one() == 1
        assert connection.execute(text("SELECT count(*) FROM log_head")).scalar_one() == 1
    opened.dispose()
