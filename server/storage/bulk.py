"""Inserts many rows at once, as fast as the driver can."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import chain
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, Table, insert

_ROWS_MAX = 64


def insert_rows(connection: Connection, table: Table, rows: Sequence[dict[str, Any]]) -> None:
    """Inserts rows that have all of the table's columns. SQLite must be able to store them as they are.

    There many rows are one statement. With one for each, the thread would let go of the interpreter for every row,
    and wait for a thread that is busy before it could go on with the next.
    """
    if connection.dialect.name != "sqlite":
        connection.execute(_inserting(table), rows)
        return
    # SQLAlchemy looks at every value of every row, which took longer than the insert.
    for part in _parts(rows):
        text, in_order = _sqlite_inserting(table, len(part))
        connection.exec_driver_sql(text, tuple(chain.from_iterable(map(in_order, part))))


def _parts(rows: Sequence[dict[str, Any]]) -> Iterator[Sequence[dict[str, Any]]]:
    """The rows in order, in parts of a power of two, so that there are but some statements to remember."""
    start = 0
    while start < len(rows):
        size = min(_ROWS_MAX, 1 << ((len(rows) - start).bit_length() - 1))
        yield rows[start : start + size]
        start += size


@cache
def _inserting(table: Table) -> Any:
    return insert(table)


@cache
def _sqlite_inserting(table: Table, count: int) -> tuple[str, Callable[[dict[str, Any]], tuple[Any, ...]]]:
    names = [each.name for each in table.columns]
    marks = f"({', '.join('?' * len(names))})"
    text = f"INSERT INTO {table.name} ({', '.join(names)}) VALUES {', '.join([marks] * count)}"
    return text, itemgetter(*names)
