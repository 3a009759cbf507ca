"""Inserts many rows at once, as fast as the driver can."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, Table, insert


def insert_rows(connection: Connection, table: Table, rows: Sequence[dict[str, Any]]) -> None:
    """Inserts rows that have all of the table's columns. SQLite must be able to store them as they are."""
    if connection.dialect.name != "sqlite":
        connection.execute(_inserting(table), rows)
        return
    # SQLAlchemy looks at every value of every row, which took longer than the insert.
    text, in_order = _sqlite_inserting(table)
    connection.exec_driver_sql(text, [in_order(row) for row in rows])


@cache
def _inserting(table: Table) -> Any:
    return insert(table)


@cache
def _sqlite_inserting(table: Table) -> tuple[str, Callable[[dict[str, Any]], tuple[Any, ...]]]:
    names = [each.name for each in table.columns]
    marks = ", ".join("?" * len(names))
    return f"INSERT INTO {table.name} ({', '.join(names)}) VALUES ({marks})", itemgetter(*names)
