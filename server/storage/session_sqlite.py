"""Several processes of one machine on one SQLite file: locks of its own, and a look at what others wrote."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, cast

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from server.storage.file_lock import lock_file
from server.storage.session import SessionLostError

_LOOK_SECONDS = 0.02


class SQLiteSession:
    """A lock is one on a file beside the database, which the operating system lets go of when the process ends,
    however it does. SQLite tells nobody of anything: whether others have committed is looked up.
    """

    def __init__(self, engine: Engine) -> None:
        """Connects as the engine does. Raises SessionLostError."""
        self._error: type[Exception] = engine.dialect.import_dbapi().Error
        self._locks: dict[str, int] = {}
        try:
            pooled = engine.raw_connection()
        except (SQLAlchemyError, self._error, OSError) as error:
            raise SessionLostError(str(error)) from error
        self._connection = cast("Any", pooled.driver_connection)
        pooled.detach()
        try:
            # As SQLite has found it, whatever the URL and the folder that a process was started in.
            self._database = Path(self._ask("PRAGMA database_list")[2])
            self._version = self._committed()
        except SessionLostError:
            self.close()
            raise

    def check(self) -> None:
        """There is no connection that could be lost."""

    def try_lock(self, name: str) -> bool:
        """Whether the lock of this name is its own now. Raises SessionLostError if it cannot be had at all."""
        if name in self._locks:
            return True
        try:
            file = lock_file(self._database, name)
        except OSError as error:
            raise SessionLostError(str(error)) from error
        if file is None:
            return False
        self._locks[name] = file
        return True

    def listen(self, _channel: str) -> None:
        """All that others commit is heard."""

    def heard(self, seconds: float) -> bool:
        """Whether another connection has committed: waits so long for it. Raises SessionLostError."""
        until = time.monotonic() + seconds
        while True:
            version = self._committed()
            if version != self._version:
                self._version = version
                return True
            left = until - time.monotonic()
            if left <= 0:
                return False
            time.sleep(min(left, _LOOK_SECONDS))

    def close(self) -> None:
        """Ends it, and lets go of its locks."""
        for file in self._locks.values():
            os.close(file)
        self._connection.close()

    def _committed(self) -> int:
        """A number that changes when another connection commits."""
        return int(self._ask("PRAGMA data_version")[0])

    def _ask(self, statement: str) -> Any:
        try:
            return self._connection.execute(statement).fetchone()
        except self._error as error:
            raise SessionLostError(str(error)) from error
