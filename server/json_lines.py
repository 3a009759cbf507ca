"""Reads text files line by line, whether gzipped or not."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from policy.domain import InvalidFieldError

LINE_LENGTH_MAX = 16 << 20

_GZIP_MAGIC = b"\x1f\x8b"


class UnreadableFileError(Exception):
    """A file that cannot be read. The message names it and says why."""


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines that are not blank, each with its number, from 1 on. Raises UnreadableFileError.

    The file is opened once, since what was read of a pipe is gone.
    """
    try:
        with path.open("rb") as raw:
            zipped = raw.peek(2)[:2] == _GZIP_MAGIC
            with io.TextIOWrapper(gzip.GzipFile(fileobj=raw) if zipped else raw, encoding="utf-8") as lines:
                number = 0
                while line := lines.readline(LINE_LENGTH_MAX + 2):
                    number += 1
                    if len(line.rstrip("\n")) > LINE_LENGTH_MAX:
                        raise UnreadableFileError(f"{path}:{number}: is of over {LINE_LENGTH_MAX:,} characters")
                    if line.strip():
                        yield number, line
    except (OSError, EOFError, zlib.error) as error:
        raise UnreadableFileError(f"{path}: cannot be read: {error}") from error
    except UnicodeDecodeError as error:
        raise UnreadableFileError(f"{path}: is not UTF-8: {error}") from error


def parsed(line: str) -> Any:
    """What a line of JSON holds. Raises InvalidFieldError."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:  # An integer of 5,000 digits is no JSONDecodeError.
        raise InvalidFieldError("line", f"is not JSON: {error}") from error
