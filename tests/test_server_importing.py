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
from imports import imported, logged, row, run_import, written
from servers import Running

from server.importing.file import read_rows
from server.importing.send import EXAMPLES_MAX
from server.json_lines import UnreadableFileError


@pytest.fixture
async def two(server: Running) -> Running:
    """A server whose default router has two models."""
    await server.create_models(a={"prices": (0.0, 0.0, 0.001)}, b={"prices": (0.0, 0.0, 0.01)})
    return server


BAD_IN_THE_FILE: list[tuple[Any, str]] = [
    ("{", "INVALID_ARGUMENT: line: is not JSON"),
    ("[1]", "INVALID_ARGUMENT: line: must be a JSON object"),
    ({"prompt": "x" * (5 << 20)}, "INVALID_ARGUMENT: line: must be of at most 4,194,304 bytes"),
    ({"reward": "high"}, "INVALID_ARGUMENT: reward: must be a number, not 'high'"),
    ({"reward": True}, "INVALID_ARGUMENT: reward: must be a number, not True"),
    ({"reward": 10**400}, "INVALID_ARGUMENT: reward: must be a finite number"),
    ({"reward": 2}, "INVALID_ARGUMENT: reward: must be a finite number 0 or more, at most 1"),
    ({"prompt": 1.5}, "INVALID_ARGUMENT: prompt: must be a text"),
    ({"embedding": "no"}, "INVALID_ARGUMENT: embedding: must be a list of numbers"),
    ({"embedding": [0.5, None]}, "INVALID_ARGUMENT: embedding[1]: must be a number"),
    ({"numeric": ["ab"]}, "INVALID_ARGUMENT: numeric: must be an object"),
    ({"numeric": {"x": 1e7}}, "INVALID_ARGUMENT: numeric[x]: must be a finite number"),
    ({"categorical": {"x": [1]}}, "INVALID_ARGUMENT: categorical[x]: must be a text"),
    ({"candidates": 5}, "INVALID_ARGUMENT: candidates: must be a list"),
    ({"candidates": [{"name": "a"}]}, "INVALID_ARGUMENT: candidates[0]: must be a model's id"),
    ({"input_tokens": 1.5}, "INVALID_ARGUMENT: input_tokens: must be a whole number"),
    ({"output_tokens": -1}, "INVALID_ARGUMENT: output_tokens: must be a finite number 0 or more"),
    ({"cost_usd": -1}, "INVALID_ARGUMENT: cost_usd: must be a finite number 0 or more"),
    ({"latency_seconds": -1}, "INVALID_ARGUMENT: latency_seconds: must be a finite number 0 or more"),
    ({"latency_seconds": 1e7}, "INVALID_ARGUMENT: latency_seconds: must be a finite number 0 or more"),
    ({"error": "boom"}, "INVALID_ARGUMENT: error: must be one of unavailable, timeout"),
    ({"time": "yesterday"}, "INVALID_ARGUMENT: time: must be RFC 3339"),
    ({"time": "2026-01-02T03:04:05"}, "INVALID_ARGUMENT: time: must have a zone"),
    ({"time": -1}, "INVALID_ARGUMENT: time: must be a finite number 0 or more"),
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
        list(read_rows(damaged))


def test_parquet_without_its_extra_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "past.parquet"
    file.write_bytes(b"PAR1 and so on")
    known: Callable[[str], Any] = importlib.import_module

    def without(name: str) -> Any:
        if name.startswith("pyarrow"):
            raise ModuleNotFoundError(name)
        return known(name)

    monkeypatch.setattr("server.importing.file.importlib.import_module", without)
    with pytest.raises(UnreadableFileError, match=r"pip install 'pointsman\[parquet\]'"):
        list(read_rows(file))
