"""The benchmark of growth: a server can serve from the log it fills, and no hot query reads all of that."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest
from click.testing import CliRunner
from pointsman.v1 import router_service_pb2 as pb
from servers import running_app

from policy.features import Featuriser
from scripts.growth.command import lines, main
from scripts.growth.fill import DAYS, fill, open_decisions, write_template
from scripts.growth.memory import Memory
from scripts.growth.plans import plans
from server.bench.load import Result

COUNT = 3000


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("growth") / "grown.db"
    asyncio.run(write_template(path))
    filled = []
    fill(path, COUNT, filled.append)
    assert sum(filled) == COUNT
    return path


def ask(path: Path, query: str) -> tuple[int, ...]:
    connection = sqlite3.connect(path)
    found: tuple[int, ...] = connection.execute(query).fetchone()
    connection.close()
    return found


def test_every_decision_that_was_filled_in_has_its_report_right_after_it(grown: Path) -> None:
    filled = "decisions AS d JOIN reports AS r USING (decision_id) WHERE d.request_id GLOB 'r*'"
    assert ask(grown, f"SELECT count(*), count(DISTINCT decision_id) FROM {filled}") == (COUNT, COUNT)
    assert ask(grown, f"SELECT count(*) FROM {filled} AND (r.seq <> d.seq + 1 OR r.late)") == (0,)
    assert ask(grown, "SELECT (SELECT max(seq) FROM reports) = (SELECT seq FROM log_head)") == (1,)
    found = open_decisions(grown, COUNT)
    assert COUNT // DAYS * 0.9 < len(found) <= COUNT // DAYS, "the windows of the last day are open"


async def test_a_server_goes_on_from_its_end(grown: Path, featuriser: Featuriser) -> None:
    old = open_decisions(grown, COUNT)[0]
    async with running_app(f"sqlite:///{grown}", featuriser) as server:
        decision = await server.route(router="routers/template", prompt="hello", session_id="s3")
        assert await server.report(decision, reward=1.0) == pb.DISPOSITION_RECORDED
        assert await server.report(old, reward=0.0) == pb.DISPOSITION_RECORDED
        learned = await server.settled("routers/template")
        assert learned.statistics.decision_count < COUNT, "what was filled in is not learned"


def test_no_query_of_the_hot_path_reads_all_decisions_or_reports(grown: Path) -> None:
    found = plans(grown, open_decisions(grown, COUNT)[0])
    assert {"Route", "ReportReward", "the learner, a page"} <= found.keys()
    for name, statements in found.items():
        assert statements, name
        for statement, steps in statements:
            for step in steps:
                assert not step.startswith(("SCAN decisions", "SCAN reports", "SCAN changes")), (name, statement)


def test_the_slope_is_of_what_came_after_the_first_minute() -> None:
    times = [each * 5.0 for each in range(61)]
    flat = Memory(times, [min(100.0 + each, 160.0) for each in times], [0] * 61)
    assert flat.slope_mb_per_minute(60.0) == pytest.approx(0.0, abs=1e-9)
    rising = Memory(times, [2.0 * each / 60.0 for each in times], [0] * 61)
    assert rising.slope_mb_per_minute(60.0) == pytest.approx(2.0)


def test_a_grown_database_is_told_beside_the_other() -> None:
    told = lines([Result("Route", 200.0, 1.0, 2.0), Result("Route, grown", 190.0, 1.0, 2.0)])
    assert told[1].endswith("0.950 of it")
    assert "of it" not in told[0]


def test_it_watches_the_memory_of_a_server_under_load() -> None:
    done = CliRunner().invoke(main, ["--decisions", "0", "--minutes", "0.1", "--callers", "4"])
    assert done.exit_code == 0, done.output
    assert "MB a minute" in done.output


def test_without_room_on_the_disk_it_says_so() -> None:
    done = CliRunner().invoke(main, ["--decisions", "1000000000000"])
    assert done.exit_code == 2
    assert "see --folder" in done.output
