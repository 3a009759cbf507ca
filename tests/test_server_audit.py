"""A log that nobody touched passes the audit; one that was changed by hand does not, and it says where."""

from __future__ import annotations

import json
import re

import pytest
from audits import (
    DECISIONS,
    OTHER_MODEL,
    TAMPERED,
    audit_log,
    audited,
    busy,
    chosen,
    drawn_decision,
    failed,
    put_router,
    save_snapshots,
    snapshot_blame,
    tamper,
    value,
    verified,
)
from engines import BOTH_ENGINES
from servers import Disk, Running, hex_id, imported_row, running_app

from policy.domain import LearnerKind, RewardJoin, RewardRule, RouterSpec
from policy.features import Featuriser
from server.audit import Audit, audit
from server.storage.engine import open_engine
from server.storage.reader import LogReader
from server.storage.writes import ImportWrite

pytestmark = pytest.mark.usefixtures("own_folder")


@pytest.fixture
def log(disk: Disk) -> Disk:
    return audit_log(disk)


def set_probability(disk: Disk, of: str, to: float) -> None:
    """Changes a candidate's probability in the details of the decision."""
    details = json.loads(value(disk, "SELECT details FROM decisions WHERE decision_id = :id", id=TAMPERED))
    (candidate,) = (each for each in details["candidates"] if each[0] == of)
    candidate[1] = to
    sql = "UPDATE decisions SET details = :details WHERE decision_id = :id"
    tamper(disk, sql, details=json.dumps(details), id=TAMPERED)


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
