"""A log of many decisions: rows that a server wrote, copied with other ids, times and positions."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

from server.bench.load import Load
from server.bench.messages import create_router, report_request, route_request
from server.bench.processes import running

DAYS = 30
_DAY_US = 86_400_000_000
_CHUNK = 20_000
_ROUTER = "template"
_MODELS = 3
_TEMPLATE_SECONDS = 2.0
_SAVED_SECONDS = 60.0
# Of a decision and its report, with all indexes, and something to spare.
BYTES_A_DECISION = 5_000


async def write_template(path: Path) -> None:
    """A new database with some hundred decisions and reports, written and learned by a server."""
    command = ("-m", "server.cli.main", "serve", "--port", "0", "--http-port", "off")
    settings = {"POINTSMAN_SNAPSHOT_SECONDS": "0.5", "POINTSMAN_EVALUATION_SECONDS": "0.5"}
    async with running((*command, "--database-url", f"sqlite:///{path}"), settings) as servers:
        await create_router(servers.channels[0], _ROUTER, _MODELS, 0)
        requests = [route_request(_ROUTER, 300, 0, seed) for seed in range(500)]
        answers: list[bytes] = []
        service = "/pointsman.v1.RouterService/"
        await Load(servers.channels, f"{service}Route", requests, answers).run(10, _TEMPLATE_SECONDS)
        reports = Load(servers.channels, f"{service}ReportReward", [report_request(each) for each in answers])
        await reports.run_all(10)
        _wait_until_saved(path)


def _wait_until_saved(path: Path) -> None:
    """Returns once everything in the log is learned, evaluated and saved. Raises TimeoutError."""
    until = time.monotonic() + _SAVED_SECONDS
    query = (
        "SELECT (SELECT max(seq) FROM reports) <= min((SELECT max(seq) FROM snapshots WHERE router = ?1),"
        " (SELECT max(seq) FROM evaluations WHERE router = ?1))"
    )
    while time.monotonic() < until:
        with sqlite3.connect(path) as connection:
            (done,) = connection.execute(query, (_ROUTER,)).fetchone()
        connection.close()
        if done:
            return
        time.sleep(0.2)
    raise TimeoutError(f"{path}: what was written is not saved after {_SAVED_SECONDS:.0f} s")


def fill(path: Path, count: int, on_rows: Callable[[int], object]) -> None:
    """Adds so many decisions, each with its report, evenly over the last 30 days; the last day's windows are open.

    Whoever follows the log is put to its end with what it knew before: what it would know is not measured.
    """
    connection = sqlite3.connect(path, isolation_level=None)
    for pragma in ("journal_mode=DELETE", "journal_mode=OFF", "synchronous=OFF", "cache_size=-1000000"):
        connection.execute(f"PRAGMA {pragma}").fetchall()
    head, now_us = connection.execute("SELECT seq, time_us FROM log_head").fetchone()
    values = {"first_us": now_us - DAYS * _DAY_US, "step_us": DAYS * _DAY_US // count, "head": head}
    insert_decisions, insert_reports = _prepare(connection)
    for start in range(0, count, _CHUNK):
        part = {**values, "start": start, "end": min(start + _CHUNK, count) - 1}
        connection.execute("BEGIN")
        connection.execute(insert_decisions, part)
        connection.execute(insert_reports, part)
        connection.execute("COMMIT")
        on_rows(part["end"] + 1 - start)
    connection.execute("UPDATE log_head SET seq = ?, time_us = ?", (head + 2 * count, now_us))
    for table in ("snapshots", "evaluations"):
        newest = f"(SELECT max(seq) FROM {table})"
        connection.execute(f"DELETE FROM {table} WHERE seq < {newest} AND router = '{_ROUTER}'")
        connection.execute(f"UPDATE {table} SET seq = ?, closed_through_us = ?", (head + 2 * count, now_us))
    connection.execute("PRAGMA journal_mode=WAL").fetchall()
    connection.close()


def decision_id(time_us: int, number: int) -> str:
    """That of the decision of this number, as `fill` makes it."""
    return f"{time_us // 1000:012x}{number:020x}"


def open_decisions(path: Path, count: int) -> list[str]:
    """The filled decisions whose windows are open still, with an hour to spare, oldest first."""
    connection = sqlite3.connect(path)
    (now_us,) = connection.execute("SELECT time_us FROM log_head").fetchone()
    query = "SELECT decision_id FROM decisions WHERE expire_us > ? AND request_id GLOB 'r*' ORDER BY expire_us"
    found = [each for (each,) in connection.execute(query, (now_us + _DAY_US // 24,))]
    connection.close()
    return found[-count:]


def _prepare(connection: sqlite3.Connection) -> tuple[str, str]:
    """Keeps the rows that are to be copied, numbered from 0; gives the two statements that copy them."""
    connection.execute("CREATE TEMP TABLE drawn AS SELECT row_number() OVER () - 1 AS n, * FROM decisions")
    connection.execute(
        "CREATE TEMP TABLE told AS SELECT drawn.n AS n, reports.* FROM drawn"
        " JOIN reports ON reports.seq ="
        " (SELECT min(seq) FROM reports AS r WHERE r.decision_id = drawn.decision_id)"
    )
    connection.execute("DELETE FROM temp.drawn WHERE n NOT IN (SELECT n FROM told)")
    (rows,) = connection.execute("SELECT count(*) FROM temp.told").fetchone()
    for table in ("drawn", "told"):
        numbered = f"(SELECT row_number() OVER (ORDER BY n) - 1 AS m, rowid AS id FROM temp.{table})"
        connection.execute(f"UPDATE temp.{table} SET n = (SELECT m FROM {numbered} WHERE id = {table}.rowid)")
        connection.execute(f"CREATE INDEX temp.{table}_n ON {table} (n)")
    time_us = "(:first_us + k.i * :step_us)"
    decision = f"printf('%012x%020x', {time_us} / 1000, k.i)"
    common = {"time_us": time_us, "decision_id": decision}
    of_decision = {
        **common,
        "seq": ":head + 2 * k.i + 1",
        "expire_us": f"t.expire_us - t.time_us + {time_us}",
        "request_id": "'r' || k.i",
        "session_id": "'s' || (k.i / 6)",
    }
    of_report = {**common, "seq": ":head + 2 * k.i + 2", "report_id": "'p' || k.i"}
    return (
        _copy(connection, "decisions", "drawn", of_decision, rows),
        _copy(connection, "reports", "told", of_report, rows),
    )


def _copy(connection: sqlite3.Connection, table: str, template: str, new: dict[str, str], rows: int) -> str:
    names = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
    values = ", ".join(new.get(name, f"t.{name}") for name in names)
    numbers = "WITH RECURSIVE k(i) AS (SELECT :start UNION ALL SELECT i + 1 FROM k WHERE i < :end)"
    return (
        f"INSERT INTO main.{table} ({', '.join(names)}) {numbers} SELECT {values}"
        f" FROM k JOIN temp.{template} AS t ON t.n = k.i % {rows}"
    )
