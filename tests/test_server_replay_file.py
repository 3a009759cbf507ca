"""Replay files: what is read, and what is wrong with the line where it stands."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest

from policy.simulation import Outcome
from server.replay.file import ReplayFileError, read_replay

GOOD: dict[str, Any] = {"prompt": "p", "outcomes": {"a": {"quality": 0.5, "cost_usd": 0.1}}}


def written(tmp_path: Path, *rows: object) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), encoding="utf-8")
    return path


def test_rows_are_read_with_what_is_optional(tmp_path: Path) -> None:
    full = {
        "prompt": "☃",
        "source": "mmlu",
        "split": "learn",
        "outcomes": {"z/1": {"quality": 1, "cost_usd": 0, "input_tokens": 9, "output_tokens": 7, "extra": None}},
    }
    bare = {"prompt": "", "outcomes": {"z/1": {"quality": 0.5, "cost_usd": 0.25}}}
    heard: list[None] = []
    file = read_replay(written(tmp_path, full, "", bare, "  "), lambda: heard.append(None))
    assert file.models == ("z/1",)
    assert [(row.prompt, row.split) for row in file.rows] == [("☃", "learn"), ("", None)]
    assert [row.outcomes["z/1"] for row in file.rows] == [Outcome(1.0, 0.0, 9, 7), Outcome(0.5, 0.25, 0, 0)]
    assert len(heard) == 2


def test_a_gzipped_file_is_read_whatever_its_name(tmp_path: Path) -> None:
    plain = written(tmp_path, GOOD, GOOD)
    zipped = tmp_path / "zipped.jsonl"
    zipped.write_bytes(gzip.compress(plain.read_bytes()))
    assert read_replay(zipped) == read_replay(plain)


def outcome(**fields: object) -> dict[str, object]:
    return {"prompt": "p", "outcomes": {"a": {"quality": 0.5, "cost_usd": 0.1, **fields}}}


@pytest.mark.parametrize(
    ("row", "named"),
    [
        ("{", "JSON"),
        ("[]", "line"),
        ({**GOOD, "prompt": None}, "prompt"),
        ({**GOOD, "prompt": "x" * 1_100_000}, "prompt"),
        ({**GOOD, "split": "test"}, "split"),
        ({**GOOD, "outcomes": {}}, "outcomes"),
        ({**GOOD, "outcomes": []}, "outcomes"),
        ({**GOOD, "outcomes": {"a b": {}}}, "outcomes"),
        ({**GOOD, "outcomes": {"a": 1}}, "outcomes[a]"),
        ({**GOOD, "outcomes": {"b": GOOD["outcomes"]["a"]}}, "the same models"),
        (outcome(quality=1.5), "outcomes[a].quality"),
        (outcome(quality=None), "outcomes[a].quality"),
        (outcome(quality=True), "outcomes[a].quality"),
        (outcome(quality="1"), "outcomes[a].quality"),
        (outcome(quality=float("nan")), "outcomes[a].quality"),
        (outcome(cost_usd=-1), "outcomes[a].cost_usd"),
        (outcome(cost_usd=float("inf")), "outcomes[a].cost_usd"),
        (outcome(input_tokens=-1), "outcomes[a].input_tokens"),
        (outcome(quality=10**400), "outcomes[a].quality"),
        ("[" * 200_000, "rows.jsonl:2"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_is_wrong_is_said_with_the_file_the_line_and_the_field(
    tmp_path: Path, row: object, named: str
) -> None:
    path = written(tmp_path, GOOD, row)
    with pytest.raises(ReplayFileError) as caught:
        read_replay(path)
    assert str(caught.value).startswith(f"{path}:2: ")
    assert named in str(caught.value)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "content",
    [b"", b"\n\n", b"\xff\xfe\n", b"\x1f\x8b\x08 cut", gzip.compress(b"{}" * 99, mtime=0)[:-9]],
    ids=["empty", "blank lines", "not UTF-8", "not gzip", "gzip cut short"],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(ReplayFileError, match=re.escape(str(path))):
        read_replay(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(ReplayFileError, match="cannot be read"):
            read_replay(path)
