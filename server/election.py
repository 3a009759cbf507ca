"""Which of the servers on one database learns: the one that holds a lock, for as long as its session lives."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from sqlalchemy import Engine

from server.storage.session import Session, SessionLostError, open_session

logger = logging.getLogger(__name__)

_LOCK = "learn"
_BEAT_SECONDS = 0.5
_STOP_SECONDS = 5.0


class Election:
    """Takes part in a thread of its own, until `stop` or until this server is not `fit` any more. In that thread
    `on_won` and `on_lost` are called.

    One that is cut off may learn for some seconds more, beside the next: what both of them write is the same, and
    where one has come further, the other's changes nothing.
    """

    def __init__(
        self,
        engine: Engine,
        on_won: Callable[[], object],
        on_lost: Callable[[], object],
        fit: Callable[[], bool],
    ) -> None:
        self._engine = engine
        self._on_won = on_won
        self._on_lost = on_lost
        self._fit = fit
        self._won = False
        self._failing = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="election", daemon=True)

    def start(self) -> None:
        """Starts to take part."""
        self._thread.start()

    def stop(self) -> None:
        """Lets go of the lock: another server takes over within half a second."""
        self._stopping.set()
        if self._thread.is_alive():
            # It may wait for a database that does not answer; the process ends without it then.
            self._thread.join(_STOP_SECONDS)

    def _run(self) -> None:
        while self._takes_part():
            try:
                session = open_session(self._engine)
                try:
                    self._compete(session)
                finally:
                    session.close()
            except SessionLostError as error:
                if self._won or not self._failing:
                    logger.warning("the database cannot be reached to learn from: %s", error)
                self._failing = True
            finally:
                self._lose()
            self._stopping.wait(_BEAT_SECONDS)

    def _takes_part(self) -> bool:
        return not self._stopping.is_set() and self._fit()

    def _compete(self, session: Session) -> None:
        while self._takes_part():
            if self._won:
                session.check()
            elif session.try_lock(_LOCK):
                self._won = True
                logger.info("this server learns")
                self._on_won()
            self._failing = False
            self._stopping.wait(_BEAT_SECONDS)

    def _lose(self) -> None:
        if self._won:
            self._won = False
            logger.info("this server learns no more")
            self._on_lost()
