"""What is in the database, as plain rows, and a reader that follows the log while it is written."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Engine, select
from sqlalchemy.exc import SQLAlchemyError

from server.storage.schema import changes, decisions, log_head, reports

_POLL_SECONDS = 0.05


@dataclass
class StoredDecision:
    """A row of the decisions. `costs_usd` are those predicted for each candidate."""

    seq: int
    time_us: int
    router: str
    router_uid: int
    decision_id: str
    request_id: str
    session_id: str
    model: str
    propensity: float
    deferred: bool
    candidates: dict[str, float]
    costs_usd: dict[str, float]
    fallbacks: list[str]

    @property
    def key(self) -> str:
        return f"decision {self.decision_id}"


@dataclass
class StoredReport:
    """A row of the reports, without what the server made of it."""

    seq: int
    time_us: int
    decision_id: str
    report_id: str
    reward: float | None
    cost_usd: float | None
    late: bool
    activation: bool

    @property
    def key(self) -> str:
        return f"report {self.report_id!r} on {self.decision_id}"


@dataclass
class StoredChange:
    """A row of the changes. `models` are the positions that created the router's models, by id."""

    seq: int
    time_us: int
    kind: str
    router: str
    models: Mapping[str, int]

    @property
    def key(self) -> str:
        return f"{self.kind} change of {self.router!r}"


@dataclass
class Stored:
    """The whole log."""

    decisions: list[StoredDecision]
    reports: list[StoredReport]
    changes: list[StoredChange]
    head_seq: int
    head_time_us: int

    def rows(self) -> list[StoredDecision | StoredReport | StoredChange]:
        """All rows by their position."""
        rows = [*self.decisions, *self.reports, *self.changes]
        return sorted(rows, key=lambda each: each.seq)


def read_all(engine: Engine) -> Stored:
    """Reads the log. No server may be writing."""
    with engine.connect() as connection:
        head = connection.execute(select(log_head.c.seq, log_head.c.time_us)).one()
        return Stored(
            [_decision(row) for row in connection.execute(select(decisions).order_by(decisions.c.seq))],
            [_report(row) for row in connection.execute(select(reports).order_by(reports.c.seq))],
            [_change(row) for row in connection.execute(select(changes).order_by(changes.c.seq))],
            head.seq,
            head.time_us,
        )


def _decision(row: Any) -> StoredDecision:
    details = json.loads(row.details)
    return StoredDecision(
        row.seq,
        row.time_us,
        f"routers/{row.router}",
        row.router_uid,
        row.decision_id,
        row.request_id or "",
        row.session_id or "",
        row.model,
        row.propensity,
        row.deferred,
        {each[0]: each[1] for each in details["candidates"]},
        {each[0]: each[3] for each in details["candidates"]},
        details["fallbacks"],
    )


def _report(row: Any) -> StoredReport:
    return StoredReport(
        *(row.seq, row.time_us, row.decision_id, row.report_id or "", row.reward, row.cost_usd),
        late=row.late,
        activation=row.activation,
    )


def _change(row: Any) -> StoredChange:
    models = {}
    if row.kind == "registry" and row.payload:
        models = {each["id"]: each["uid"] for each in json.loads(row.payload)["models"]}
    return StoredChange(row.seq, row.time_us, row.kind, f"routers/{row.router}", models)


@dataclass
class Follower:
    """Reads the log from its end as it grows, as a learner does, and remembers what was at each position."""

    engine: Engine
    cursor: int = 0
    seen: dict[int, str] = field(default_factory=dict)
    polls: int = 0
    wrong: list[str] = field(default_factory=list)

    async def run(self, ending: asyncio.Event) -> None:
        """Follows until `ending`, and over any failure of the database."""
        while not ending.is_set():
            with suppress(SQLAlchemyError):  # It is down. What was read stays read.
                await asyncio.to_thread(self.poll)
            await asyncio.sleep(_POLL_SECONDS)

    def poll(self) -> None:
        """Reads on to the end that the log has now. Raises SQLAlchemyError."""
        with self.engine.connect() as connection:
            head = connection.execute(select(log_head.c.seq)).scalar_one()
            if head < self.cursor:
                self.wrong.append(
                    f"the log ended at {self.cursor} and then at {head}: positions were given out again"
                )
                return
            found: dict[int, str] = {}
            for table, columns, key in (
                (decisions, (decisions.c.decision_id,), "decision {0.decision_id}"),
                (reports, (reports.c.decision_id, reports.c.report_id), "report {1!r} on {0.decision_id}"),
                (changes, (changes.c.kind, changes.c.router), "{0.kind} change of {2!r}"),
            ):
                new = select(table.c.seq, *columns).where(table.c.seq > self.cursor, table.c.seq <= head)
                for row in connection.execute(new):
                    report_id = getattr(row, "report_id", None) or ""
                    found[row.seq] = key.format(row, report_id, f"routers/{getattr(row, 'router', '')}")
        self.seen |= found
        self.cursor = head
        self.polls += 1
