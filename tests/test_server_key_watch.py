"""Keys follow the database, and stay what they were while it is away."""

from __future__ import annotations

import asyncio
import logging

import pytest
from servers import Disk, eventually
from sqlalchemy import text, update

import server.key_watch
from server.errors import UnauthenticatedError
from server.key_watch import KeyWatch
from server.keys import ApiKey, KeyRing, Scope, digest_of, new_key_text
from server.storage.key_store import create_key, revoke_key
from server.storage.schema import api_keys


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


def written_by_a_newer_version(disk: Disk, key_id: str, **values: str) -> None:
    with disk.engine.begin() as connection:
        connection.execute(update(api_keys).where(api_keys.c.id == key_id).values(**values))


async def test_a_scope_that_this_version_does_not_know_is_ignored_and_the_others_count(
    disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    ring = KeyRing()
    watch = KeyWatch(disk.engine, ring)
    key_id, secret = add(disk)
    written_by_a_newer_version(disk, key_id, scopes='["judge", "route"]')
    await watch.refresh()
    assert ring.authenticate(secret, 2).scopes == {Scope.ROUTE}
    other_id, _ = add(disk)
    await watch.refresh()
    revoke_key(disk.engine, other_id, 2)
    await watch.refresh()
    assert [each.getMessage() for each in caplog.records] == [
        f"key {key_id} has what this version does not know, and ignores: judge"
    ]


@pytest.mark.parametrize(
    "values", [{"scopes": "route"}, {"scopes": '{"route": {}}'}, {"routers": "7"}, {"routers": '[["default"]]'}]
)
async def test_a_key_that_cannot_be_read_is_good_for_nothing_and_stops_no_other(
    disk: Disk, values: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    ring = KeyRing()
    watch = KeyWatch(disk.engine, ring)
    unread_id, unread = add(disk)
    written_by_a_newer_version(disk, unread_id, **values)
    await watch.refresh()
    assert ring.locked
    assert ring.authenticate(unread, 2).scopes == set()
    assert not ring.authenticate(unread, 2).permits("default")
    key_id, secret = add(disk)
    await watch.refresh()
    assert ring.authenticate(secret, 2).id == key_id
    for each in (unread_id, key_id):
        revoke_key(disk.engine, each, 2)
    await watch.refresh()
    for each in (unread, secret):
        with pytest.raises(UnauthenticatedError, match="is revoked"):
            ring.authenticate(each, 3)
    assert caplog.text.count("does not know") == 1


async def test_no_fault_ends_it(
    disk: Disk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(server.key_watch, "_POLL_SECONDS", 0.01)
    ring = KeyRing()
    watch = KeyWatch(disk.engine, ring)
    failed = 0

    def fail(*_: object) -> None:
        nonlocal failed
        failed += 1
        raise ZeroDivisionError

    key_id, secret = add(disk)

    async def good() -> bool:
        try:
            return ring.authenticate(secret, 2).id == key_id
        except UnauthenticatedError:
            return False

    async def has_failed() -> bool:
        return failed > 3

    with monkeypatch.context() as patch:
        patch.setattr(server.key_watch, "read_keys", fail)
        running = asyncio.ensure_future(watch.run())
        await eventually(has_failed)
    await eventually(good)
    watch.stop()
    await running
    assert caplog.text.count("none can be revoked") == 1
