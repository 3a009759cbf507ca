"""SQLite's checkpoints: the write-ahead log is copied into the database beside the writer, not by it."""

from __future__ import annotations

import logging
import threading
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

logger = logging.getLogger(__name__)

_EVERY_SECONDS = 1.0


class Checkpoints:
    """A thread of its own. Without it a commit that makes the write-ahead log too long would copy it all, and who
    waits for the commit would wait for that too. So the writer has only the rest of it to copy, and that only
    where it has become longer still: see `engine.WAL_PAGES_MAX`.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="checkpoints", daemon=True)

    def start(self) -> None:
        """Copies from here on, every second."""
        self._thread.start()

    def stop(self) -> None:
        """Ends."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        failing = False
        while not self._stopping.wait(_EVERY_SECONDS):
            try:
                self._copy()
                failing = False
            except (SQLAlchemyError, OSError) as error:
                if not failing:
                    logger.warning("the write-ahead log cannot be copied now: %s", error)
                failing = True

    def _copy(self) -> None:
        with self._engine.connect() as connection:
            raw: Any = connection.connection.driver_connection
            try:
                # Without waiting for anybody, and without anybody having to wait.
                raw.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            except self._engine.dialect.import_dbapi().Error as error:
                raise OSError(str(error)) from error
