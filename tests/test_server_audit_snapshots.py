"""A snapshot that does not follow from the log fails the audit, whichever of the two was changed by hand."""

from __future__ import annotations

import pytest
from audits import (
    DECISIONS,
    TAMPERED,
    audit_log,
    audited,
    busy,
    failed,
    put_router,
    save_snapshots,
    snapshot_at,
    snapshot_blame,
    tamper,
    value,
)
from engines import BOTH_ENGINES
from servers import Disk, hex_id

from server.audit import Audit

pytestmark = pytest.mark.usefixtures("own_folder")


@pytest.fixture
def log(disk: Disk) -> Disk:
    return audit_log(disk)


def damaged(state: bytes, how: str) -> bytes:
    """A state whose bytes are no state any more."""
    if how == "one bit turned":
        middle = len(state) // 2
        return state[:middle] + bytes([state[middle] ^ 1]) + state[middle + 1 :]
    return state[: len(state) // 2] if how == "cut short" else b""


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
