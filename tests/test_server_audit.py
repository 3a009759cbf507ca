"""A log that nobody touched passes the audit; one that was changed by hand does not, and it says where."""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from engines import BOTH_ENGINES, SQLITE
from servers import DAY_US, POINTSMAN, Disk, Running, draft_decision, hex_id, imported_row, running_app
from sqlalchemy import text

from policy.domain import LearnerKind, Objective, RewardJoin, RewardRule, RouterSpec
from policy.exploration import draw
from policy.features import Featuriser
from policy.log import DecisionRecord, Usage
from server.audit import Audit, audit
from server.cli.main import cli
from server.learner_loop import LearnerLoop
from server.storage.engine import migrate, open_engine
from server.storage.reader import LogReader
from server.storage.writes import ImportWrite
from server.views import Views

DECISIONS = 12
TAMPERED = hex_id(3)
OTHER_MODEL = {"a": "b", "b": "a"}


@pytest.fixture
def log(disk: Disk) -> Disk:
    """A log of one router with one snapshot at its end."""
    put_router(disk)
    busy(disk, range(DECISIONS))
    save_snapshots(disk)
    return disk


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test works where its database is, with no settings of whoever runs it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("POINTSMAN_DATABASE_URL", raising=False)


def put_router(disk: Disk, router: str = "default", learner: LearnerKind = LearnerKind.RIDGE) -> None:
    """A router that has everything that can be learned: a budget, and a reward where none comes."""
    spec = RouterSpec(
        objective=Objective(budget_usd_per_request=0.001),
        reward_rule=RewardRule(missing_reward=0.25),
        embedding_dimensions=8,
        learner=learner,
    )
    disk.put_router(router, spec, "a", "b")


def drawn_decision(number: int, router: str = "default") -> DecisionRecord:
    """A decision whose model is the one that its id draws."""
    draft = draft_decision(hex_id(number), router, seed=number)
    names = [each.model for each in draft.choice.candidates]
    chosen = names[draw(draft.decision_id, [each.probability for each in draft.choice.candidates])]
    return replace(draft, choice=replace(draft.choice, model=chosen, fallbacks=(OTHER_MODEL[chosen],)))


def busy(disk: Disk, numbers: range, router: str = "default") -> None:
    """Decisions, all but some reported on, a day between the halves so that windows close."""
    for number in numbers:
        disk.now_us += 2 * DAY_US if number == numbers[len(numbers) // 2] else 1000
        decision = disk.decide(drawn_decision(number, router))
        if number % 4 != 1:
            disk.report(decision, reward=number % 7 / 7, usage=Usage(9, 9, 0.002), latency_seconds=0.5)


def save_snapshots(disk: Disk) -> None:
    """Learns what is in the log and saves what the learner saves when it is stopped."""
    health: list[bool] = []
    loop = LearnerLoop(disk.reader, Views(), disk.one, lambda: disk.now_us, health.append, 1e6)
    loop.start()
    loop.stop()
    assert health == [True]


def tamper(disk: Disk, sql: str, **values: object) -> None:
    """Changes exactly one row by hand."""
    with disk.engine.begin() as connection:
        assert connection.execute(text(sql), values).rowcount == 1


def value(disk: Disk, sql: str, **values: object) -> Any:
    """One value of the database."""
    with disk.engine.connect() as connection:
        return connection.execute(text(sql), values).scalar_one()


def set_probability(disk: Disk, of: str, to: float) -> None:
    """Changes a candidate's probability in the details of the decision."""
    details = json.loads(value(disk, "SELECT details FROM decisions WHERE decision_id = :id", id=TAMPERED))
    (candidate,) = (each for each in details["candidates"] if each[0] == of)
    candidate[1] = to
    sql = "UPDATE decisions SET details = :details WHERE decision_id = :id"
    tamper(disk, sql, details=json.dumps(details), id=TAMPERED)


def chosen(disk: Disk) -> str:
    """The model of the decision that is tampered with."""
    return str(value(disk, "SELECT model FROM decisions WHERE decision_id = :id", id=TAMPERED))


def audited(disk: Disk) -> Audit:
    """The audit of a log; it fails rather than going on when it gets no further."""

    def on_progress(positions: int) -> None:
        assert positions > 0, "the audit gets no further"

    return audit(LogReader(disk.engine), on_progress)


def verified(url: str, *arguments: str) -> Result:
    """`pointsman verify` of a database."""
    return CliRunner().invoke(cli, ["verify", "--database-url", url, *arguments])


def failed(url: str) -> list[str]:
    """What `pointsman verify` blames; it must exit with 1 and keep to its words."""
    done = verified(url)
    assert (done.exit_code, type(done.exception)) == (1, SystemExit), done.output
    return [line.strip() for line in done.output.splitlines() if line.startswith("  ")]


def snapshot_at(disk: Disk) -> int:
    """The position of the newest snapshot."""
    return int(value(disk, "SELECT max(seq) FROM snapshots"))


def snapshot_blame(disk: Disk, router: str = "default") -> str:
    """What is said of a snapshot that does not follow from the log."""
    return f"snapshot {snapshot_at(disk)} of routers/{router} is not what the log gives"


def damaged(state: bytes, how: str) -> bytes:
    """A state whose bytes are no state any more."""
    if how == "one bit turned":
        middle = len(state) // 2
        return state[:middle] + bytes([state[middle] ^ 1]) + state[middle + 1 :]
    return state[: len(state) // 2] if how == "cut short" else b""


@BOTH_ENGINES
@pytest.mark.parametrize("learner", list(LearnerKind))
def test_a_log_that_nobody_touched_passes(disk: Disk, learner: LearnerKind) -> None:
    put_router(disk, learner=learner)
    busy(disk, range(DECISIONS))
    save_snapshots(disk)
    assert audited(disk) == Audit(decisions=DECISIONS, snapshots=1)


def test_an_empty_log_passes(disk: Disk) -> None:
    result = audited(disk)
    assert result == Audit()
    assert result.passed


@BOTH_ENGINES
def test_every_kept_snapshot_of_every_router_is_checked(disk: Disk) -> None:
    """Each but the first was made by a learner that went on from the one before."""
    for router in ("default", "other"):
        put_router(disk, router)
    for first in (0, 20):
        busy(disk, range(first, first + 6))
        busy(disk, range(first + 6, first + 12), "other")
        save_snapshots(disk)
    assert audited(disk) == Audit(decisions=24, snapshots=4)


def test_progress_passes_every_position_of_the_log(disk: Disk) -> None:
    put_router(disk)
    busy(disk, range(DECISIONS))
    passed: list[int] = []
    audit(disk.reader, passed.append)
    assert sum(passed) == disk.reader.head() > DECISIONS


@BOTH_ENGINES
@pytest.mark.parametrize("budget", ["budget_usd_per_request", "budget_usd_per_day", "budget_usd_per_month"])
async def test_the_log_of_a_server_passes_whatever_was_asked_of_it(
    url: str, featuriser: Featuriser, budget: str
) -> None:
    """Its second life goes on from the snapshot of the first."""
    for life in range(2):
        async with running_app(url, featuriser) as server:
            if life == 0:
                await server.create_models(a={"prices": (1.0, 2.0, 0.001)}, b={"prices": (1.0, 2.0, 0.01)})
                await server.update_router(objective={budget: 0.004})
            await ask_everything(server)
    engine = open_engine(url)
    result = audit(LogReader(engine), lambda _: None)
    engine.dispose()
    assert (result.passed, result.examples) == (True, [])
    assert result.decisions == 2 * 24
    assert result.snapshots >= 2


async def ask_everything(server: Running) -> None:
    """Routes in every way in which a model is chosen, and reports."""
    for number in range(6):
        for asked in (
            {},
            {"session_id": "s"},
            {"incumbent_model": "b"},
            {"preference": {"exploit_only": True}},
        ):
            decision = await server.route(prompt=f"question {number}", **asked)
            await server.report(decision, reward=number / 6, usage={"input_tokens": 5, "output_tokens": number})


@BOTH_ENGINES
def test_verify_says_what_it_checked_and_exits_with_0(log: Disk, url: str) -> None:
    done = verified(url)
    assert (done.exit_code, done.output.splitlines()) == (
        0,
        [
            f"decisions {DECISIONS}, of which drawn otherwise 0",
            "revised rewards 0, of which of another than the one before 0",
            "snapshots 1, of which not what the log gives 0",
        ],
    )


@SQLITE
def test_verify_changes_nothing(log: Disk, url: str, tmp_path: Path) -> None:
    def dump() -> list[str]:
        connection = sqlite3.connect(tmp_path / "pointsman.db")
        lines = list(connection.iterdump())
        connection.close()
        return lines

    before = dump()
    verified(url)
    assert dump() == before
    assert len(before) > DECISIONS


def test_verify_takes_the_database_of_the_environment(
    log: Disk, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POINTSMAN_DATABASE_URL", url)
    assert f"decisions {DECISIONS}," in CliRunner().invoke(cli, ["verify"]).output
    empty = f"sqlite:///{tmp_path / 'empty.db'}"
    engine = open_engine(empty)
    migrate(engine)
    engine.dispose()
    assert "decisions 0," in verified(empty).output


def test_a_decision_whose_model_was_changed_is_named_with_both_models(log: Disk, url: str) -> None:
    was = value(log, "SELECT model FROM decisions WHERE decision_id = :id", id=TAMPERED)
    tamper(log, "UPDATE decisions SET model = :m WHERE decision_id = :id", m=OTHER_MODEL[was], id=TAMPERED)
    blamed = failed(url)
    assert blamed[0] == f"decision {TAMPERED}: the draw gives {was}, logged {OTHER_MODEL[was]}"
    assert snapshot_blame(log) in blamed, "what was learned was of the other model"
    assert audited(log).draws_wrong == 1


def test_a_propensity_changed_in_the_details_so_that_the_draw_falls_elsewhere_is_named(
    log: Disk, url: str
) -> None:
    model = chosen(log)
    set_probability(log, model, 0.0)
    blamed = failed(url)[0]
    assert blamed.startswith(f"decision {TAMPERED}: the draw gives {OTHER_MODEL[model]}, logged {model}")


@pytest.mark.parametrize("factor", [0.99, 1.01])
def test_a_propensity_changed_a_little_in_the_details_fails_at_its_decision(
    log: Disk, url: str, factor: float
) -> None:
    set_probability(log, chosen(log), 0.5 * factor)
    assert f"decision {TAMPERED}: " in failed(url)[0]
    assert audited(log).draws_wrong == 1


def test_a_propensity_changed_in_its_column_fails_at_its_decision(log: Disk, url: str) -> None:
    tamper(log, "UPDATE decisions SET propensity = 0.75 WHERE decision_id = :id", id=TAMPERED)
    assert f"decision {TAMPERED}: " in failed(url)[0]
    assert audited(log).draws_wrong == 1


def test_where_only_the_propensity_differs_both_are_told(log: Disk, url: str) -> None:
    tamper(log, "UPDATE decisions SET propensity = 0.75 WHERE decision_id = :id", id=TAMPERED)
    (blamed,) = failed(url)
    assert "0.75" in blamed
    assert "0.5" in blamed


def test_a_propensity_of_a_model_that_was_not_chosen_cannot_be_changed(disk: Disk) -> None:
    """Without a budget nothing else of the log depends on it, but an estimate of another policy does."""
    disk.put_router("default", RouterSpec(embedding_dimensions=8), "a", "b")
    busy(disk, range(DECISIONS))
    save_snapshots(disk)
    first = next(i for i in range(DECISIONS) if drawn_decision(i).choice.model == "a")
    details = json.loads(value(disk, "SELECT details FROM decisions WHERE decision_id = :id", id=hex_id(first)))
    details["candidates"][1][1] = 0.1
    sql = "UPDATE decisions SET details = :details WHERE decision_id = :id"
    tamper(disk, sql, details=json.dumps(details), id=hex_id(first))
    assert not audited(disk).passed


@BOTH_ENGINES
def test_a_snapshot_whose_state_was_replaced_by_another_is_named(log: Disk, url: str) -> None:
    """The other state is whole and of the same router: only its contents are not what the log gives."""
    right = value(log, "SELECT state FROM snapshots")
    busy(log, range(50, 51))
    save_snapshots(log)
    newest = snapshot_at(log)
    tamper(log, "UPDATE snapshots SET state = :state WHERE seq = :seq", state=right, seq=newest)
    assert failed(url) == [f"snapshot {newest} of routers/default is not what the log gives"]
    result = audited(log)
    assert (result.draws_wrong, result.snapshots, result.snapshots_wrong) == (0, 2, 1)


def test_of_many_snapshots_the_wrong_one_is_named(disk: Disk, url: str) -> None:
    for router in ("default", "other"):
        put_router(disk, router)
    busy(disk, range(6))
    busy(disk, range(6, 12), "other")
    save_snapshots(disk)
    state = value(disk, "SELECT state FROM snapshots WHERE router = 'default'")
    tamper(disk, "UPDATE snapshots SET state = :state WHERE router = 'other'", state=state)
    assert failed(url) == [snapshot_blame(disk, "other")]


@pytest.mark.parametrize(
    "damage",
    ["cut short", "one bit turned", "emptied"],
)
def test_a_snapshot_whose_bytes_were_damaged_is_named(log: Disk, damage: str) -> None:
    state = value(log, "SELECT state FROM snapshots")
    tamper(log, "UPDATE snapshots SET state = :state", state=damaged(state, damage))
    result = audited(log)
    assert (result.draws_wrong, result.snapshots_wrong) == (0, 1)
    assert f"snapshot {snapshot_at(log)} of routers/default" in result.examples[0]


@BOTH_ENGINES
def test_a_reward_changed_after_it_was_learned_is_seen_in_the_snapshot(log: Disk, url: str) -> None:
    tamper(
        log,
        "UPDATE reports SET reward = 0.9, learned_reward = 0.9 WHERE decision_id = :id",
        id=TAMPERED,
    )
    assert failed(url) == [snapshot_blame(log)]


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE reports SET learned_reward = 0.9 WHERE decision_id = :id",
        "UPDATE reports SET charged_usd = 0.9 WHERE decision_id = :id",
        "UPDATE reports SET subject = CASE subject WHEN 'a' THEN 'b' ELSE 'a' END WHERE decision_id = :id",
        "UPDATE reports SET late = 1 WHERE decision_id = :id",
        "UPDATE decisions SET features = zeroblob(length(features)) WHERE decision_id = :id",
        "UPDATE decisions SET deferred = 1 WHERE decision_id = :id",
        "UPDATE decisions SET router = 'elsewhere' WHERE decision_id = :id",
        "DELETE FROM reports WHERE decision_id = :id",
    ],
)
def test_whatever_was_learned_from_cannot_be_changed(log: Disk, url: str, sql: str) -> None:
    tamper(log, sql, id=TAMPERED)
    assert failed(url) == [snapshot_blame(log)]


def revised(disk: Disk) -> None:
    """A log of one router whose last reward counts, where one decision was told two."""
    rule = RewardRule(join=RewardJoin.LAST)
    disk.put_router("default", RouterSpec(embedding_dimensions=8, reward_rule=rule), "a", "b")
    for number in range(DECISIONS):
        disk.report(disk.decide(drawn_decision(number)), reward=number / DECISIONS)
    decision = disk.reader.decision(TAMPERED)
    assert decision is not None
    disk.report(decision, report_id="thumbs", reward=1.0)
    save_snapshots(disk)


def test_a_log_with_revised_rewards_passes(disk: Disk) -> None:
    revised(disk)
    assert audited(disk) == Audit(decisions=DECISIONS, revisions=1, snapshots=1)


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE reports SET replaces_reward = 0.9 WHERE report_id = 'thumbs'",
        "UPDATE reports SET replaces_reward = NULL, replaces_seq = NULL WHERE report_id = 'thumbs'",
        "UPDATE reports SET replaces_seq = replaces_seq + 1 WHERE report_id = 'thumbs'",
        "UPDATE reports SET learned_reward = 0.9 WHERE report_id IS NULL AND decision_id = :id",
        "DELETE FROM reports WHERE report_id IS NULL AND decision_id = :id",
    ],
)
def test_a_revision_of_another_reward_than_the_one_before_is_named(disk: Disk, sql: str) -> None:
    revised(disk)
    tamper(disk, sql, **({"id": TAMPERED} if ":id" in sql else {}))
    result = audited(disk)
    assert result.revisions_wrong == 1
    assert f"on decision {TAMPERED}: the reward was" in result.examples[0]


def test_a_reward_that_no_snapshot_has_learned_yet_may_be_anything(log: Disk) -> None:
    """The log is held against the snapshots; past the newest there is nothing to hold it against."""
    busy(log, range(51, 52))
    tamper(log, "UPDATE reports SET learned_reward = 0.9 WHERE decision_id = :id", id=hex_id(51))
    assert audited(log) == Audit(decisions=DECISIONS + 1, snapshots=1)


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE snapshots SET payload = replace(payload, '0.001', '0.5')",
        "UPDATE snapshots SET closed_through_us = closed_through_us + 86400000000",
    ],
)
def test_what_stands_beside_a_snapshots_state_is_checked_too(log: Disk, sql: str) -> None:
    """A restart takes the router and the closed windows from there, and goes on to another state."""
    before = value(log, "SELECT payload || closed_through_us FROM snapshots")
    tamper(log, sql)
    if value(log, "SELECT payload || closed_through_us FROM snapshots") == before:
        raise RuntimeError("nothing was changed")
    assert not audited(log).passed


def test_a_snapshot_from_beyond_the_end_of_the_log_is_named(log: Disk) -> None:
    tamper(log, "UPDATE snapshots SET seq = seq + 1000")
    assert not audited(log).passed


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM decisions WHERE decision_id = :id",
        "UPDATE decisions SET model = 'unknown' WHERE decision_id = :id",
        "UPDATE decisions SET details = '{' WHERE decision_id = :id",
        "UPDATE decisions SET details = json_set(details, '$.candidates', json('[]')) WHERE decision_id = :id",
    ],
)
def test_a_record_that_cannot_be_read_is_named(log: Disk, sql: str) -> None:
    tamper(log, sql, id=TAMPERED)
    result = audited(log)
    assert (result.passed, result.unreadable > 0) == (False, True)
    assert "cannot be read" in " ".join(result.examples)


@pytest.mark.parametrize(
    "details",
    [
        "'{'",
        "'null'",
        "json_remove(details, '$.fallbacks')",
        "json_set(details, '$.candidates', json('[[1]]'))",
        "json_set(details, '$.candidates', json('[]'))",
        "json_set(details, '$.candidates[0][6]', 'no such reason')",
    ],
)
def test_a_decision_that_cannot_be_decoded_is_named(log: Disk, url: str, details: str) -> None:
    tamper(log, f"UPDATE decisions SET details = {details} WHERE decision_id = :id", id=TAMPERED)
    assert f"the log cannot be read to its end: decision {TAMPERED} at position " in failed(url)[0]


def test_a_decision_whose_features_were_cut_is_named(log: Disk, url: str) -> None:
    tamper(log, "UPDATE decisions SET features = x'00' WHERE decision_id = :id", id=TAMPERED)
    assert f"the log cannot be read to its end: decision {TAMPERED} at position " in failed(url)[0]


def test_a_report_that_cannot_be_decoded_is_named_with_its_decision(log: Disk, url: str) -> None:
    tamper(log, "UPDATE reports SET error = 'no such error' WHERE decision_id = :id", id=TAMPERED)
    assert re.search(rf"report \d+ on decision {TAMPERED} cannot be decoded", failed(url)[0])


def test_an_imported_decision_is_counted_apart_and_must_agree_with_its_candidates(log: Disk, url: str) -> None:
    log.one(ImportWrite([imported_row(hex_id(99), "past", reward=0.5)]))
    found = audited(log)
    assert (found.passed, found.decisions, found.imported) == (True, DECISIONS, 1)
    assert "imported decisions 1, which were drawn elsewhere" in verified(url).output
    tamper(log, "UPDATE decisions SET propensity = 0.75 WHERE decision_id = :id", id=hex_id(99))
    assert f"decision {hex_id(99)}: the propensity was 0.5, logged 0.75" in failed(url)


def test_all_failures_are_counted_and_some_are_named(log: Disk, url: str) -> None:
    with log.engine.begin() as connection:
        connection.execute(text("UPDATE decisions SET propensity = 0.75"))
    blamed = failed(url)
    assert audited(log).draws_wrong == DECISIONS
    assert 0 < len(blamed) < DECISIONS
    assert f"decisions {DECISIONS}, of which drawn otherwise {DECISIONS}" in verified(url).output


def test_a_program_reads_the_failures_as_json(log: Disk, url: str) -> None:
    tamper(log, "UPDATE reports SET learned_reward = 0.9 WHERE decision_id = :id", id=TAMPERED)
    done = verified(url, "--json")
    assert done.exit_code == 1
    assert json.loads(done.output) == {
        "decisions": DECISIONS,
        "imported": 0,
        "draws_wrong": 0,
        "revisions": 0,
        "revisions_wrong": 0,
        "snapshots": 1,
        "snapshots_wrong": 1,
        "days": 0,
        "days_wrong": 0,
        "unreadable": 0,
        "dropped": 0,
        "unchecked": 0,
        "examples": [snapshot_blame(log)],
    }


def test_the_command_exits_with_0_before_and_1_after_somebody_changed_the_log(log: Disk, url: str) -> None:
    def run() -> subprocess.CompletedProcess[str]:
        command = [str(POINTSMAN), "verify", "--database-url", url]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    untouched = run()
    assert (untouched.returncode, untouched.stderr) == (0, "")
    model = chosen(log)
    tamper(log, "UPDATE decisions SET model = :m WHERE decision_id = :id", m=OTHER_MODEL[model], id=TAMPERED)
    done = run()
    assert (done.returncode, done.stderr) == (1, "")
    assert f"decision {TAMPERED}: the draw gives {model}, logged {OTHER_MODEL[model]}" in done.stdout
