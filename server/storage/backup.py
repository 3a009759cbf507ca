"""Copies an SQLite database while it is being written, as of one moment."""

from __future__ import annotations

import os
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import make_url

from policy.domain import InvalidFieldError


@dataclass(frozen=True, slots=True)
class Backup:
    """A copy: of the log up to position `seq`."""

    file: Path
    seq: int
    size_bytes: int


def back_up(url: str, file: Path) -> Backup:
    """Copies the database to a file that is not there yet, checks the copy, and forces it to the disk.

    All of it in one read, which writers do not wait for and which sees nothing of what they do meanwhile. What has
    the file's name is whole: until it is, the copy is called FILE.partial.
    Raises InvalidFieldError for an engine that has tools of its own, OSError for files that cannot be read or
    written, or if the copy is not sound.
    """
    source = make_url(url)
    if source.get_backend_name() != "sqlite":
        raise InvalidFieldError("database_url", "is of PostgreSQL, which pg_dump backs up: docs/operating.md")
    path = Path(source.database or "")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such database")
    if file.exists():
        raise FileExistsError(f"{file}: is there already")
    partial = file.with_name(f"{file.name}.partial")
    partial.unlink(missing_ok=True)
    try:
        seq = _copy(path, partial)
        _force(partial)
        # Unlike a rename this takes nobody's place, should a file have come in between.
        os.link(partial, file)
        _force(file.parent)
    except sqlite3.Error as error:
        raise OSError(f"{path}: cannot be backed up to {file}: {error}") from error
    finally:
        partial.unlink(missing_ok=True)
    return Backup(file, seq, file.stat().st_size)


def _copy(path: Path, target: Path) -> int:
    reading = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
    try:
        writing = sqlite3.connect(target)
        try:
            reading.backup(writing)
            # One file: without this it would be opened with a log of its own beside it.
            writing.execute("PRAGMA journal_mode=DELETE")
            (found,) = writing.execute("PRAGMA integrity_check(1)").fetchone()
            if found != "ok":
                raise OSError(f"{path}: is damaged: {found}")
            (seq,) = writing.execute("SELECT seq FROM log_head").fetchone()
        finally:
            writing.close()
    finally:
        reading.close()
    return int(seq)


def _force(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
