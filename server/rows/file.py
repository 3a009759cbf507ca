"""Reads files of decisions: JSON lines, gzipped or not, or Parquet."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from policy.domain import InvalidFieldError
from server.json_lines import UnreadableFileError, numbered_lines
from server.rows.row import Row, row_of_json, row_of_values

IGNORED_MAX = 20

_PARQUET_MAGIC = b"PAR1"
_PARQUET_ROWS = 1000


class RowFile:
    """The rows of a file, each with its number, from 1 on; of a text file the numbers of its lines.

    In the place of a row that cannot be used stands why.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ignored: set[str] = set()
        """Fields that stood in the rows so far and that no row has, the first of them."""

    def __iter__(self) -> Iterator[tuple[int, Row | InvalidFieldError]]:
        """Raises UnreadableFileError for a file that cannot be read on, when it gets there."""
        return self._parquet_rows() if self._is_parquet() else self._json_rows()

    def _is_parquet(self) -> bool:
        if not self.path.is_file():
            return False  # What was read of a pipe is gone.
        try:
            with self.path.open("rb") as raw:
                return raw.read(len(_PARQUET_MAGIC)) == _PARQUET_MAGIC
        except OSError as error:
            raise UnreadableFileError(f"{self.path}: cannot be read: {error}") from error

    def _json_rows(self) -> Iterator[tuple[int, Row | InvalidFieldError]]:
        for number, line in numbered_lines(self.path):
            try:
                yield number, row_of_json(line, self._ignore)
            except InvalidFieldError as error:
                yield number, error

    def _parquet_rows(self) -> Iterator[tuple[int, Row | InvalidFieldError]]:
        try:
            parquet = importlib.import_module("pyarrow.parquet")
            failures = importlib.import_module("pyarrow").ArrowException
        except ImportError as error:
            raise UnreadableFileError(
                f"{self.path}: is Parquet, which takes the extra 'parquet': pip install 'pointsman[parquet]'"
            ) from error
        try:
            with parquet.ParquetFile(self.path) as file:
                number = 0
                for batch in file.iter_batches(batch_size=_PARQUET_ROWS):
                    for values in batch.to_pylist(maps_as_pydicts="lossy"):
                        number += 1
                        yield number, self._of_values(values)
        except (failures, OSError) as error:
            raise UnreadableFileError(f"{self.path}: cannot be read: {error}") from error

    def _of_values(self, values: dict[str, Any]) -> Row | InvalidFieldError:
        time = values.get("time")
        if isinstance(time, datetime) and time.tzinfo is None:
            values["time"] = time.replace(tzinfo=UTC)  # As Parquet's timestamps without a zone are.
        try:
            return row_of_values(values, self._ignore)
        except InvalidFieldError as error:
            return error

    def _ignore(self, names: set[str]) -> None:
        for name in sorted(names):
            if len(self.ignored) < IGNORED_MAX:
                self.ignored.add(name)
