"""Reads files of decisions made elsewhere: JSON lines, gzipped or not, or Parquet."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from policy.domain import InvalidFieldError
from server.json_lines import UnreadableFileError, numbered_lines, parsed

_PARQUET_MAGIC = b"PAR1"
_PARQUET_ROWS = 1000

Row = dict[str, Any] | InvalidFieldError
"""The fields of a row, or why it has none."""


def read_rows(path: Path) -> Iterator[tuple[int, Row]]:
    """The rows with their numbers, from 1 on; of a text file the numbers of its lines.

    Raises UnreadableFileError for a file that cannot be read on, when it gets there.
    """
    return _parquet_rows(path) if _is_parquet(path) else _json_rows(path)


def _is_parquet(path: Path) -> bool:
    if not path.is_file():
        return False  # What was read of a pipe is gone.
    try:
        with path.open("rb") as raw:
            return raw.read(len(_PARQUET_MAGIC)) == _PARQUET_MAGIC
    except OSError as error:
        raise UnreadableFileError(f"{path}: cannot be read: {error}") from error


def _json_rows(path: Path) -> Iterator[tuple[int, Row]]:
    for number, line in numbered_lines(path):
        try:
            row = parsed(line)
        except InvalidFieldError as error:
            yield number, error
            continue
        yield number, row if isinstance(row, dict) else InvalidFieldError("line", "must be a JSON object")


def _parquet_rows(path: Path) -> Iterator[tuple[int, Row]]:
    try:
        parquet = importlib.import_module("pyarrow.parquet")
        failures = importlib.import_module("pyarrow").ArrowException
    except ImportError as error:
        raise UnreadableFileError(
            f"{path}: is Parquet, which takes the extra 'parquet': pip install 'pointsman[parquet]'"
        ) from error
    try:
        with parquet.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches(batch_size=_PARQUET_ROWS):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (failures, OSError) as error:
        raise UnreadableFileError(f"{path}: cannot be read: {error}") from error
