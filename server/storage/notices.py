"""What servers on one PostgreSQL tell each other: only that there is something to look for, never what it is.

So one that is missed costs nothing but the wait for the next look.
"""

from __future__ import annotations

from sqlalchemy import Connection, text

LEARNED = "pointsman_learned"

_NOTIFY = text("SELECT pg_notify(:channel, '')")


def notify(connection: Connection, channel: str) -> None:
    """Says it when the transaction commits. On SQLite there is nobody to hear it.

    PostgreSQL has transactions that say something commit one after the other: it has no place in the log's own.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(_NOTIFY, {"channel": channel})
