"""`pointsman verify`: what it prints, for people and for programs, and how it exits."""

from __future__ import annotations

import json
import sqlite3
import subprocess
from pathlib import Path

import pytest
from audits import (
    DECISIONS,
    OTHER_MODEL,
    TAMPERED,
    audit_log,
    audited,
    chosen,
    failed,
    snapshot_blame,
    tamper,
    verified,
)
from click.testing import CliRunner
from engines import BOTH_ENGINES, SQLITE
from servers import POINTSMAN, Disk
from sqlalchemy import text

from server.cli.main import cli
from server.storage.engine import migrate, open_engine

pytestmark = pytest.mark.usefixtures("own_folder")


@pytest.fixture
def log(disk: Disk) -> Disk:
    return audit_log(disk)


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
