"""Inserts many rows at once, as fast as the driver can."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from itertools import chain
from operator import itemgetter
from typing import Any

from sqlalchemy import Column, Connection, Table, TypeDecorator
from sqlalchemy.dialects import postgresql

_ROWS_MAX = 64
_POSTGRESQL = postgresql.dialect()  # type: ignore[no-untyped-call]
# Without lengths: a cast to a length would cut off what is too long, where the insert refuses it.
_ARRAYS = {
    bool: "boolean[]",
    bytes: "bytea[]",
    float: "double precision[]",
    int: "bigint[]",
    str: "text[]",
}


def insert_rows(connection: Connection, table: Table, rows: Sequence[dict[str, Any]]) -> None:
    """Inserts rows that have all of the table's columns. SQLite must be able to store them as they are.

    Many rows are one statement. With one for each, the thread would let go of the interpreter for every row, and
    wait for a thread that is busy before it could go on with the next; and it holds off all others that write.
    """
    # SQLAlchemy looks at every value of every row, which took longer than the insert.
    if connection.dialect.name == "sqlite":
        for part in _parts(rows):
            text, in_order = _sqlite_inserting(table, len(part))
            connection.exec_driver_sql(text, tuple(chain.from_iterable(map(in_order, part))))
        return
    text, columns = _postgresql_inserting(table)
    connection.exec_driver_sql(text, tuple([told(row[name]) for row in rows] for name, told in columns))


def _parts(rows: Sequence[dict[str, Any]]) -> Iterator[Sequence[dict[str, Any]]]:
    """The rows in order, in parts of a power of two, so that there are but some statements to remember."""
    start = 0
    while start < len(rows):
        size = min(_ROWS_MAX, 1 << ((len(rows) - start).bit_length() - 1))
        yield rows[start : start + size]
        start += size


@cache
def _sqlite_inserting(table: Table, count: int) -> tuple[str, Callable[[dict[str, Any]], tuple[Any, ...]]]:
    names = [each.name for each in table.columns]
    marks = f"({', '.join('?' * len(names))})"
    text = f"INSERT INTO {table.name} ({', '.join(names)}) VALUES {', '.join([marks] * count)}"
    return text, itemgetter(*names)


@cache
def _postgresql_inserting(table: Table) -> tuple[str, list[tuple[str, Callable[[Any], Any]]]]:
    """One statement for any number of rows, which takes an array of each column; and how a value is told in it."""
    names = [each.name for each in table.columns]
    arrays = [f"%b::{_ARRAYS[_kind(each)]}" for each in table.columns]
    text = f"INSERT INTO {table.name} ({', '.join(names)}) SELECT * FROM unnest({', '.join(arrays)})"
    return text, [(each.name, _telling(each)) for each in table.columns]


def _kind(column: Column[Any]) -> type[Any]:
    of = column.type
    return (of.impl_instance if isinstance(of, TypeDecorator) else of).python_type


def _telling(column: Column[Any]) -> Callable[[Any], Any]:
    """The values of an array have one type."""
    if isinstance(column.type, TypeDecorator):
        return partial(column.type.process_bind_param, dialect=_POSTGRESQL)
    kind = _kind(column)
    return lambda value: None if value is None else kind(value)
