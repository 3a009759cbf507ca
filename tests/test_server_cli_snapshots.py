"""Snapshots on the command line: from one router into another, and back."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from servers import DEADLINE_SECONDS, serving_process
from test_server_cli import answered, pointsman


@pytest.mark.parametrize("command", ["list", "export", "import", "restore"])
def test_every_command_explains_itself(command: str) -> None:
    assert answered("snapshots", command, "--help").startswith("Usage: ")


def test_a_snapshot_is_exported_imported_and_restored(tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path / 'p.db'}"
    with serving_process("--database-url", database, POINTSMAN_SNAPSHOT_SECONDS="0.05") as (_, port):
        at = ("snapshots", "--target", f"127.0.0.1:{port}")
        known = json.loads(answered(*at, "list", "--json"))
        answered("models", "--target", f"127.0.0.1:{port}", "add", "small")
        deadline = time.monotonic() + DEADLINE_SECONDS
        rows = known
        while (not rows or rows[-1] in known) and time.monotonic() < deadline:
            rows = json.loads(answered(*at, "list", "--json"))
        newest = rows[-1]["name"].rpartition("/")[2]
        file = tmp_path / "learned.snapshot"
        assert f"{file}: " in answered(*at, "export", newest, file)
        assert file.read_bytes().startswith(b"pointsman-snapshot 1 ")
        name = answered(*at, "import", file).strip()
        assert name.startswith("routers/default/snapshots/import-")
        imported = name.rpartition("/")[2]
        assert rows[-1]["name"] in answered(*at, "list")
        said = answered(*at, "restore", imported, "--reason", "a try")
        assert said == f"{name} is restored, with what it knows of small\n"
        history = answered("policies", "--target", f"127.0.0.1:{port}", "history")
        assert f"snapshots/{imported}" in history
        assert "a try" in history
        broken = tmp_path / "broken"
        broken.write_bytes(file.read_bytes()[:-5])
        for arguments, words in (
            (("import", broken), "checksum"),
            (("restore", "12345"), "NOT_FOUND"),
            (("export", "12345", tmp_path / "none"), "NOT_FOUND"),
        ):
            refused = pointsman(*at, *arguments)
            assert (refused.returncode, refused.stderr.count("\n")) == (2, 1), refused.stderr
            assert words in refused.stderr
        assert not list(tmp_path.glob("none*"))
    assert answered("verify", "--database-url", database).startswith("decisions 0")
