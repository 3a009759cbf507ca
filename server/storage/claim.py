"""Who may use an SQLite file: one server for itself, or all that are started so as to share it."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

from sqlalchemy import Engine

logger = logging.getLogger(__name__)

_NAME = "serve"
# For so long may one that was told to end, or the learner's process of one that was killed, still be there.
_WAIT_SECONDS = 2.0
_AGAIN_SECONDS = 0.05
_SHARING = "--role, --share-port or --learner-process"


class Claim:
    """A lock of the operating system on a file beside the database, until `release` or until the process ends,
    however it does. Those who share the database share it, and any other server has it alone.
    """

    def __init__(self, engine: Engine, *, shared: bool) -> None:
        # As it is now: another working directory later on makes it no other file.
        self._database = Path(engine.url.database or "").resolve()
        self._shared = shared
        self._file: int | None = None

    def take(self) -> None:
        """Waits a little for those who are about to end. Raises OSError if one that does not go with it is there.

        Where there are no such locks nobody is refused, and the log says so.
        """
        try:
            from server.storage.file_lock import lock_file  # noqa: PLC0415 (only a Unix has such locks)

            until = time.monotonic() + _WAIT_SECONDS
            while True:
                self._file = lock_file(self._database, _NAME, shared=self._shared)
                if self._file is not None or time.monotonic() >= until:
                    break
                time.sleep(_AGAIN_SECONDS)
        except (ImportError, OSError) as error:
            logger.warning("whether another server uses %s cannot be told: %s", self._database, error)
            return
        if self._file is None:
            raise OSError(self._refusal())

    def release(self) -> None:
        """Lets others have it."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _refusal(self) -> str:
        which = (
            "a server that has it for its own"
            if self._shared
            else "another server, and this one does not share it"
        )
        return (
            f"{self._database} is used by {which}: start both with {_SHARING}, or give this one another "
            "POINTSMAN_DATABASE_URL"
        )
