"""How what is old is found and dropped on each engine, and when it is old."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from engines import BOTH_ENGINES, POSTGRESQL, SQLITE
from servers import DAY_US, Disk
from sqlalchemy import Connection, select, text
from test_server_storage_retention import (
    RETENTION_US,
    count,
    drop,
    learn,
    new_draft,
    tick,
)

from policy.domain import RouterSpec
from server.storage.partitions import extend_ahead
from server.storage.retention import drop_old, horizon_us, is_old, note_look
from server.storage.schema import decisions, log_gaps, log_head
from server.storage.writes import DecisionWrite, Transact

pytestmark = BOTH_ENGINES


def test_a_step_is_small_on_sqlite(disk: Disk) -> None:
    disk.put_router("default", RouterSpec(embedding_dimensions=8), "a", "b")
    disk.write(*(DecisionWrite(new_draft(disk), DAY_US) for _ in range(1000)))
    disk.now_us += 10 * DAY_US
    disk.one(Transact(tick))
    learn(disk)
    steps = drop(disk)
    assert steps == (5 if disk.engine.dialect.name == "sqlite" else 1)
    assert count(disk, decisions) == 0


def look_after(disk: Disk, days: int, retention_us: int) -> None:
    """A server with a retention runs so long."""
    for half_day in range(2 * days + 1):
        disk.now_us += DAY_US // 2 if half_day else 0
        disk.one(Transact(note_look(retention_us)))


def test_time_without_a_server_does_not_count_however_long_ago_and_is_forgotten_once_it_is_past(
    disk: Disk,
) -> None:
    retention_us = 10 * DAY_US
    born_us = disk.now_us
    look_after(disk, 1, retention_us)
    for days_off, days_on in ((50, 2), (100, 1)):
        disk.now_us += days_off * DAY_US
        look_after(disk, days_on, retention_us)
    with disk.engine.connect() as connection:
        assert born_us - horizon_us(connection, disk.now_us, retention_us) == 6 * DAY_US, "4 days of 10 are over"
    look_after(disk, 10, retention_us)
    assert count(disk, log_gaps) == 0
    with disk.engine.connect() as connection:
        assert horizon_us(connection, disk.now_us, retention_us) == disk.now_us - retention_us


@SQLITE
def test_who_looks_for_the_old_reads_no_more_of_a_long_log_than_of_a_short_one(disk: Disk) -> None:
    disk.put_router("default", RouterSpec(embedding_dimensions=8), "a", "b")
    disk.report(disk.decide(new_draft(disk)))
    disk.now_us += 10 * DAY_US
    steps = []
    for young in (300, 5700):
        disk.write(*(DecisionWrite(new_draft(disk), DAY_US) for _ in range(young)))
        learn(disk)
        with disk.engine.connect() as connection:
            looking = steps_of(connection, lambda: is_old(connection, disk.now_us - RETENTION_US))
            dropping = steps_of(connection, lambda: drop_old(RETENTION_US)(connection, 0, disk.now_us))
            connection.rollback()
        steps.append((looking, dropping))
    more = [later - earlier for earlier, later in zip(*steps, strict=True)]
    assert max(more) < 100, "there is one snapshot more"


def steps_of(connection: Connection, ask: Callable[[], object]) -> int:
    """How many steps of SQLite's machine it takes, which must find something."""
    driver, count = connection.connection.driver_connection, itertools.count()
    driver.set_progress_handler(lambda: next(count) and None, 1)  # type: ignore[union-attr]
    try:
        assert ask()
    finally:
        driver.set_progress_handler(None, 0)  # type: ignore[union-attr]
    return next(count)


@POSTGRESQL
def test_partitions_are_made_ahead_and_of_the_length_that_is_asked(disk: Disk) -> None:
    def extend(connection: object, _seq: int, time_us: int) -> None:
        until = connection.execute(select(log_head.c.partitioned_until)).scalar_one()  # type: ignore[attr-defined]
        extend_ahead(connection, until, time_us, 3)  # type: ignore[arg-type]

    disk.one(Transact(extend))
    assert partitions_of(disk) == ["decisions_until_20231117", "decisions_until_20231120"]
    disk.now_us += 2 * DAY_US
    disk.one(Transact(extend))
    assert partitions_of(disk) == ["decisions_until_20231117", "decisions_until_20231120"]
    disk.now_us += 2 * DAY_US
    disk.one(Transact(extend))
    assert partitions_of(disk)[-1] == "decisions_until_20231123"


def partitions_of(disk: Disk) -> list[str]:
    query = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'decisions'::regclass ORDER BY 1"
    with disk.engine.connect() as connection:
        return list(connection.execute(text(query)).scalars())
