"""Follows the keys in the database, so that one that is created or revoked anywhere is so on every server."""

from __future__ import annotations

import asyncio
import contextlib
import logging

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from server.keys import KeyRing
from server.storage.key_store import key_counts, read_keys

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.5


class KeyWatch:
    """Looks twice a second. While the keys cannot be read, those that were there last go on being good."""

    def __init__(self, engine: Engine, ring: KeyRing) -> None:
        self._engine = engine
        self._ring = ring
        self._known: tuple[int, int] | None = None
        self._told: set[str] = set()
        self._stopped = asyncio.Event()

    async def run(self) -> None:
        """Until `stop`. Never raises: what cannot be read is looked for again."""
        away = False
        while not self._stopped.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopped.wait(), _POLL_SECONDS)
            try:
                await self.refresh()
                away = False
            except SQLAlchemyError as error:
                if not away:
                    logger.warning("keys cannot be read, so that none can be revoked: %s", error)
                away = True
            except Exception:  # A fault of ours must not end it: no key could be revoked any more.
                if not away:
                    logger.exception("keys were not taken over, so that none can be revoked")
                away = True

    async def refresh(self) -> None:
        """Takes over the keys as they are now, if any has changed. Raises SQLAlchemyError."""
        if await asyncio.to_thread(key_counts, self._engine) == self._known:
            return
        keys = await asyncio.to_thread(read_keys, self._engine)
        self._known = len(keys), sum(each.revoke_us is not None for each in keys)
        self._ring.replace(keys)
        for each in keys:
            if each.unread and each.id not in self._told:
                logger.warning("key %s has what this version does not know, and ignores: %s", each.id, each.unread)
        self._told = {each.id for each in keys if each.unread}

    def stop(self) -> None:
        """Ends `run`."""
        self._stopped.set()
