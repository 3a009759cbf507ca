"""A connection to PostgreSQL that gives up a database which does not answer.

TCP's own timeouts see only a peer that is gone. One that takes everything and answers nothing, a proxy whose other
end was cut or a database that was stopped with a signal, would be waited for until it goes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator
from typing import Any, TypeVar

import psycopg
from psycopg.pq import TransactionStatus

T = TypeVar("T")

_LAST_SECONDS = 1.0
_CONNECT_SECONDS_MIN = 2  # psycopg's own least.


class Patience:
    """How long the connections of an engine wait for an answer: `answer_seconds`, less once it is in a hurry."""

    def __init__(self, answer_seconds: float) -> None:
        self.answer_seconds = answer_seconds
        self._until = math.inf

    def hurry(self, seconds: float) -> None:
        """Lets nobody wait for longer than so many seconds from now, or a second for what is asked after that."""
        self._until = time.monotonic() + seconds

    def over(self, since: float) -> bool:
        """Whether what has been waited for since then, by the monotonic clock, has taken too long."""
        now = time.monotonic()
        return now > since + self.answer_seconds or now > max(self._until, since + _LAST_SECONDS)

    def connect_seconds(self, usual: int) -> int:
        """How long to wait for a new connection."""
        return min(usual, _CONNECT_SECONDS_MIN) if math.isfinite(self._until) else usual


class PatientConnection(psycopg.Connection[Any]):
    """Closes itself if an answer takes longer than its `patience`, None being as long as it takes, or the wait for
    it fails. Its errors say what is wrong, without the values of any row.
    """

    patience: Patience | None = None

    def wait(self, gen: Generator[Any, Any, T], *given: Any, **named: Any) -> T:
        """Waits for what psycopg has asked the database. Raises psycopg.Error."""
        waited = gen if self.patience is None else self._patient(gen, self.patience)
        try:
            return super().wait(waited, *given, **named)
        except psycopg.Error as error:
            # The database's own errors come once it has answered. But where the wait itself fails, as when a
            # network breaks, psycopg does not tell libpq, which goes on to call the connection good: nothing works
            # on it any more, but no pool would throw it away, nor would anyone hear that it is not known what has
            # become of a commit.
            lost = isinstance(error, psycopg.OperationalError)
            if lost and self.pgconn.transaction_status == TransactionStatus.ACTIVE:
                self.pgconn.finish()
            # Errors get into the log. DETAIL may be the row that could not be written, with its prompt.
            if error.diag.message_primary:
                error.args = (error.diag.message_primary,)
            raise

    def _patient(self, gen: Generator[Any, Any, T], patience: Patience) -> Generator[Any, Any, T]:
        """psycopg sends a false value whenever nothing has come for a while."""
        since = time.monotonic()
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if not ready and patience.over(since):
                    self.pgconn.finish()
                    raise psycopg.OperationalError("the database does not answer, and is given up")
                wanted = gen.send(ready)
        except StopIteration as finished:
            value: T = finished.value
            return value
