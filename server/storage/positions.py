"""How far the log has come, and how old what is not followed yet and what is saved of it are."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Engine, func, select, text

from server.storage.schema import changes, decisions, log_head, reports, snapshots

_DATABASE_TIME = text("SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint)")


@dataclass(frozen=True, slots=True)
class Positions:
    """The last position of the log, and for each router up to where its newest snapshot has learned, and when it
    was saved, in microseconds since 1970.
    """

    head: int
    snapshots: dict[str, tuple[int, int]]


def read_positions(engine: Engine) -> Positions:
    """As of now."""
    newest = select(
        snapshots.c.router, func.max(snapshots.c.seq).label("seq"), func.max(snapshots.c.time_us).label("time_us")
    ).group_by(snapshots.c.router)
    with engine.execution_options(read_only=True).connect() as connection:
        head = int(connection.execute(select(log_head.c.seq)).scalar_one())
        found = {row.router: (int(row.seq), int(row.time_us)) for row in connection.execute(newest)}
    return Positions(head, found)


def log_time_us(engine: Engine) -> int:
    """The time of the log's last record, in microseconds since 1970; 0 in an empty log."""
    with engine.execution_options(read_only=True).connect() as connection:
        return int(connection.execute(select(log_head.c.time_us)).scalar_one())


def database_time_us(engine: Engine) -> int | None:
    """The time by the database's own clock, in microseconds since 1970; None for SQLite, which has none."""
    if engine.dialect.name == "sqlite":
        return None
    with engine.execution_options(read_only=True).connect() as connection:
        return int(connection.execute(_DATABASE_TIME).scalar_one())


def time_after_us(engine: Engine, position: int) -> int | None:
    """When the first record above a position was written, in microseconds since 1970; None if there is none."""
    firsts = []
    with engine.execution_options(read_only=True).connect() as connection:
        for table in (decisions, reports, changes):
            query = select(table.c.seq, table.c.time_us).where(table.c.seq > position).order_by(table.c.seq)
            row = connection.execute(query.limit(1)).one_or_none()
            if row is not None:
                firsts.append((int(row.seq), int(row.time_us)))
    return min(firsts)[1] if firsts else None
