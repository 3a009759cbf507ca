"""The published views in the database, and how far the learner has come: newer is never replaced by older."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, bindparam, or_, select, text, tuple_
from sqlalchemy.dialects import postgresql, sqlite

from server.storage.notices import LEARNED, notify
from server.storage.schema import changes, learner_head, log_head, views

ViewKey = tuple[str, bool]
"""A router, and whether it is its canary's view."""
_HEAD_ID = 1


@dataclass(frozen=True, slots=True)
class StoredView:
    """A router's view at a position of the log, or its canary's; `state` None says that there is none any more.

    It was published at `time_us`.
    """

    router: str
    canary: bool
    candidate: str
    seq: int
    state: bytes | None
    time_us: int = 0

    @property
    def key(self) -> ViewKey:
        """What it takes the place of."""
        return self.router, self.canary


@dataclass(frozen=True, slots=True)
class LearnerHead:
    """How far the learner has come in the log, and which process that is."""

    seq: int
    holder: str


@dataclass(frozen=True, slots=True)
class Board:
    """What is published at one time. `changed` are the routers that were changed since the last look."""

    head: int
    changed: set[str]
    positions: Mapping[ViewKey, int]
    learner: LearnerHead | None


def publish_views(engine: Engine, found: Iterable[StoredView], learner: LearnerHead | None, time_us: int) -> None:
    """Publishes in one small transaction and says so to who listens. Views that are older than what is there
    change nothing. Nobody waits for the disk, on SQLite with an `open_relaxed` engine: what is lost in a crash is
    soon published again.
    """
    rows = [
        {
            "router": each.router,
            "canary": each.canary,
            "candidate": each.candidate,
            "seq": each.seq,
            "time_us": time_us,
            "state": each.state,
        }
        for each in sorted(found, key=lambda each: each.key)  # In one order: no deadlock.
    ]
    put_view, put_head = _PUTS[engine.dialect.name]
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text("SET LOCAL synchronous_commit = off"))
        if rows:
            connection.execute(put_view, rows)
        if learner is not None:
            head = {"id": _HEAD_ID, "seq": learner.seq, "time_us": time_us, "holder": learner.holder}
            connection.execute(put_head, head)
        notify(connection, LEARNED)


def read_board(engine: Engine, after: int) -> Board:
    """What is published now, and which routers were changed above this position of the log."""
    with engine.connect() as connection:
        head = int(connection.execute(_HEAD).scalar_one())
        return Board(
            head,
            _changed(connection, after, head),
            {(row.router, row.canary): row.seq for row in connection.execute(_POSITIONS)},
            _learner(connection),
        )


def read_views(engine: Engine, keys: Iterable[ViewKey]) -> list[StoredView]:
    """These views as they are now."""
    query = select(views).where(tuple_(views.c.router, views.c.canary).in_(sorted(keys)))
    with engine.connect() as connection:
        return [
            StoredView(row.router, row.canary, row.candidate, row.seq, row.state, row.time_us)
            for row in connection.execute(query)
        ]


def _changed(connection: Connection, after: int, upto: int) -> set[str]:
    return set(connection.execute(_CHANGED, {"after": after, "upto": upto}).scalars())


def _learner(connection: Connection) -> LearnerHead | None:
    row = connection.execute(_LEARNER_HEAD).one_or_none()
    return None if row is None else LearnerHead(row.seq, row.holder)


# Built once: they are asked some times a second.
_HEAD = select(log_head.c.seq)
_CHANGED = (
    select(changes.c.router)
    .distinct()
    .where(changes.c.seq > bindparam("after"), changes.c.seq <= bindparam("upto"), changes.c.router != "")
)
_LEARNER_HEAD = select(learner_head)
_POSITIONS = select(views.c.router, views.c.canary, views.c.seq)


def _putting(insert: Any) -> tuple[Any, Any]:
    """What puts a view and the learner's head in the place of older ones."""
    view, head = insert(views), insert(learner_head)
    put_view = view.on_conflict_do_update(
        index_elements=[views.c.router, views.c.canary],
        set_={name: view.excluded[name] for name in ("candidate", "seq", "time_us", "state")},
        where=views.c.seq < view.excluded.seq,
    )
    put_head = head.on_conflict_do_update(
        index_elements=[learner_head.c.id],
        set_={name: head.excluded[name] for name in ("seq", "time_us", "holder")},
        # The same position by another holder: it has taken over, and there is nothing to learn yet.
        where=or_(
            learner_head.c.seq < head.excluded.seq,
            (learner_head.c.seq == head.excluded.seq) & (learner_head.c.holder != head.excluded.holder),
        ),
    )
    return put_view, put_head


_PUTS = {"postgresql": _putting(postgresql.insert), "sqlite": _putting(sqlite.insert)}
