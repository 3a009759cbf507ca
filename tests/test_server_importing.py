"""`pointsman import`: what a file may hold, what is said of a refused row, and that no row counts twice."""

from __future__ import annotations

import asyncio
import gzip
import importlib
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from imports import imported, logged, row, run_import, written
from servers import Running

from server.cli.replay import replay
from server.importing.send import EXAMPLES_MAX
from server.json_lines import UnreadableFileError
from server.rows.file import RowFile


@pytest.fixture
async def two(server: Running) -> Running:
    """A server whose default router has two models."""
    await server.create_models(a={"prices": (0.0, 0.0, 0.001)}, b={"prices": (0.0, 0.0, 0.01)})
    return server


BAD_IN_THE_FILE: list[tuple[Any, str]] = [
    ("{", "INVALID_ARGUMENT: line: is not JSON"),
    ("[1]", "INVALID_ARGUMENT: line: must be an object, not a list"),
    ({"prompt": "x" * (2 << 20)}, "INVALID_ARGUMENT: prompt: must be a text of length <= 1048576"),
    ({"categorical": {"x": "y" * (5 << 20)}}, "INVALID_ARGUMENT: line: must be of at most 4,194,304 bytes"),
    ({"reward": "high"}, "INVALID_ARGUMENT: reward: must be a number, not a text"),
    ({"prompt": 1.5}, "INVALID_ARGUMENT: prompt: must be a text, not a number"),
    ({"numeric": {"x": 1e7}}, "INVALID_ARGUMENT: numeric[x]: must be a finite number"),
    ({"candidates": [{"model": "a", "name": "a"}]}, "INVALID_ARGUMENT: candidates[0].name: is no field"),
    ({"latency_seconds": -1}, "INVALID_ARGUMENT: latency_seconds: must be a number >= 0.0"),
    ({"embedding": "no"}, "INVALID_ARGUMENT: embedding: must be a list, not a text"),
    ({"embedding": [0.5, None]}, "INVALID_ARGUMENT: embedding[1]: must be a number, not null"),
    ({"numeric": ["ab"]}, "INVALID_ARGUMENT: numeric: must be an object, not a list"),
    ({"categorical": {"y": "ok", "x": [1]}}, "INVALID_ARGUMENT: categorical[x]: must be a"),
    ({"candidates": 5}, "INVALID_ARGUMENT: candidates: must be an object or a list, not a whole number"),
    ({"input_tokens": 1.5}, "INVALID_ARGUMENT: input_tokens: must be a number that's a multiple of 1"),
    ({"cost_usd": -1}, "INVALID_ARGUMENT: cost_usd: must be a number >= 0.0"),
    ({"error": "boom"}, "INVALID_ARGUMENT: error: must be one of unavailable, timeout"),
    ({"time": "yesterday"}, "INVALID_ARGUMENT: time: must be a time with its zone"),
    ({"router": "other"}, "INVALID_ARGUMENT: router: is 'other': this is an import into 'default'"),
    ({"served_model": "c"}, "INVALID_ARGUMENT: served_model: must be"),
    ({"model": "never"}, "NOT_FOUND: model: routers/default has no model 'never'"),
]


async def test_each_bad_line_is_named_with_its_field_and_the_exit_code_is_2(two: Running, tmp_path: Path) -> None:
    bad = [each if isinstance(each, str) else row(n, **each) for n, (each, _) in enumerate(BAD_IN_THE_FILE)]
    first = {"extra": 1, **row(900)}
    file = written(tmp_path / "bad.jsonl", [first, *bad, row(901)])
    done = await asyncio.to_thread(run_import, two, file)
    assert done.returncode == 2
    summary, *lines = done.stdout.splitlines()
    assert summary == f"{len(bad) + 2} rows: 2 taken, 0 there already, {len(bad)} refused"
    assert lines[-1] == "ignored, since no row has such a field: extra"
    assert lines[-2] == f"  and {len(bad) - EXAMPLES_MAX} more"
    assert len(lines) == EXAMPLES_MAX + 2
    for number, line in zip(range(2, 2 + len(bad)), lines[:-2], strict=False):
        assert line.startswith(f"  line {number}: {BAD_IN_THE_FILE[number - 2][1]}"), line


async def test_rows_without_a_request_id_are_taken_once_each(two: Running, tmp_path: Path) -> None:
    file = written(tmp_path / "past.jsonl", [row(0, request_id=None)] * 3)
    assert (await imported(two, file))["recorded"] == 3
    grown = tmp_path / "grown.jsonl.gz"
    grown.write_bytes(gzip.compress(file.read_bytes() + b"\n" + json.dumps(row(1, request_id=None)).encode()))
    again = await imported(two, grown)
    assert (again["recorded"], again["duplicates"]) == (1, 3)


async def test_what_replay_logs_is_imported_as_it_is_evaluated(two: Running, tmp_path: Path) -> None:
    world, log = tmp_path / "world.jsonl", tmp_path / "log.jsonl.gz"
    outcomes = {"a": {"quality": 0.5, "cost_usd": 0.001}, "b": {"quality": 0.75, "cost_usd": 0.002}}
    written(world, [{"prompt": f"question {number}", "outcomes": outcomes} for number in range(20)])
    played = CliRunner().invoke(replay, [str(world), "--policy", "uniform", "--log", str(log)])
    assert played.exit_code == 0, played.output
    found = await imported(two, log)
    assert (found["recorded"], found["ignored_fields"]) == (20, [])
    kept = await logged(two, "0-7")
    assert [(each.model, each.probability) for each in kept.candidates] == [("a", 0.5), ("b", 0.5)]
    assert kept.probability == 0.5
    assert kept.reports[0].report.reward == outcomes[kept.model]["quality"]


async def test_a_decision_that_was_not_drawn_is_imported_without_its_propensity(
    two: Running, tmp_path: Path
) -> None:
    rows = [row(1, sticky=True, propensity=1.0), row(2, exploit_only=True, candidates={"a": 1.0, "b": 0.0})]
    assert (await imported(two, written(tmp_path / "past.jsonl", rows)))["recorded"] == 2
    for name in ("past-1", "past-2"):
        assert (await logged(two, name)).probability == 0.0


async def test_what_cannot_be_reached_is_said_in_one_line(two: Running, tmp_path: Path) -> None:
    file = written(tmp_path / "past.jsonl", [row()])
    for arguments, message in (
        ((two, tmp_path / "none.jsonl"), "cannot be read"),
        ((two, file, "--router", "never"), "NOT_FOUND: there is no router 'never'"),
        ((1, file), "UNAVAILABLE"),
    ):
        done = await asyncio.to_thread(run_import, *arguments)
        assert done.returncode == 2
        assert message in done.stderr.splitlines()[-1]
        assert "Traceback" not in done.stderr


async def test_parquet_is_taken_like_json_lines(two: Running, tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="Parquet takes the extra 'parquet'")
    parquet = pytest.importorskip("pyarrow.parquet")
    texts = pyarrow.map_(pyarrow.string(), pyarrow.string())
    share = pyarrow.struct([("model", pyarrow.string()), ("propensity", pyarrow.float64())])
    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    columns: Mapping[str, Any] = {
        "prompt": pyarrow.array(["one", "two"]),
        "model": pyarrow.array(["a", "b"]),
        "propensity": pyarrow.array([0.25, None]),
        "candidates": pyarrow.array(
            [[{"model": "a", "propensity": 0.25}, {"model": "b", "propensity": 0.75}], None], pyarrow.list_(share)
        ),
        "reward": pyarrow.array([1.0, 0.0], pyarrow.float32()),
        "input_tokens": pyarrow.array([7.0, None]),
        "categorical": pyarrow.array([[("tenant", "acme")], []], texts),
        "time": pyarrow.array([moment, None], pyarrow.timestamp("us", "UTC")),
        "request_id": pyarrow.array(["p", None]),
    }
    file = tmp_path / "past.parquet"
    parquet.write_table(pyarrow.table(columns), file)
    assert (await imported(two, file))["recorded"] == 2
    assert (await imported(two, file))["duplicates"] == 2
    kept = await logged(two, "p")
    assert (kept.probability, dict(kept.categorical_features)) == (0.25, {"tenant": "acme"})
    assert kept.reports[0].report.event_time.ToJsonString() == "2026-01-02T03:04:05Z"
    damaged = tmp_path / "damaged.parquet"
    damaged.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(UnreadableFileError, match="cannot be read"):
        list(RowFile(damaged))


def test_parquet_without_its_extra_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "past.parquet"
    file.write_bytes(b"PAR1 and so on")
    known: Callable[[str], Any] = importlib.import_module

    def without(name: str) -> Any:
        if name.startswith("pyarrow"):
            raise ModuleNotFoundError(name)
        return known(name)

    monkeypatch.setattr("server.rows.file.importlib.import_module", without)
    with pytest.raises(UnreadableFileError, match=r"pip install 'pointsman\[parquet\]'"):
        list(RowFile(file))
