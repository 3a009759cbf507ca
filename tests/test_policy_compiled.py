"""Compiled code: kept where it can be, and there all the same where it cannot."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
_LEARN = """
import numpy as np
from policy.ridge import RecursiveLeastSquares, precisions
learner = RecursiveLeastSquares(precisions(3, 1.0, 1.0), 0.0)
learner.learn(np.array([1.0, 2.0, 1.0]), 0.5)
print(*learner.weights.tolist())
"""


def learned(source: Path, cache: Path) -> str:
    """The weights of a learner in a process that has this source and may keep what it compiles in this folder."""
    environment = {**os.environ, "PYTHONPATH": str(source), "NUMBA_CACHE_DIR": str(cache), "HOME": str(cache)}
    environment.pop("XDG_CACHE_HOME", None)
    command = [sys.executable, "-c", _LEARN]
    run = subprocess.run(
        command, env=environment, cwd=source, capture_output=True, text=True, check=True, timeout=120
    )
    assert run.stderr == ""
    return run.stdout


def test_where_nothing_can_be_kept_it_is_compiled_all_the_same_and_computes_the_same(tmp_path: Path) -> None:
    kept = learned(ROOT, tmp_path / "kept")
    assert list((tmp_path / "kept").rglob("*.nbi"))
    assert learned(ROOT, tmp_path / "kept") == kept
    (tmp_path / "file").write_text("")
    source = tmp_path / "source"
    shutil.copytree(ROOT / "policy", source / "policy", ignore=shutil.ignore_patterns("__pycache__"))
    (source / "policy" / "__pycache__").write_text("")  # a file: nobody can keep anything in it, not even root
    assert learned(source, tmp_path / "file" / "nowhere") == kept
