"""Keys follow the database, and stay what they were while it is away."""

from __future__ import annotations

import asyncio
import logging

import pytest
from servers import Disk, eventually
from sqlalchemy import text

from server.errors import UnauthenticatedError
from server.key_watch import KeyWatch
from server.keys import ApiKey, KeyRing, Scope, digest_of, new_key_text
from server.storage.key_store import create_key, revoke_key


def add(disk: Disk) -> tuple[str, str]:
    """The id and the text of a key that is now in the database."""
    key_id, secret = new_key_text()
    create_key(disk.engine, ApiKey(key_id, "", digest_of(secret), frozenset(Scope), 1))
    return key_id, secret


async def test_while_the_database_is_away_known_keys_stay_good_and_then_what_was_revoked_is_not(
    disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    ring = KeyRing()
    watch = KeyWatch(disk.engine, ring)
    key_id, secret = add(disk)
    await watch.refresh()
    running = asyncio.ensure_future(watch.run())
    with disk.engine.begin() as connection:
        connection.execute(text("ALTER TABLE api_keys RENAME TO gone"))

    async def noticed() -> bool:
        return "keys cannot be read" in caplog.text

    await eventually(noticed)
    assert ring.authenticate(secret, 2).id == key_id
    with disk.engine.begin() as connection:
        connection.execute(text("ALTER TABLE gone RENAME TO api_keys"))
    revoke_key(disk.engine, key_id, 2)

    async def refused() -> bool:
        try:
            ring.authenticate(secret, 2)
        except UnauthenticatedError:
            return True
        return False

    await eventually(refused)
    watch.stop()
    await running
    assert caplog.text.count("keys cannot be read") == 1
