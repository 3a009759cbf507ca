"""Compiled code: kept where it can be, and there all the same where it cannot."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
_LEARN = """
import numpy as np
from policy.regression import RecursiveLeastSquares, learn_both, precisions
shared, own = (RecursiveLeastSquares(precisions(3, 1.0, 1.0), 0.0) for _ in range(2))
learn_both(shared, own, np.array([1.0, 2.0, 1.0]), 0.5, 0.5)
print(*shared.weights.tolist(), *own.weights.tolist())
"""


def learned(source: Path, cache: Path, file_bytes_max: int | None = None) -> str:
    """The weights of a learner in a process that has this source and may keep what it compiles in this folder."""
    # Set in the process itself: what is called between fork and exec has gRPC's threads write into its output.
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({file_bytes_max}, {file_bytes_max}))\n"
    environment = {**os.environ, "PYTHONPATH": str(source), "NUMBA_CACHE_DIR": str(cache), "HOME": str(cache)}
    environment.pop("XDG_CACHE_HOME", None)
    run = subprocess.run(
        [sys.executable, "-c", _LEARN if file_bytes_max is None else limit + _LEARN],
        env=environment,
        cwd=source,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert run.stderr == ""
    return run.stdout


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder that has what was compiled, and what the learner said."""
    folder = tmp_path_factory.mktemp("kept")
    said = learned(ROOT, folder)
    assert list(folder.rglob("*.nbi"))
    assert list(folder.rglob("*.nbc"))
    return folder, said


def test_what_is_kept_computes_the_same(kept: tuple[Path, str]) -> None:
    folder, said = kept
    assert learned(ROOT, folder) == said


def test_where_nothing_can_be_kept_it_is_compiled_all_the_same(kept: tuple[Path, str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    source = tmp_path / "source"
    shutil.copytree(ROOT / "policy", source / "policy", ignore=shutil.ignore_patterns("__pycache__"))
    (source / "policy" / "__pycache__").write_text("")  # a file: nobody can keep anything in it, not even root
    assert learned(source, tmp_path / "file" / "nowhere") == kept[1]


def test_a_disk_that_is_full_does_not_stop_it(kept: tuple[Path, str], tmp_path: Path) -> None:
    assert learned(ROOT, tmp_path, file_bytes_max=1000) == kept[1]


@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
def test_a_file_that_was_cut_off_does_not_stop_it_and_is_made_anew(
    kept: tuple[Path, str], tmp_path: Path, suffix: str
) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(kept[0], folder)
    files = list(folder.rglob(f"*.{suffix}"))
    for file in files:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    cut = {file: file.read_bytes() for file in files}
    assert learned(ROOT, folder) == kept[1]
    assert [file.name for file in files if file.read_bytes() == cut[file]] == []
    made = {file: file.stat().st_mtime_ns for file in folder.rglob("*.nb?")}
    assert learned(ROOT, folder) == kept[1]
    assert {file: file.stat().st_mtime_ns for file in folder.rglob("*.nb?")} == made


def test_compiled_functions_have_no_constants_but_those_of_their_own_file() -> None:
    """What is kept on the disk is not made anew when another file changes."""
    found = 0
    for path in sorted((ROOT / "policy").glob("*.py")):
        tree = ast.parse(path.read_text())
        functions = [
            each
            for each in tree.body
            if isinstance(each, ast.FunctionDef)
            and any("compiled" in ast.unparse(decorator) for decorator in each.decorator_list)
        ]
        module = import_module(f"policy.{path.stem}") if functions else None
        own = {
            name.id
            for statement in tree.body
            if isinstance(statement, ast.Assign)
            for target in statement.targets
            for name in ast.walk(target)
            if isinstance(name, ast.Name)
        }
        for function in functions:
            used = {each.id for each in ast.walk(function) if isinstance(each, ast.Name)}
            numbers = {each for each in used if isinstance(getattr(module, each, None), int | float)}
            assert numbers <= own, f"{path.name}: {function.name} has {numbers - own} of another file"
            found += 1
    assert found > 10
