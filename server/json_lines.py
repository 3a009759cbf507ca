"""Reads text files line by line, whether gzipped or not."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import IO


class UnreadableFileError(Exception):
    """A file that cannot be read. The message names it and says why."""


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines that are not blank, each with its number, from 1 on. Raises UnreadableFileError."""
    try:
        with path.open("rb") as raw:
            zipped = raw.read(2) == b"\x1f\x8b"
        opened: IO[str] = gzip.open(path, "rt", encoding="utf-8") if zipped else path.open(encoding="utf-8")
        with opened as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield number, line
    except (OSError, EOFError) as error:
        raise UnreadableFileError(f"{path}: cannot be read: {error}") from error
    except UnicodeDecodeError as error:
        raise UnreadableFileError(f"{path}: is not UTF-8: {error}") from error
