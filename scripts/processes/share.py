"""Gives a process no more than a part of a processor, by a control group of Linux."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup")
_PERIOD_US = 10_000


@contextmanager
def limited(pids: Iterable[int], share: float, groups: Path = GROUPS) -> Iterator[None]:
    """Each of the processes has `share` of one processor meanwhile. Raises OSError where that cannot be set."""
    with ExitStack() as stack:
        for pid in pids:
            stack.enter_context(_one(pid, share, groups))
        yield


@contextmanager
def _one(pid: int, share: float, groups: Path) -> Iterator[None]:
    older = (groups / "cpu").is_dir()  # Version 1 of control groups has a tree for each of what it controls.
    parent = groups / "cpu" if older else groups
    group = parent / f"pointsman-{os.getpid()}-{pid}"
    group.mkdir()
    try:
        quota_us = round(share * _PERIOD_US)
        if older:
            (group / "cpu.cfs_period_us").write_text(str(_PERIOD_US))
            (group / "cpu.cfs_quota_us").write_text(str(quota_us))
        else:
            (group / "cpu.max").write_text(f"{quota_us} {_PERIOD_US}")
        (group / "cgroup.procs").write_text(str(pid))
        yield
    finally:
        # A group can be removed when nobody is in it any more: it goes back to where all others are.
        _leave(pid, parent)
        group.rmdir()


def _leave(pid: int, parent: Path) -> None:
    try:
        (parent / "cgroup.procs").write_text(str(pid))
    except ProcessLookupError:
        return
