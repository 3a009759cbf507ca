"""What a server has of the database for itself beside the pool: a lock that lasts, and word of what others do."""

from __future__ import annotations

from typing import Protocol

from sqlalchemy import Engine


class SessionLostError(OSError):
    """The connection is gone, and all that went with it."""


class Session(Protocol):
    """Not safe to use from two threads."""

    def check(self) -> None:
        """Raises SessionLostError if it is gone."""
        ...

    def try_lock(self, name: str) -> bool:
        """Whether the lock of this short name is its own now, until it ends. Raises SessionLostError."""
        ...

    def listen(self, channel: str) -> None:
        """Hears what is said on this channel from now on. Raises SessionLostError."""
        ...

    def heard(self, seconds: float) -> bool:
        """Whether anything was said: waits so long for it. Raises SessionLostError."""
        ...

    def close(self) -> None:
        """Ends it, and lets go of its locks."""
        ...


def open_session(engine: Engine) -> Session:
    """One on the engine's database. Raises SessionLostError."""
    # Each needs what need not be there: psycopg, and the locks of a Unix.
    if engine.dialect.name == "postgresql":
        from server.storage.session_postgresql import PostgreSQLSession  # noqa: PLC0415

        return PostgreSQLSession(engine)
    from server.storage.session_sqlite import SQLiteSession  # noqa: PLC0415

    return SQLiteSession(engine)
