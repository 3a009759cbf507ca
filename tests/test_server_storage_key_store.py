"""A key is in the database as it was made, but for its text, and every change of any key shows in two numbers."""

from __future__ import annotations

import pytest
from servers import Disk

from server.keys import ApiKey, Scope
from server.storage.key_store import create_key, key_counts, read_keys, revoke_key

PLAIN = ApiKey("a" * 12, "", bytes(range(32)), frozenset({Scope.ROUTE}), create_us=1)
FULL = ApiKey(
    "b" * 12,
    "näme",
    bytes(32),
    frozenset(Scope),
    create_us=2,
    routers=frozenset({"x", "y"}),
    expire_us=3,
    requests_per_second=0.5,
    burst=7,
    concurrent_max=9,
)


@pytest.mark.parametrize("key", [PLAIN, FULL])
def test_a_key_is_read_as_it_was_created(disk: Disk, key: ApiKey) -> None:
    create_key(disk.engine, key)
    assert read_keys(disk.engine) == [key]


def test_keys_are_read_in_the_order_of_their_creation_the_revoked_too(disk: Disk) -> None:
    for each in (FULL, PLAIN):
        create_key(disk.engine, each)
    assert revoke_key(disk.engine, PLAIN.id, 5)
    assert [(each.id, each.revoke_us) for each in read_keys(disk.engine)] == [(PLAIN.id, 5), (FULL.id, None)]


def test_a_key_is_revoked_once_and_one_that_is_not_there_never(disk: Disk) -> None:
    create_key(disk.engine, PLAIN)
    assert [revoke_key(disk.engine, each, 5) for each in (PLAIN.id, PLAIN.id, FULL.id)] == [True, False, False]
    assert read_keys(disk.engine)[0].revoke_us == 5


def test_every_change_shows_in_the_counts(disk: Disk) -> None:
    seen = [key_counts(disk.engine)]
    create_key(disk.engine, PLAIN)
    seen.append(key_counts(disk.engine))
    revoke_key(disk.engine, PLAIN.id, 5)
    seen.append(key_counts(disk.engine))
    create_key(disk.engine, FULL)
    seen.append(key_counts(disk.engine))
    assert seen == [(0, 0), (1, 0), (1, 1), (2, 1)]
