"""Reads of the log: in order for the learner, by id for everyone else."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from operator import attrgetter

from sqlalchemy import Engine, Table, bindparam, func, select

from policy.choices import IMPORTED
from policy.domain import Router
from policy.log import (
    DecisionRecord,
    LogRecord,
    RegistryRecord,
    ReportRecord,
    TickRecord,
)
from policy.promotion import PolicyRecord, Restored
from server.storage.codec import (
    AnyRow,
    DamagedRecordError,
    load_decision,
    load_recorded,
    load_report,
    load_router,
)
from server.storage.engine import open_reading
from server.storage.schema import (
    changes,
    decisions,
    log_head,
    reports,
    routers,
    second_days,
    snapshot_archive,
    snapshots,
)
from server.storage.second_days import Day
from server.storage.tail import LogPage, LogTail

_KEYS_PER_QUERY = 400


@dataclass(frozen=True, slots=True)
class StoredSnapshot:
    """A learner's saved state: it has learned every record of the log up to `seq`.

    Of the windows, those that ended up to `closed_through_us` are closed.
    """

    router: Router
    seq: int
    closed_through_us: int
    state: bytes


class LogDroppedError(OSError):
    """A part of the log was dropped that was still to be read: go on from what was saved since."""


class LogReader:
    """Reads what has been committed. Safe to use from any thread.

    Pages that are read back are handed on to the tail of another follower, if given, to be read once for both.
    """

    def __init__(self, engine: Engine, tail: LogTail | None = None, hand_on: LogTail | None = None) -> None:
        self._origin = engine
        self._engine = open_reading(engine)
        self._tail = tail
        self._hand_on = hand_on

    def without_tail(self) -> LogReader:
        """Another that reads from the database alone, and so takes nothing away from who follows the tail."""
        return LogReader(self._origin)

    def page(self, after: int, limit: int) -> LogPage:
        """The records at about `limit` positions above `after`, as far as they are given out."""
        fresh = self._tail.take(after, limit) if self._tail else None
        if fresh is not None:
            return fresh
        with self._engine.connect() as connection:
            head, floor = connection.execute(_HEAD_AND_FLOOR).one()
            upto = min(after + limit, head)
            if upto <= after:
                return LogPage(after, [], after, floor)
            records: list[LogRecord] = []
            for query, load in _PARTS:
                records.extend(load(row) for row in connection.execute(query, {"after": after, "upto": upto}))
            # At last, so that it tells what was dropped while they were read.
            _, floor = connection.execute(_HEAD_AND_FLOOR).one()
        records.sort(key=attrgetter("seq"))
        page = LogPage(after, records, upto, floor)
        if self._hand_on is not None and floor <= after:
            self._hand_on.put(page)
        return page

    def dropped(self) -> tuple[int, int]:
        """Up to which position decisions and reports were dropped, and the position at which they were."""
        with self._engine.connect() as connection:
            floor, floored = connection.execute(select(log_head.c.floor_seq, log_head.c.floored_seq)).one()
        return floor, floored

    def head(self) -> int:
        """The last position given out; 0 in an empty log."""
        with self._engine.connect() as connection:
            return int(connection.execute(select(log_head.c.seq)).scalar_one())

    def second_days(self) -> tuple[int, dict[Day, float]]:
        """The last position given out, and what second calls have cost by then, by router and day, in USD."""
        with self._engine.connect() as connection:
            head = int(connection.execute(select(log_head.c.seq)).scalar_one())
            rows = connection.execute(select(second_days)).all()
        return head, {(row.router_uid, row.day): row.usd for row in rows}

    def decision(self, decision_id: str) -> DecisionRecord | None:
        """The decision of this id, or None."""
        with self._engine.connect() as connection:
            row = connection.execute(select(decisions).where(decisions.c.decision_id == decision_id)).one_or_none()
        return None if row is None else load_decision(row)

    def decision_of_request(self, router_uid: int, request_id: str) -> DecisionRecord | None:
        """The decision that this request was given, or None."""
        query = select(decisions).where(decisions.c.router_uid == router_uid, decisions.c.request_id == request_id)
        with self._engine.connect() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else load_decision(row)

    def decisions(self, decision_ids: Sequence[str]) -> dict[str, DecisionRecord]:
        """The decisions of these ids that exist, by id."""
        found = {}
        with self._engine.connect() as connection:
            for start in range(0, len(decision_ids), _KEYS_PER_QUERY):
                keys = decision_ids[start : start + _KEYS_PER_QUERY]
                query = select(decisions).where(decisions.c.decision_id.in_(keys))
                for row in connection.execute(query):
                    found[row.decision_id] = load_decision(row)
        return found

    def reports(self, decision_ids: Sequence[str]) -> dict[str, list[ReportRecord]]:
        """The reports on these decisions, in the order of the log, by decision."""
        found: dict[str, list[ReportRecord]] = defaultdict(list)
        with self._engine.connect() as connection:
            for start in range(0, len(decision_ids), _KEYS_PER_QUERY):
                keys = decision_ids[start : start + _KEYS_PER_QUERY]
                query = select(reports).where(reports.c.decision_id.in_(keys)).order_by(reports.c.seq)
                for row in connection.execute(query):
                    found[row.decision_id].append(load_report(row))
        return found

    def rewarded(self, router: str, after: str, limit: int) -> list[str]:
        """The router's decisions on which a reward itself was reported: their ids, in order, after this one."""
        query = (
            select(decisions.c.decision_id)
            .join(routers, routers.c.uid == decisions.c.router_uid)
            .join(reports, reports.c.decision_id == decisions.c.decision_id)
            .where(routers.c.id == router, reports.c.reward.is_not(None), decisions.c.decision_id > after)
            .distinct()
            .order_by(decisions.c.decision_id)
            .limit(limit)
        )
        with self._engine.connect() as connection:
            return list(connection.execute(query).scalars())

    def recent(self, router_uid: int, limit: int) -> Iterator[DecisionRecord]:
        """The router's last decisions, the newest first, one by one from the database."""
        query = (
            select(decisions)
            .where(decisions.c.router_uid == router_uid)
            .order_by(decisions.c.seq.desc())
            .limit(limit)
        )
        origin = self._origin.execution_options(read_only=True)  # A cursor of PostgreSQL is in a transaction.
        with origin.connect().execution_options(yield_per=_KEYS_PER_QUERY) as connection:
            for row in connection.execute(query):
                yield load_decision(row)

    def expired(self, after_us: int, upto_us: int, limit: int) -> list[DecisionRecord]:
        """Decisions whose window closes in (after_us, upto_us], by closing time, at most about `limit`.

        A closing time is never split between two calls, so the caller can go on from the last one.
        """
        with self._engine.connect() as connection:
            bound = connection.execute(
                select(decisions.c.expire_us)
                .where(decisions.c.expire_us > after_us, decisions.c.expire_us <= upto_us)
                .order_by(decisions.c.expire_us)
                .offset(limit)
                .limit(1)
            ).scalar_one_or_none()
            query = (
                select(decisions)
                .where(
                    decisions.c.expire_us > after_us,
                    decisions.c.expire_us <= (upto_us if bound is None else bound),
                )
                .order_by(decisions.c.expire_us, decisions.c.seq)
            )
            return [load_decision(row) for row in connection.execute(query)]

    def next_expiry_us(self, after_us: int) -> int | None:
        """The first closing time after this one, or None."""
        with self._engine.connect() as connection:
            expiry: int | None = connection.execute(_NEXT_EXPIRY, {"after_us": after_us}).scalar_one()
            return expiry

    def session_decision(self, router_uid: int, session_id: str, since_us: int) -> DecisionRecord | None:
        """The session's last decision, if it was at or after `since_us`.

        Not an imported one: it was made some time or other, and its model's cache is cold.
        """
        with self._engine.connect() as connection:
            row = connection.execute(
                select(decisions)
                .where(
                    decisions.c.router_uid == router_uid,
                    decisions.c.session_id == session_id,
                    decisions.c.policy != IMPORTED,
                )
                .order_by(decisions.c.seq.desc())
                .limit(1)
            ).one_or_none()
        return None if row is None or row.time_us < since_us else load_decision(row)

    def latest_snapshots(self) -> list[StoredSnapshot]:
        """The newest snapshot of each router."""
        newest = (
            select(snapshots.c.router, func.max(snapshots.c.seq).label("seq"))
            .group_by(snapshots.c.router)
            .subquery()
        )
        query = select(snapshots).join(
            newest,
            (snapshots.c.router == newest.c.router) & (snapshots.c.seq == newest.c.seq),
        )
        with self._engine.connect() as connection:
            return [_load_snapshot(row) for row in connection.execute(query)]

    def all_snapshots(self) -> Iterator[StoredSnapshot]:
        """Every snapshot kept that was learned from this log, oldest first, one after the other."""
        own = snapshot_archive.c.seq.is_not(None)
        with self._engine.connect() as connection:
            saved = connection.execute(select(snapshots.c.seq, snapshots.c.router)).all()
            kept = connection.execute(select(snapshot_archive.c.seq, snapshot_archive.c.router).where(own)).all()
        keys = sorted(
            [(*each, snapshots) for each in saved] + [(*each, snapshot_archive) for each in kept], key=_key
        )
        for seq, router, table in keys:
            query = select(table).where(table.c.seq == seq, table.c.router == router)
            with self._engine.connect() as connection:
                row = connection.execute(query).one_or_none()
            if row is not None:
                yield _load_snapshot(row)

    def recalled(self, router_uid: int, restored: Restored) -> StoredSnapshot:
        """The snapshot that a record goes back to. Raises DamagedRecordError if it is not there as it was then."""
        mine = (snapshot_archive.c.router_uid == router_uid, snapshot_archive.c.id == restored.snapshot)
        with self._engine.connect() as connection:
            row = connection.execute(select(snapshot_archive).where(*mine)).one_or_none()
        if row is None or sha256(row.state).hexdigest() != restored.digest:
            raise DamagedRecordError(f"snapshot {restored.snapshot} is not what a record of the log refers to")
        return StoredSnapshot(load_router(row.payload), row.seq or 0, row.closed_through_us, row.state)


def _key(each: tuple[int, str, Table]) -> tuple[int, str]:
    return each[0], each[1]


def _load_snapshot(row: AnyRow) -> StoredSnapshot:
    return StoredSnapshot(load_router(row.payload), row.seq, row.closed_through_us, row.state)


def _load_change(row: AnyRow) -> RegistryRecord | TickRecord:
    if row.kind == "tick":
        return TickRecord(row.seq, row.time_us)
    if row.kind == "policy":
        return PolicyRecord(row.seq, row.time_us, row.router, *load_recorded(row.payload))
    router = None if row.payload is None else load_router(row.payload)
    return RegistryRecord(row.seq, row.time_us, row.router, router)


# Built once: putting a statement together costs as much as running it.
_NEXT_EXPIRY = select(func.min(decisions.c.expire_us)).where(decisions.c.expire_us > bindparam("after_us"))
_HEAD_AND_FLOOR = select(log_head.c.seq, log_head.c.floor_seq)
_PARTS = tuple(
    (select(table).where(table.c.seq > bindparam("after"), table.c.seq <= bindparam("upto")), load)
    for table, load in ((decisions, load_decision), (reports, load_report), (changes, _load_change))
)
