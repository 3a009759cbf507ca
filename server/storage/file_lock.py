"""Locks between processes, on files beside an SQLite database: the operating system ends them with the process."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


def lock_file(database: Path, name: str, *, shared: bool = False) -> int | None:
    """The open file of the lock, to be closed to let go of it; None while others have it. Raises OSError."""
    file = _open(database, Path(f"{database}-{name}.lock"))
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return None
    except OSError:
        os.close(file)
        raise
    return file


def _open(database: Path, path: Path) -> int:
    """Whoever may use the database may use its locks: a new one is given its owner and mode, as SQLite does it
    with its files beside it. Root may have been the first to start a server.
    """
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)
    found = database.stat()
    if os.geteuid() == 0:
        os.fchown(file, found.st_uid, found.st_gid)
    os.fchmod(file, found.st_mode & 0o666)
    return file
