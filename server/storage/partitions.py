"""Partitions of the log on PostgreSQL: ranges of decision ids, and so of time. SQLite has none."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, text, update

from server.storage.schema import decisions, log_head, reports

_TABLES = (decisions.name, reports.name)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY_US = 86_400_000_000


def first_id(time_us: int) -> str:
    """What sorts before every decision id made at this time or later, and after every earlier one."""
    return f"{time_us // 1000:012x}"


def extend(connection: Connection, partitioned_until: str, decision_id: str, days: int = 1) -> str:
    """Makes one more partition, up to the midnight in UTC that is `days` days after the one before this id.

    Gives where the partitions end then. The caller holds the head of the log, so that nobody else makes
    one at the same time. It is made apart and then attached, which does not hold up who reads the others.
    """
    until_us = (int(decision_id[:12], 16) * 1000 // _DAY_US + days) * _DAY_US
    _add(connection, f"'{partitioned_until}'" if partitioned_until else "MINVALUE", until_us)
    connection.execute(update(log_head).values(partitioned_until=first_id(until_us)))
    return first_id(until_us)


def extend_ahead(connection: Connection, partitioned_until: str, now_us: int, days: int) -> None:
    """Makes partitions of so many days each until there is one more than the one that is written now."""
    while partitioned_until < first_id(now_us + days * _DAY_US):
        start = max(partitioned_until, first_id(now_us))
        partitioned_until = extend(connection, partitioned_until, start, days)


def ended_before(connection: Connection, time_us: int) -> list[str]:
    """The ends, as eight digits of a date, of the partitions that end by this time, oldest first."""
    query = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'decisions'::regclass"
    names = connection.execute(text(query)).scalars()
    ends = sorted(name.rpartition("_")[2] for name in names)
    return [each for each in ends if _time_us(each) <= time_us]


def last_of(connection: Connection, end: str) -> tuple[int, int]:
    """Of the decisions in a partition the last position and the last end of a window, zeros if there are none."""
    query = f"SELECT coalesce(max(seq), 0), coalesce(max(expire_us), 0) FROM {_name(decisions.name, end)}"
    seq, expire_us = connection.execute(text(query)).one()
    return seq, expire_us


def drop(connection: Connection, ends: list[str]) -> None:
    """Drops the oldest partitions, all up to the last of these; an empty one takes their place.

    So an id whose clock was far behind still has somewhere to go.
    """
    for end in ends:
        connection.execute(text(f"DROP TABLE {', '.join(_name(table, end) for table in _TABLES)}"))
    _add(connection, "MINVALUE", _time_us(ends[-1]))


def _add(connection: Connection, above: str, until_us: int) -> None:
    end = f"{_EPOCH + timedelta(microseconds=until_us):%Y%m%d}"
    for table in _TABLES:
        name = _name(table, end)
        values = f"FROM ({above}) TO ('{first_id(until_us)}')"
        connection.execute(text(f"CREATE TABLE {name} (LIKE {table} INCLUDING ALL)"))
        connection.execute(text(f"ALTER TABLE {table} ATTACH PARTITION {name} FOR VALUES {values}"))


def _name(table: str, end: str) -> str:
    return f"{table}_until_{end}"


def _time_us(end: str) -> int:
    return (datetime.strptime(end, "%Y%m%d").replace(tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)
