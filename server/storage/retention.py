"""Drops the oldest part of the log, once every saved state has passed it.

A decision goes together with all its reports. What of the log a restart still needs stays, however old it is:
the log above the oldest of the newest snapshots and of the evaluations, and the decisions whose windows were
open there. Reports above it on decisions whose windows were closed there are late, and teach nobody.

The log grows old only while a server looks after it: a long gap between two looks does not count. So a clock that
jumps ahead by years, or a machine that was off for months, is no reason to drop anything.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import takewhile

from sqlalchemy import Connection, delete, func, insert, select, text, update
from sqlalchemy.exc import OperationalError

from policy.domain import InvalidFieldError, RouterSpec
from server.storage import partitions
from server.storage.schema import changes, decisions, evaluations, log_gaps, log_head, reports, routers, snapshots

_STEP = 200
_LOCK_WAIT = "200ms"
_GAP_US = 86_400_000_000
_LOOK_US = 600_000_000


@dataclass(frozen=True, slots=True)
class Covered:
    """What every saved state has followed: the log up to `seq`, and the windows that ended up to this time."""

    seq: int
    closed_through_us: int


def require_window(spec: RouterSpec, seconds_max: float | None, place: str = "") -> None:
    """Raises InvalidFieldError, with the place before the field, for a join window that outlives the retention."""
    seconds = spec.reward_rule.join_window_seconds
    if seconds_max is not None and seconds > seconds_max:
        raise InvalidFieldError(
            f"{place}reward_rule.join_window_seconds",
            f"must be at most {seconds_max:g}, since decisions are kept for {seconds_max / 86_400:g} days "
            f"(POINTSMAN_RETENTION_DAYS), not {seconds:g}",
        )


def covered(connection: Connection) -> Covered | None:
    """What is not needed any more to go on from what is saved; None if that is nothing.

    A policy's change that a restart would meet again asks for the whole log as it is, so it is waited for.
    """
    newest = connection.execute(
        select(snapshots.c.router, func.max(snapshots.c.seq), func.max(snapshots.c.closed_through_us)).group_by(
            snapshots.c.router
        )
    ).all()
    followed = [tuple(row[1:]) for row in newest]
    followed += map(tuple, connection.execute(select(evaluations.c.seq, evaluations.c.closed_through_us)).all())
    live = connection.execute(select(routers.c.id).where(routers.c.delete_us.is_(None))).scalars()
    if not followed or not set(live) <= {row.router for row in newest}:
        return None
    seq, closed_through_us = (min(each) for each in zip(*followed, strict=True))
    ahead = select(changes.c.seq).where(changes.c.seq > seq, changes.c.kind == "policy").limit(1)
    return None if connection.execute(ahead).first() else Covered(seq, closed_through_us)


def is_old(connection: Connection, before_us: int) -> bool:
    """Whether something could be dropped of what was decided before this time."""
    if connection.dialect.name == "postgresql":
        return bool(_old_partitions(connection, before_us))
    return bool(_old_decisions(connection, before_us))


def is_look_due(connection: Connection, now_us: int) -> bool:
    """Whether it is time to note that the log is looked after."""
    aged_us: int = connection.execute(select(log_head.c.aged_us)).scalar_one()
    return now_us - aged_us >= _LOOK_US


def note_look(retention_us: int) -> Callable[[Connection, int, int], None]:
    """What notes that the log is looked after, and the gap if it was not for long; forgets gaps that are over.

    Long is a day, or a tenth of the retention.
    """
    long_us = min(_GAP_US, max(2 * _LOOK_US, retention_us // 10))

    def apply(connection: Connection, _seq: int, time_us: int) -> None:
        aged_us: int = connection.execute(select(log_head.c.aged_us)).scalar_one()
        if aged_us and time_us - aged_us >= long_us:
            connection.execute(insert(log_gaps).values(end_us=time_us, length_us=time_us - aged_us))
        # Not those from before time_us - retention_us: later gaps take the horizon further back.
        past = log_gaps.c.end_us <= horizon_us(connection, time_us, retention_us)
        connection.execute(delete(log_gaps).where(past))
        connection.execute(update(log_head).values(aged_us=time_us))

    return apply


def horizon_us(connection: Connection, now_us: int, retention_us: int) -> int:
    """The time before which what was decided is older than the retention, gaps not counted."""
    found = now_us - retention_us
    for gap in connection.execute(select(log_gaps).order_by(log_gaps.c.end_us.desc())):
        if gap.end_us > found:
            found -= gap.length_us
    return found


def oldest(connection: Connection) -> int | None:
    """When the first decision of the log was made, None if there is none."""
    query = select(decisions.c.time_us).order_by(decisions.c.seq).limit(1)
    time_us: int | None = connection.execute(query).scalar_one_or_none()
    return time_us


def drop_old(retention_us: int) -> Callable[[Connection, int, int], int]:
    """What drops the log's oldest part, if it is older: some decisions, or on PostgreSQL whole partitions.

    It gives how many of them have gone, 0 if nothing can go now.
    """

    def apply(connection: Connection, seq: int, time_us: int) -> int:
        before_us = horizon_us(connection, time_us, retention_us)
        if connection.dialect.name == "postgresql":
            count = _drop_partitions(connection, before_us)
        else:
            count = _delete_decisions(connection, before_us)
        if count:
            first = connection.execute(select(func.min(decisions.c.seq))).scalar_one()
            floor = seq if first is None else first - 1
            connection.execute(update(log_head).values(floor_seq=floor, floored_seq=seq))
            connection.execute(delete(changes).where(changes.c.kind == "tick", changes.c.seq <= floor))
        return count

    return apply


def _old_decisions(connection: Connection, before_us: int) -> list[tuple[int, str]]:
    """The first decisions of the log, as far as they may go.

    The log's time never runs backwards, so that its first young decision ends the search: to ask the database for
    the old ones would have it read all the others, since no index tells their times.
    """
    safe = covered(connection)
    if safe is None:
        return []
    query = (
        select(decisions.c.seq, decisions.c.decision_id, decisions.c.time_us, decisions.c.expire_us)
        .where(decisions.c.seq < safe.seq)
        .order_by(decisions.c.seq)
        .limit(_STEP)
    )
    old = takewhile(
        lambda row: row.time_us < before_us and row.expire_us <= safe.closed_through_us,
        connection.execute(query).all(),
    )
    return [(row.seq, row.decision_id) for row in old]


def _delete_decisions(connection: Connection, before_us: int) -> int:
    old = _old_decisions(connection, before_us)
    if old:
        ids = [decision_id for _, decision_id in old]
        connection.execute(delete(reports).where(reports.c.decision_id.in_(ids)))
        connection.execute(delete(decisions).where(decisions.c.seq <= old[-1][0]))
    return len(old)


def _old_partitions(connection: Connection, before_us: int) -> list[str]:
    """The ends of the first partitions, as far as they may go; none if nothing is in them."""
    safe = covered(connection)
    if safe is None:
        return []
    found, filled = [], False
    for end in partitions.ended_before(connection, before_us):
        seq, expire_us = partitions.last_of(connection, end)
        if seq >= safe.seq or expire_us > safe.closed_through_us:
            break
        found.append(end)
        filled |= seq > 0
    return found if filled else []


def _drop_partitions(connection: Connection, before_us: int) -> int:
    """A drop waits for who reads the log, and all others wait for it: so it gives up soon, and comes again."""
    old = _old_partitions(connection, before_us)
    if not old:
        return 0
    try:
        with connection.begin_nested():
            connection.execute(text(f"SET LOCAL lock_timeout = '{_LOCK_WAIT}'"))
            partitions.drop(connection, old)
    except OperationalError:
        return 0
    return len(old)
