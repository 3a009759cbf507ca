"""Builds clients in other languages by the language's own tools."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def built(client: str, tools: Sequence[str], **environment: str) -> Path:
    """The folder where a client was built: a copy, out of the tree, that a later run takes up again."""
    missing = [each for each in tools if shutil.which(each) is None]
    if missing:
        pytest.skip(f"{' and '.join(missing)} is not on the PATH")
    folder = ROOT / "build" / "clients" / client
    shutil.copytree(ROOT / "tests" / "clients" / client, folder, dirs_exist_ok=True)
    run_checked(["bash", "build.sh"], folder, **environment)
    return folder


def run_checked(command: list[str], folder: Path, **environment: str) -> str:
    """What a command says that ends well."""
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )
    assert done.returncode == 0, f"{command}: {done.stdout[-4000:]}{done.stderr[-4000:]}"
    return done.stdout
