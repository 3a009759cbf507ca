"""Partitions of the log on PostgreSQL: ranges of decision ids, and so of time. SQLite has none."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, text, update

from server.storage.schema import decisions, log_head, reports

TABLES = (decisions.name, reports.name)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


def first_id(time_us: int) -> str:
    """What sorts before every decision id made at this time or later, and after every earlier one."""
    return f"{time_us // 1000:012x}"


def extend(connection: Connection, partitioned_until: str, decision_id: str, days: int = 1) -> None:
    """Makes the partitions that ids up to this one need, and `days` more, up to midnight in UTC.

    The caller holds the head of the log, so that nobody else makes them at the same time. All that is
    missing becomes one partition: there is hardly ever more than one to be made.
    """
    until = _midnight_after(decision_id) + timedelta(days=days)
    above = "MINVALUE" if not partitioned_until else f"'{partitioned_until}'"
    _add(connection, until, above)
    connection.execute(update(log_head).values(partitioned_until=_bound(until)))


def _add(connection: Connection, until: datetime, above: str) -> None:
    """Made apart and then attached, which does not hold up who reads the other partitions."""
    for table in TABLES:
        name = f"{table}_until_{until:%Y%m%d}"
        values = f"FROM ({above}) TO ('{_bound(until)}')"
        connection.execute(text(f"CREATE TABLE {name} (LIKE {table} INCLUDING ALL)"))
        connection.execute(text(f"ALTER TABLE {table} ATTACH PARTITION {name} FOR VALUES {values}"))


def _bound(until: datetime) -> str:
    return first_id((until - _EPOCH) // timedelta(microseconds=1))


def _midnight_after(decision_id: str) -> datetime:
    made = _EPOCH + int(decision_id[:12], 16) * _MILLISECOND
    return made.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
