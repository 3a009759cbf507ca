"""Servers, their database and the wires between them break by a seed, and nothing that was promised is lost.

The short form; the long one is scripts/check_faults. POINTSMAN_TEST_SEED repeats a run's plan. The checks are
checked too: each finds what it is there for.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from faults.checks import budget_is_kept, registry_is_one_of, violations
from faults.cluster import ServerSpec, layout
from faults.database import PostgreSQL, SQLiteFile
from faults.history import Answer, ChangeCall, History, ReportCall, RouteCall
from faults.injection import kinds, plan
from faults.learned import Counts, ModelCounts, counts, differences
from faults.live import unexpected_errors
from faults.proxy import Proxy, Wire
from faults.run import Plan, keep, run
from faults.stored import Follower, Stored, StoredChange, StoredDecision, StoredReport
from servers import seeded
from sqlalchemy import create_engine

ROUTER = "routers/default"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "roles", "count"),
    [
        ("postgresql", ["all"] * 2, 13),
        ("postgresql", ["router", "router", "learner", "learner"], 13),
        ("sqlite", ["all"], 4),
    ],
)
def test_what_was_acknowledged_is_kept_and_learned_once_whatever_breaks(
    engine: str, roles: list[str], count: int, tmp_path: Path
) -> None:
    seed = seeded("faults").randrange(1 << 31)
    # Not in pytest's folder: see engines.running_postgresql.
    with tempfile.TemporaryDirectory(prefix="pointsman-faults-") as name:
        try:
            database = PostgreSQL(Path(name)) if engine == "postgresql" else SQLiteFile(Path(name))
        except ImportError as error:
            pytest.skip(f"no PostgreSQL: {error}")
        wanted = Plan(seed, count, layout(roles), clients=8, brief=True)
        result = asyncio.run(run(wanted, database, Path(name), print))
        if result.violations:
            keep(Path(name), tmp_path)
    assert result.violations == []
    assert sum(result.faults.values()) == count
    assert min(result.decisions, result.reports, result.rows_followed) > 0


def test_a_seed_repeats_its_plan_and_each_kind_of_fault_comes_about_as_often() -> None:
    seed = seeded("plan").randrange(1 << 31)
    database = SQLiteFile(Path())
    one, again, other = (
        plan(Random(each), kinds(database), 3, 70, brief=False) for each in (seed, seed, seed + 1)
    )
    assert one == again != other
    assert {sum(each.kind == kind for each in one) for kind in kinds(database)} == {10}
    assert layout(["all", "learner"])[1] == ServerSpec("learner-1", ("--role", "learner"), answers=False)


def sound() -> tuple[History, Stored, Follower]:
    """Two decisions, of which one is deferred; a report that was sent twice, and one that was never answered."""
    shares, even = {"a": 0.75, "b": 0.25}, {"a": 0.5, "b": 0.5}
    costs_usd = {"a": 0.1, "b": 0.2}
    first, second = Answer("d1", "a", 0.75, shares, ["b"], "x"), Answer("d2", "b", 0.5, even, ["a"], "y")
    history = History(
        routes=[
            RouteCall(ROUTER, "q1", "s", False, "one", 1, 2, first),
            RouteCall(ROUTER, "q1", "s", False, "two", 3, 4, first),
            RouteCall(ROUTER, "q2", "", True, "one", 5, 6, second),
            RouteCall(ROUTER, "q3", "", False, "one", 7, 8, None, "UNAVAILABLE"),
        ],
        reports=[
            ReportCall("d1", "r", 0.5, 0.001, "one", 9, 10, "RECORDED"),
            ReportCall("d1", "r", 0.5, 0.001, "two", 11, 12, "DUPLICATE"),
            ReportCall("d1", "s", None, 0.002, "one", 13, 14, "", "DEADLINE_EXCEEDED"),
            ReportCall("d2", "", None, None, "one", 15, 16, "RECORDED"),
        ],
    )
    stored = Stored(
        [
            StoredDecision(2, 20, ROUTER, 1, "d1", "q1", "s", "a", 0.75, False, shares, costs_usd, ["b"]),
            StoredDecision(4, 40, ROUTER, 1, "d2", "q2", "", "b", 0.5, True, even, costs_usd, ["a"]),
        ],
        [
            StoredReport(5, 50, "d1", "r", 0.5, 0.001, False, False),
            StoredReport(7, 50, "d2", "", None, None, False, True),
        ],
        [StoredChange(1, 10, "registry", ROUTER, {"a": 1, "b": 1})],
        8,
        60,
    )
    follower = Follower(create_engine("sqlite://"), 7, {row.seq: row.key for row in stored.rows()})
    return history, stored, follower


def test_a_sound_history_is_found_sound() -> None:
    assert violations(*sound()) == []


def _lose(rows: str, index: int) -> Callable[[History, Stored, Follower], None]:
    return lambda history, stored, follower: getattr(stored, rows).pop(index)


def _store(rows: str, index: int, **changed: object) -> Callable[[History, Stored, Follower], None]:
    """One more row: that of this place, changed."""

    def spoil(history: History, stored: Stored, follower: Follower) -> None:
        kept = getattr(stored, rows)
        kept.append(replace(kept[index], **changed))

    return spoil


def _alter(part: int, rows: str, index: int, **changed: object) -> Callable[..., None]:
    """Of the history (0) or of the log (1)."""

    def spoil(*parts: object) -> None:
        kept = getattr(parts[part], rows)
        kept[index] = replace(kept[index], **changed)

    return spoil


OTHER = Answer("d9", "b", 0.25, {"a": 0.75, "b": 0.25}, ["a"], "z")
CORRUPTIONS = {
    "a lost decision": (_lose("decisions", 0), "is in the log 0 times"),
    "a decision twice": (_store("decisions", 0, seq=6), "is in the log 2 times"),
    "two decisions of a request": (_store("decisions", 0, seq=6, decision_id="d7"), "request q1 has 2 decisions"),
    "another model": (_alter(1, "decisions", 0, model="b"), "model 'a' was told, 'b' is in the log"),
    "a changed propensity": (_alter(1, "decisions", 0, propensity=0.76), "probability 0.75 was told, 0.76"),
    "no propensity": (_alter(1, "decisions", 1, propensity=0.0), "has propensity 0.0"),
    "other fallbacks": (_alter(1, "decisions", 0, fallbacks=[]), "fallbacks ['b'] was told, [] is in the log"),
    "shares that are none": (_alter(1, "decisions", 1, candidates={"a": 0.6, "b": 0.5}), "sum to 1.1"),
    "another answer": (_alter(0, "routes", 1, answer=OTHER), "and another answer, d9, by two"),
    "a decision of nobody": (_store("decisions", 0, seq=6, decision_id="d8", request_id="q8"), "never asked for"),
    "a lost report": (_lose("reports", 0), "report 'r' on d1 was acknowledged and is in the log 0 times"),
    "a report twice": (_store("reports", 0, seq=6), "report 'r' on d1 is in the log 2 times"),
    "an unanswered report twice": (
        lambda *parts: [_store("reports", 0, seq=seq, report_id="s", reward=None)(*parts) for seq in (6, 8)],
        "report 's' on d1 is in the log 2 times",
    ),
    "another reward": (_alter(1, "reports", 0, reward=0.6), "another reward or cost than was sent"),
    "a late report": (_alter(1, "reports", 0, late=True), "as late, though its window was open"),
    "a report of nobody": (
        _store("reports", 0, seq=6, report_id="t"),
        "report 't' on d1 is in the log and was never",
    ),
    "a lost activation": (_lose("reports", 1), "the activation of d2 is in the log 0 times"),
    "recorded twice": (_alter(0, "reports", 1, disposition="RECORDED"), "was answered RECORDED 2 times"),
    "recorded after all": (
        lambda *parts: (
            _alter(0, "reports", 0, disposition="DUPLICATE")(*parts),
            _alter(0, "reports", 1, disposition="RECORDED")(*parts),
        ),
        "was answered RECORDED after it had been acknowledged",
    ),
    "a duplicate of nothing": (
        lambda history, *rest: history.reports.__delitem__(0),
        "was answered DUPLICATE at its first try",
    ),
    "a position twice": (
        _alter(1, "reports", 0, seq=4),
        "position 4 is that of decision d2 and of report 'r' on d1",
    ),
    "time backwards": (_alter(1, "decisions", 1, time_us=15), "is earlier than decision d1 at 2"),
    "beyond the end": (_alter(1, "reports", 1, seq=9), "is beyond the end of the log, 8"),
    "missed by a follower": (
        lambda history, stored, follower: follower.seen.pop(4),
        "decision d2 at 4: who followed the log had read beyond it, and seen nothing there",
    ),
    "read and gone": (
        lambda history, stored, follower: follower.seen.update({6: "report 's' on d1"}),
        "report 's' on d1 at 6 was read by who followed the log, and is gone",
    ),
    "an unexplained failure": (lambda history, *rest: history.unexpected.append("INTERNAL"), "INTERNAL"),
}


@pytest.mark.parametrize(("spoil", "said"), CORRUPTIONS.values(), ids=CORRUPTIONS)
def test_each_corruption_is_found(spoil: Callable[..., object], said: str) -> None:
    parts = sound()
    spoil(*parts)
    found = violations(*parts)
    assert any(said in each for each in found), found


def test_a_log_that_ends_earlier_than_it_did_is_found(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'log.db'}")
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE log_head (seq INTEGER)")
        connection.exec_driver_sql("INSERT INTO log_head VALUES (6)")
    follower = Follower(engine, cursor=7)
    follower.poll()
    engine.dispose()
    assert "positions were given out again" in violations(*sound()[:2], replace(follower, seen=sound()[2].seen))[0]


def test_what_the_learner_counts_is_counted_from_the_log_too() -> None:
    _, stored, _ = sound()
    expected = Counts(2, 1, 0.001, {"a": ModelCounts(1, 1, 0.5), "b": ModelCounts(1, 0, 0.0)})
    assert counts(stored, ROUTER, last_reward=False) == expected
    stored.reports.append(StoredReport(8, 60, "d1", "s", 0.75, None, False, False))
    assert counts(stored, ROUTER, last_reward=False) == expected
    assert counts(stored, ROUTER, last_reward=True).models["a"].mean_reward == 0.75
    twice = replace(expected, rewards=2)
    assert list(differences("one", expected, twice)) == ["one: rewards are 1 by the log, 2 by the learner"]
    assert list(differences("one", expected, expected)) == []


def test_a_model_that_is_removed_counts_no_more_even_if_another_gets_its_name() -> None:
    _, stored, _ = sound()
    stored.changes.append(StoredChange(3, 30, "registry", ROUTER, {"b": 1}))
    stored.changes.append(StoredChange(6, 50, "registry", ROUTER, {"a": 6, "b": 1}))
    found = counts(stored, ROUTER, last_reward=False)
    assert found == Counts(2, 0, 0.001, {"a": ModelCounts(), "b": ModelCounts(1)})


def test_an_overspent_budget_is_found() -> None:
    _, stored, _ = sound()  # Two decisions at 0.001, as told, and 0.2, as predicted.
    assert list(budget_is_kept(stored, ROUTER, 0.1005, 1.0, 0)) == []
    assert "0.2010 USD on 2 decisions, more than 0.2000" in next(budget_is_kept(stored, ROUTER, 0.1, 1.0, 0))


def test_a_registry_has_what_was_acknowledged_or_not_answered_and_nothing_that_was_refused() -> None:
    changes = [
        ChangeCall(ROUTER, "b", 1.0, "one", 1, 2),
        ChangeCall(ROUTER, "b", 2.0, "one", 3, 4, "DEADLINE_EXCEEDED"),
        ChangeCall(ROUTER, "b", 3.0, "one", 5, 6),
        ChangeCall(ROUTER, "b", 4.0, "one", 7, 8, "NOT_FOUND"),
    ]
    assert [each for each in (0.0, 1.0, 2.0, 3.0, 4.0) if registry_is_one_of(changes, 0.0, each)] == [2.0, 3.0]
    assert registry_is_one_of([], 0.0, 0.0)


def test_an_error_that_no_fault_explains_is_found_in_a_servers_log(tmp_path: Path) -> None:
    log = tmp_path / "all-0.log"
    explained = "Traceback (most recent call last):\n  File\n    x\npsycopg.OperationalError: gone\n"
    log.write_text(explained)
    assert list(unexpected_errors(log)) == []
    log.write_text(
        explained + "Traceback (most recent call last):\n  File\n    x\nKeyError: 'a'\nINFO: on it goes\n"
    )
    assert list(unexpected_errors(log)) == ["all-0.log: KeyError: 'a'"]
    log.write_text("pointsman: postgresql://: cannot be opened\npointsman: there is a router already\n")
    assert list(unexpected_errors(log)) == ["all-0.log: pointsman: there is a router already"]


async def test_a_wire_carries_is_silent_is_reset_and_refuses() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(100):
            writer.write(data)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    proxy = Proxy(server.sockets[0].getsockname()[1])
    await proxy.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(b"whole")
    assert await reader.readexactly(5) == b"whole"
    proxy.become(Wire.SILENT)
    writer.write(b"later")
    answer = asyncio.create_task(reader.readexactly(5))
    other = await asyncio.open_connection("127.0.0.1", proxy.port)
    assert not answer.done()
    proxy.become(Wire.WHOLE)
    assert await answer == b"later"
    proxy.become(Wire.REFUSING)
    writer.write(b"still")
    assert await reader.readexactly(5) == b"still"
    refused = await asyncio.open_connection("127.0.0.1", proxy.port)
    with pytest.raises(ConnectionResetError):
        await refused[0].readexactly(1)
    assert proxy.reset() > 0
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        await reader.readexactly(1)
    for each in (writer, other[1], refused[1]):
        each.close()
    await proxy.stop()
    server.close()
    await server.wait_closed()
