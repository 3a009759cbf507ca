"""The database as a server has it: opened, claimed, looked after, and let go of."""

from __future__ import annotations

from server.storage.checkpoints import Checkpoints
from server.storage.claim import Claim
from server.storage.engine import Durability, hurry, let_go, migrate, open_engine, open_relaxed


class Database:
    """`engine` is for what must not be lost, `view_engine` for what is soon written anew. `shared` says whether
    other servers use it too, as they always may on PostgreSQL; on SQLite all have to be started as `several`.

    Its methods wait, and are not for the event loop.
    """

    def __init__(self, url: str, durability: Durability, *, several: bool) -> None:
        """Connects to nothing yet. Raises InvalidFieldError for a URL that is none."""
        self.engine = open_engine(url, durability)
        self.view_engine = open_relaxed(self.engine)
        sqlite = self.engine.dialect.name == "sqlite"
        self.shared = several or not sqlite
        self._claim = Claim(self.engine, shared=several) if sqlite else None
        self._checkpoints = Checkpoints(self.engine) if sqlite else None

    def open(self) -> None:
        """Brings it to the newest schema and claims it. Raises OSError if it cannot be opened, or is another's."""
        migrate(self.engine)
        if self._claim is not None:
            self._claim.take()

    def look_after(self) -> None:
        """Keeps SQLite's write-ahead log short from here on."""
        if self._checkpoints is not None:
            self._checkpoints.start()

    def hurry(self, seconds: float) -> None:
        """Lets nobody wait for PostgreSQL for longer from now on, nor long for what is asked later."""
        hurry(self.engine, seconds)

    def close(self) -> None:
        """Lets go of it."""
        if self._checkpoints is not None:
            self._checkpoints.stop()
        let_go(self.view_engine)
        let_go(self.engine)
        if self._claim is not None:
            self._claim.release()
