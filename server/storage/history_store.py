"""What routers did over time: counts by model in minutes, hours and days, taken from the log step by step."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, delete, func, literal_column, select, update
from sqlalchemy.dialects.postgresql import insert as insert_postgresql
from sqlalchemy.dialects.sqlite import insert as insert_sqlite

from policy.books import gives_up
from policy.choices import IMPORTED
from server.storage.codec import AnyRow, load_choice
from server.storage.schema import decisions, history, history_cursor, log_head, reports

MINUTE_US = 60_000_000
HOUR_MINUTES = 60
DAY_MINUTES = 24 * HOUR_MINUTES
LEVELS_MINUTES = (1, HOUR_MINUTES, DAY_MINUTES)
KEPT_DAYS: Mapping[int, int | None] = {1: 2, HOUR_MINUTES: 90, DAY_MINUTES: None}
"""For how many days each level is kept, by its length in minutes; None is for ever."""

_CLOSING_MAX = 1000
_KEYS_PER_QUERY = 400
_KEY = (history.c.router_uid, history.c.level_minutes, history.c.start_minute, history.c.model)
_CHOICE = (
    decisions.c.model,
    decisions.c.propensity,
    decisions.c.policy,
    decisions.c.snapshot,
    decisions.c.details,
)


@dataclass(slots=True)
class Counts:
    """What one model did in a stretch of time. Second calls and imported decisions are none of it.

    Rewards, costs, errors and late reports are of the time when they arrived, and of the model they are about;
    `closed` and `missing` of the time when the window ended. A decision whose window ended without a cost is
    charged what was predicted, as in the router's spend.
    """

    decisions: int = 0
    explorations: int = 0
    rewards: int = 0
    reward_sum: float = 0.0
    cost_usd: float = 0.0
    errors: int = 0
    closed: int = 0
    missing: int = 0
    late: int = 0

    def add(self, other: Counts) -> None:
        """Counts these too."""
        for each in COUNTED:
            setattr(self, each, getattr(self, each) + getattr(other, each))


COUNTED = tuple(each.name for each in fields(Counts))
_KINDS: Mapping[str, Callable[[Any], Any]] = {
    each.name: float if each.type == "float" else int for each in fields(Counts)
}

Place = tuple[int, int, str]
"""A router's uid, a minute since 1970, and a model's id."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """The log is counted up to `seq`, and windows that ended up to `closed_through_us`."""

    seq: int
    closed_through_us: int


@dataclass(frozen=True, slots=True)
class Step:
    """What the log has from one cursor to another. `more` says whether there was more of it."""

    after: Cursor
    counts: Mapping[Place, Counts]
    more: bool

    def then(self, following: Step) -> Step:
        """This step and the one after it as one."""
        counts: dict[Place, Counts] = defaultdict(Counts)
        for place, found in (*self.counts.items(), *following.counts.items()):
            counts[place].add(found)
        return Step(following.after, counts, following.more)


def read_cursor(connection: Connection) -> Cursor:
    """How far the log is counted."""
    row = connection.execute(select(history_cursor.c.seq, history_cursor.c.closed_through_us)).one()
    return Cursor(row.seq, row.closed_through_us)


def read_step(connection: Connection, cursor: Cursor, limit: int) -> Step:
    """Counts the log at about `limit` positions above the cursor, and some 1,000 windows that ended, at most."""
    head = connection.execute(select(log_head.c.seq, log_head.c.time_us, log_head.c.floor_seq)).one()
    first = max(cursor.seq, head.floor_seq)  # Nothing is left below it.
    upto = min(first + limit, head.seq)
    counts: dict[Place, Counts] = defaultdict(Counts)
    times = [
        cursor.closed_through_us,
        *_count_decisions(connection, first, upto, counts),
        *_count_reports(connection, first, upto, counts),
    ]
    now_us = head.time_us if upto == head.seq else max(times)
    closable_us = max(cursor.closed_through_us, now_us - 1)
    closed_us = _count_closed(connection, cursor.closed_through_us, closable_us, counts)
    return Step(Cursor(upto, closed_us), counts, more=upto < head.seq or closed_us < closable_us)


def store_step(before: Cursor, step: Step) -> Callable[[Connection, int, int], bool]:
    """What stores it, if the log is counted up to `before` as ever; it says whether it was.

    Several servers count the same log: whoever comes second finds it counted, and stores nothing.
    """

    def apply(connection: Connection, _seq: int, _time_us: int) -> bool:
        mine = (history_cursor.c.seq == before.seq) & (
            history_cursor.c.closed_through_us == before.closed_through_us
        )
        after = {"seq": step.after.seq, "closed_through_us": step.after.closed_through_us}
        if connection.execute(update(history_cursor).where(mine).values(after)).rowcount == 0:
            return False
        _add(connection, step.counts)
        return True

    return apply


def prune(connection: Connection, _seq: int, time_us: int) -> None:
    """Drops the levels that are older than they are kept."""
    for level, days in KEPT_DAYS.items():
        if days is not None:
            until = time_us // MINUTE_US - days * DAY_MINUTES
            connection.execute(
                delete(history).where(history.c.level_minutes == level, history.c.start_minute < until)
            )


def read_history(
    connection: Connection, router_uid: int, start_minute: int, end_minute: int, bucket_minutes: int
) -> dict[int, dict[str, Counts]]:
    """The counts of a router from one minute to before another, by the bucket's first minute and by model.

    Buckets begin at multiples of their length since 1970; those in which nothing was are left out. Of the
    levels that `bucket_minutes`, 1 or more, is a multiple of the coarsest is read.
    """
    level = max(each for each in LEVELS_MINUTES if bucket_minutes % each == 0)
    # Not a parameter: PostgreSQL would take the one in GROUP BY for another.
    length: ColumnElement[int] = literal_column(str(int(bucket_minutes)))
    start = history.c.start_minute - history.c.start_minute % length
    query = (
        select(
            start.label("bucket"), history.c.model, *(func.sum(history.c[each]).label(each) for each in COUNTED)
        )
        .where(
            history.c.router_uid == router_uid,
            history.c.level_minutes == level,
            history.c.start_minute >= start_minute,
            history.c.start_minute < end_minute,
        )
        .group_by(start, history.c.model)
        .order_by(start, history.c.model)
    )
    found: dict[int, dict[str, Counts]] = defaultdict(dict)
    for row in connection.execute(query):
        values = {name: kind(getattr(row, name)) for name, kind in _KINDS.items()}
        found[row.bucket][row.model] = Counts(**values)
    return dict(found)


def _count_decisions(connection: Connection, after: int, upto: int, counts: dict[Place, Counts]) -> list[int]:
    """Counts the decisions at these positions; gives their times."""
    query = select(decisions.c.router_uid, decisions.c.time_us, decisions.c.deferred, *_CHOICE).where(
        decisions.c.seq > after, decisions.c.seq <= upto
    )
    times = []
    for row in connection.execute(query):
        times.append(row.time_us)
        if row.policy != IMPORTED and not row.deferred:
            _enter(row, row.time_us, counts)
    return times


def _enter(row: AnyRow, time_us: int, counts: dict[Place, Counts]) -> None:
    """A decision that counts from this time on."""
    mine = counts[row.router_uid, time_us // MINUTE_US, row.model]
    mine.decisions += 1
    if row.propensity < 1.0:
        mine.explorations += gives_up(load_choice(row)) is not None


def _count_reports(connection: Connection, after: int, upto: int, counts: dict[Place, Counts]) -> list[int]:
    """Counts the reports at these positions; gives their times."""
    decision = decisions.c
    query = (
        select(reports, decision.router_uid, decision.policy)
        .join(decisions, decision.decision_id == reports.c.decision_id)
        .where(reports.c.seq > after, reports.c.seq <= upto)
    )
    times, activated = [], {}
    for row in connection.execute(query):
        times.append(row.time_us)
        if row.policy == IMPORTED:
            continue
        if row.activates:
            activated[row.decision_id] = row.time_us
        if not row.second:
            _count_report(row, counts[row.router_uid, row.time_us // MINUTE_US, row.subject])
    for row in _of_ids(connection, decisions, (decision.decision_id, decision.router_uid, *_CHOICE), activated):
        _enter(row, activated[row.decision_id], counts)
    return times


def _count_report(row: AnyRow, mine: Counts) -> None:
    if row.late:
        mine.late += 1
        return
    mine.errors += row.error is not None
    mine.cost_usd += row.charged_usd or 0.0
    if row.learned_reward is not None:
        mine.rewards += row.replaces_reward is None
        mine.reward_sum += row.learned_reward - (row.replaces_reward or 0.0)


def _count_closed(connection: Connection, after_us: int, upto_us: int, counts: dict[Place, Counts]) -> int:
    """Counts windows that ended in (after_us, upto_us]; gives the end up to which it was done.

    Every report that came in time is stored by then.
    """
    expire_us = decisions.c.expire_us
    ended = (expire_us > after_us, expire_us <= upto_us)
    beyond = select(expire_us).where(*ended).order_by(expire_us).offset(_CLOSING_MAX).limit(1)
    bound = connection.execute(beyond).scalar_one_or_none()
    last_us = upto_us if bound is None else int(bound)
    query = select(
        decisions.c.decision_id, decisions.c.router_uid, expire_us, decisions.c.deferred, *_CHOICE
    ).where(expire_us > after_us, expire_us <= last_us)
    found = [row for row in connection.execute(query) if row.policy != IMPORTED]
    columns = (
        *(reports.c.decision_id, reports.c.seq, reports.c.second, reports.c.served_model),
        *(reports.c.learned_reward, reports.c.charged_usd),
    )
    told: dict[str, list[AnyRow]] = defaultdict(list)
    for row in _of_ids(
        connection, reports, columns, [row.decision_id for row in found], reports.c.late.is_(False)
    ):
        told[row.decision_id].append(row)
    for row in found:
        _close(row, sorted(told[row.decision_id], key=lambda each: each.seq), counts)
    return last_us


def _close(row: AnyRow, in_time: Sequence[AnyRow], counts: dict[Place, Counts]) -> None:
    if row.deferred and not in_time:
        return
    minute = row.expire_us // MINUTE_US
    own = [each for each in in_time if not each.second]
    if all(each.charged_usd is None for each in own):
        counts[row.router_uid, minute, row.model].cost_usd += load_choice(row).predicted_cost_usd
    served = [each.served_model for each in own if each.served_model]
    mine = counts[row.router_uid, minute, served[-1] if served else row.model]
    mine.closed += 1
    mine.missing += all(each.learned_reward is None for each in own)


def _of_ids(
    connection: Connection, table: Table, columns: Sequence[Any], ids: Iterable[str], *conditions: Any
) -> Iterable[AnyRow]:
    """The rows of these decisions."""
    wanted = list(ids)
    for start in range(0, len(wanted), _KEYS_PER_QUERY):
        keys = wanted[start : start + _KEYS_PER_QUERY]
        yield from connection.execute(select(*columns).where(table.c.decision_id.in_(keys), *conditions))


def _add(connection: Connection, counts: Mapping[Place, Counts]) -> None:
    """Adds the counts to those that are stored, at every level."""
    insert = insert_postgresql if connection.dialect.name == "postgresql" else insert_sqlite
    sums: dict[tuple[int, int, int, str], Counts] = defaultdict(Counts)
    for (router_uid, minute, model), found in counts.items():
        for level in LEVELS_MINUTES:
            sums[router_uid, level, minute - minute % level, model].add(found)
    if not sums:
        return
    statement = insert(history)
    added = {each: history.c[each] + statement.excluded[each] for each in COUNTED}
    rows = [
        dict(zip((column.name for column in _KEY), key, strict=True))
        | {each: getattr(found, each) for each in COUNTED}
        for key, found in sorted(sums.items())
    ]
    connection.execute(statement.on_conflict_do_update(index_elements=_KEY, set_=added), rows)
