"""How the database answers the queries of the hot path: what SQLite says of its plans for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, event

from policy.log import ReportRecord
from server.registry import Registry
from server.storage.engine import open_engine
from server.storage.reader import LogReader
from server.storage.recent import RecentDecisions
from server.storage.writes import DecisionWrite, ReportWrite, write_batch

_HOUR_US = 3_600_000_000


def plans(path: Path, decision_id: str) -> dict[str, list[tuple[str, list[str]]]]:
    """Of each thing that is done for a request the statements and how each is answered; nothing is written."""
    engine = open_engine(f"sqlite:///{path}", create=False)
    found = {name: _explained(engine, statements) for name, statements in _statements(engine, decision_id)}
    engine.dispose()
    return found


def _statements(engine: Engine, decision_id: str) -> Iterator[tuple[str, list[tuple[str, Any]]]]:
    reader = LogReader(engine)
    known = reader.decision(decision_id)
    if known is None:
        raise LookupError(f"there is no decision {decision_id}")
    fresh = replace(known, decision_id=f"{int(decision_id, 16) + 1:032x}", request_id="new")
    report = ReportRecord(0, 0, decision_id, report_id="new", reward=1.0)
    for name, write in (("Route", DecisionWrite(fresh, _HOUR_US)), ("ReportReward", ReportWrite(report))):
        with _heard(engine) as statements, engine.connect() as connection:
            write_batch(connection, [write], known.time_us, Registry(), RecentDecisions())
            connection.rollback()
        yield name, statements
    reads: dict[str, Callable[[], object]] = {
        "Route, a session": lambda: reader.session_decision(known.router_uid, known.session_id, 0),
        "Route, no model left": lambda: reader.decision_of_request(known.router_uid, known.request_id),
        "GetDecision": lambda: reader.decision(decision_id),
        "the learner, a page": lambda: reader.page(known.seq, 256),
        "the learner, decisions of reports": lambda: reader.decisions([decision_id]),
        "the learner, the next window": lambda: reader.next_expiry_us(known.expire_us),
        "the learner, windows that close": lambda: reader.expired(known.expire_us, known.expire_us + 1, 1000),
    }
    for name, read in reads.items():
        with _heard(engine) as statements:
            read()
        yield name, statements


@contextmanager
def _heard(engine: Engine) -> Iterator[list[tuple[str, Any]]]:
    """What is executed in the block, each statement once."""
    heard: dict[str, Any] = {}

    def listen(_connection: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, many: bool) -> None:
        heard.setdefault(statement, parameters[0] if many else parameters)

    found: list[tuple[str, Any]] = []
    event.listen(engine, "before_cursor_execute", listen)
    try:
        yield found
    finally:
        event.remove(engine, "before_cursor_execute", listen)
        found.extend(each for each in heard.items() if each[0].startswith(("SELECT", "UPDATE")))


def _explained(engine: Engine, statements: list[tuple[str, Any]]) -> list[tuple[str, list[str]]]:
    explained = []
    with engine.connect() as connection:
        for statement, parameters in statements:
            rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
            explained.append((" ".join(statement.split()), [str(row[3]) for row in rows]))
        connection.rollback()
    return explained
