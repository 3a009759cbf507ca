"""A connection to PostgreSQL of its own, outside the pool: for a lock that lasts, and to hear what others say."""

from __future__ import annotations

from typing import Any, cast

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from server.storage.patience import Patience
from server.storage.session import SessionLostError

# After so much silence, in seconds, the other side is taken to be dead. The database then drops the session with
# its locks, and our side raises.
_LOST_SECONDS = 3
# How the database watches over the session. `idle_session_timeout`, which is new in version 14, also ends the
# session of a process that hangs, or of one behind a proxy.
_WATCHED = {
    "tcp_keepalives_idle": "1",
    "tcp_keepalives_interval": "1",
    "tcp_keepalives_count": "2",
    "tcp_user_timeout": f"{_LOST_SECONDS}s",
    "idle_session_timeout": f"{_LOST_SECONDS}s",
}
_SET = "SELECT set_config(name, %s, false) FROM pg_settings WHERE name = %s"


class PostgreSQLSession:
    """Every statement commits by itself. It has to be used every second, or the database ends it."""

    def __init__(self, engine: Engine) -> None:
        """Connects as the engine does. Raises SessionLostError."""
        self._error: type[Exception] = engine.dialect.import_dbapi().Error
        try:
            pooled = engine.raw_connection()
        except (SQLAlchemyError, self._error) as error:
            raise SessionLostError(str(error)) from error
        self._connection = cast("Any", pooled.driver_connection)
        pooled.detach()
        self._connection.autocommit = True
        self._connection.patience = Patience(_LOST_SECONDS)
        try:
            for setting, value in _WATCHED.items():
                self._ask(_SET, value, setting)
        except SessionLostError:
            self.close()
            raise

    def check(self) -> None:
        """Raises SessionLostError if it is gone."""
        self._ask("SELECT 1")

    def try_lock(self, name: str) -> bool:
        """Whether the lock of this name, of up to seven letters, is its own now. Raises SessionLostError."""
        return bool(self._ask("SELECT pg_try_advisory_lock(%s)", int.from_bytes(name.encode(), "big")))

    def listen(self, channel: str) -> None:
        """Hears what is said on this channel from now on. Raises SessionLostError."""
        self._ask(f"LISTEN {channel}")

    def heard(self, seconds: float) -> bool:
        """Whether anything was said: waits so long for it. Raises SessionLostError."""
        try:
            return bool(list(self._connection.notifies(timeout=seconds, stop_after=1)))
        except self._error as error:
            raise SessionLostError(str(error)) from error

    def close(self) -> None:
        """Ends it, and lets go of its locks."""
        self._connection.close()

    def _ask(self, statement: str, *values: object) -> Any:
        """The first column of the first row, None if there is no row. Raises SessionLostError."""
        try:
            cursor = self._connection.execute(statement, values or None)
            row = cursor.fetchone() if cursor.description else None
        except self._error as error:
            raise SessionLostError(str(error)) from error
        return None if row is None else row[0]
