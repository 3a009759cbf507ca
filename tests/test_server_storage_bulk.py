"""Rows that are inserted many at once are there as they were given, or none of them is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from engines import BOTH_ENGINES, POSTGRESQL
from servers import Disk, draft_decision, draft_report, hex_id
from sqlalchemy import select
from sqlalchemy.exc import DataError, IntegrityError

from policy.log import altered
from server.storage import partitions
from server.storage.bulk import insert_rows
from server.storage.codec import decision_row, report_row
from server.storage.schema import decisions, reports

DAY_US = 86_400_000_000


@pytest.fixture
def ready(disk: Disk) -> Disk:
    """A log with a place for these rows."""
    if disk.engine.dialect.name == "postgresql":
        with disk.engine.begin() as connection:
            partitions.extend(connection, "", hex_id(1000))
    return disk


def row(seq: int, **columns: Any) -> dict[str, Any]:
    return decision_row(altered(draft_decision(hex_id(seq)), seq=seq, time_us=1, expire_us=DAY_US)) | columns


def stored(disk: Disk, table: Any) -> list[dict[str, Any]]:
    with disk.engine.connect() as connection:
        return [dict(each._mapping) for each in connection.execute(select(table).order_by(table.c.seq))]


@BOTH_ENGINES
def test_values_of_every_column_come_back_also_where_rows_differ_in_what_they_have(ready: Disk) -> None:
    rows = [
        row(
            1, prompt="π ☃ 'quoted' {braces}, \\ and\nlines", request_id="one", second_model="b", second_cost_usd=2
        ),
        row(2, propensity=np.float64(0.25), features=b"", second_cost_usd=0.5),
        row(3, session_id="s", snapshot=1 << 62, deferred=True, propensity=1, details="{}"),
    ]
    with ready.engine.begin() as connection:
        insert_rows(connection, decisions, rows)
        report = altered(draft_report(hex_id(1), reward=1), seq=4, time_us=1)
        insert_rows(connection, reports, [report_row(report)])
    assert stored(ready, decisions) == rows
    assert stored(ready, reports) == [report_row(report)]


@POSTGRESQL
def test_what_does_not_fit_is_refused_and_not_cut_off(ready: Disk) -> None:
    for broken in (row(2, router="r" * 64), row(2, model="a\0b")):
        with pytest.raises(DataError), ready.engine.begin() as connection:
            insert_rows(connection, decisions, [row(1), broken])
    assert stored(ready, decisions) == []


@BOTH_ENGINES
def test_one_that_is_there_already_stops_all_of_them(ready: Disk) -> None:
    with ready.engine.begin() as connection:
        insert_rows(connection, decisions, [row(1)])
    with pytest.raises(IntegrityError), ready.engine.begin() as connection:
        insert_rows(connection, decisions, [row(2), row(1)])
    assert [each["seq"] for each in stored(ready, decisions)] == [1]
