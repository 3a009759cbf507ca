"""Files of decisions made elsewhere, and `pointsman import` as a person runs it."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pointsman.v1 import router_service_pb2 as pb
from servers import POINTSMAN, Running
from sqlalchemy import func, select

from server.storage.engine import open_engine
from server.storage.schema import decisions, reports

TABLES = (decisions, reports)


def row(number: int = 0, **given: Any) -> dict[str, Any]:
    """A good row; None takes a field away."""
    values = {
        "request_id": f"past-{number}",
        "prompt": f"question {number}",
        "model": ("a", "b")[number % 2],
        "propensity": 0.5,
        "candidates": ["a", "b"],
        "reward": (0.25, 0.75)[number % 2],
        "cost_usd": 0.002,
        **given,
    }
    return {name: value for name, value in values.items() if value is not None}


def written(path: Path, rows: Sequence[Any]) -> Path:
    """A file of these rows; a row that is a text is a line as it stands."""
    path.write_text("\n".join(each if isinstance(each, str) else json.dumps(each) for each in rows))
    return path


def run_import(server: Running | int, file: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    target = f"127.0.0.1:{server}" if isinstance(server, int) else server.target
    command = [str(POINTSMAN), "import", str(file), "--target", target, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)


async def imported(server: Running, file: Path, *arguments: str, code: int = 0) -> dict[str, Any]:
    """What `pointsman import --json` says."""
    done = await asyncio.to_thread(run_import, server, file, "--json", *arguments)
    assert done.returncode == code, done.stderr
    values: dict[str, Any] = json.loads(done.stdout)
    return values


async def logged(server: Running, request_id: str) -> pb.Decision:
    """The decision of the log with this request_id."""
    engine = open_engine(server.url, create=False)
    with engine.connect() as connection:
        query = select(decisions.c.decision_id).where(decisions.c.request_id == request_id)
        decision_id = connection.execute(query).scalar_one()
    engine.dispose()
    return (await server.router.GetDecision(pb.GetDecisionRequest(decision_id=decision_id))).decision


def counts(url: str) -> tuple[int, int]:
    """How many decisions and reports the log has."""
    engine = open_engine(url, create=False)
    with engine.connect() as connection:
        found = [connection.execute(select(func.count()).select_from(table)).scalar_one() for table in TABLES]
    engine.dispose()
    return found[0], found[1]
