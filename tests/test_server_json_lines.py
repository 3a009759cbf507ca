"""Lines of text files: gzipped, from a pipe, damaged, or too long to be one."""

from __future__ import annotations

import gzip
import os
from pathlib import Path
from threading import Thread

import pytest

from server import json_lines
from server.json_lines import UnreadableFileError, numbered_lines
from server.rows.file import RowFile


def piped(path: Path, content: bytes) -> Thread:
    """Makes a pipe of the path, with something that writes this into it and closes it."""
    os.mkfifo(path)
    writer = Thread(target=path.write_bytes, args=(content,), daemon=True)
    writer.start()
    return writer


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_pipe_is_read_once_and_from_its_beginning(tmp_path: Path, pack: type[bytes]) -> None:
    text = b'{"n": 1}\n\n' + b'{"n": 2}\n' * 3
    writer = piped(tmp_path / "pipe", pack(text))
    assert [number for number, _ in RowFile(tmp_path / "pipe")] == [1, 3, 4, 5]
    writer.join()


def test_damaged_gzip_is_said_so(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(b"{}\n" * 1000))
    packed[10:12] = b"\xff\xff"
    (tmp_path / "bad.gz").write_bytes(packed)
    with pytest.raises(UnreadableFileError, match=r"bad\.gz: cannot be read"):
        list(numbered_lines(tmp_path / "bad.gz"))


def test_a_line_without_an_end_is_not_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_lines, "LINE_LENGTH_MAX", 10)
    (tmp_path / "long").write_text("0123456789\n" + "x" * 12)
    with pytest.raises(UnreadableFileError, match="long:2: is of over 10 characters"):
        list(numbered_lines(tmp_path / "long"))
