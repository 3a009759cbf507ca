"""A connection to PostgreSQL that gives up a database which does not answer.

TCP's own timeouts see only a peer that is gone. One that takes everything and answers nothing, a proxy whose other
end was cut or a database that was stopped with a signal, would be waited for until it goes.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any, TypeVar

import psycopg

T = TypeVar("T")


class PatientConnection(psycopg.Connection[Any]):
    """Closes itself if an answer takes longer than `answer_seconds`, None being as long as it takes."""

    answer_seconds: float | None = None

    def wait(self, gen: Generator[Any, Any, T], *given: Any, **named: Any) -> T:
        """Waits for what psycopg has asked the database. Raises OperationalError."""
        if self.answer_seconds is None:
            return super().wait(gen, *given, **named)
        return super().wait(self._patient(gen, time.monotonic() + self.answer_seconds), *given, **named)

    def _patient(self, gen: Generator[Any, Any, T], until: float) -> Generator[Any, Any, T]:
        """psycopg sends a false value whenever nothing has come for a while."""
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if not ready and time.monotonic() > until:
                    self.pgconn.finish()
                    raise psycopg.OperationalError("the database does not answer, and is given up")
                wanted = gen.send(ready)
        except StopIteration as finished:
            value: T = finished.value
            return value
