"""API keys in the database, which all servers on it share."""

from __future__ import annotations

import json

from sqlalchemy import Engine, func, insert, select, update

from server.keys import ApiKey, Scope
from server.storage.codec import AnyRow
from server.storage.schema import api_keys


def create_key(engine: Engine, key: ApiKey) -> None:
    """Adds a key."""
    values = {
        "id": key.id,
        "name": key.name,
        "digest": key.digest,
        "scopes": json.dumps(sorted(key.scopes)),
        "routers": None if key.routers is None else json.dumps(sorted(key.routers)),
        "requests_per_second": key.requests_per_second,
        "burst": key.burst,
        "concurrent_max": key.concurrent_max,
        "create_us": key.create_us,
        "expire_us": key.expire_us,
        "revoke_us": key.revoke_us,
    }
    with engine.begin() as connection:
        connection.execute(insert(api_keys).values(**values))


def revoke_key(engine: Engine, key_id: str, time_us: int) -> bool:
    """Revokes a key; False if there is none of this id, or it is revoked already."""
    mine = (api_keys.c.id == key_id, api_keys.c.revoke_us.is_(None))
    with engine.begin() as connection:
        return bool(connection.execute(update(api_keys).where(*mine).values(revoke_us=time_us)).rowcount)


def read_keys(engine: Engine) -> list[ApiKey]:
    """All keys, in the order of their creation, those that are revoked or expired included.

    Scopes that this version does not know are left out. A key whose scopes or routers it cannot read at all is
    good for nothing, but it is there, and can be revoked.
    """
    query = select(api_keys).order_by(api_keys.c.create_us, api_keys.c.id)
    with engine.execution_options(read_only=True).connect() as connection:
        return [_load(row) for row in connection.execute(query)]


def key_counts(engine: Engine) -> tuple[int, int]:
    """How many keys there are, and how many are revoked: a change of any key changes one of the two."""
    query = select(func.count(), func.count(api_keys.c.revoke_us)).select_from(api_keys)
    with engine.execution_options(read_only=True).connect() as connection:
        total, revoked = connection.execute(query).one()
    return int(total), int(revoked)


def _load(row: AnyRow) -> ApiKey:
    scopes, routers, unread = _permissions(row)
    return ApiKey(
        id=row.id,
        name=row.name,
        digest=bytes(row.digest),
        scopes=scopes,
        create_us=row.create_us,
        routers=routers,
        expire_us=row.expire_us,
        revoke_us=row.revoke_us,
        requests_per_second=row.requests_per_second,
        burst=row.burst,
        concurrent_max=row.concurrent_max,
        unread=unread,
    )


def _permissions(row: AnyRow) -> tuple[frozenset[Scope], frozenset[str] | None, str]:
    """The scopes and the routers, and what a newer version has written of them that is not understood."""
    try:
        scopes = _names(row.scopes)
        routers = None if row.routers is None else _names(row.routers)
    except ValueError as error:
        return frozenset(), frozenset(), str(error)
    unknown = sorted(scopes - set(Scope))
    # No scope implies or restricts another, so those that are known mean here what they mean there.
    return frozenset(map(Scope, scopes.difference(unknown))), routers, ", ".join(unknown)


def _names(written: str) -> frozenset[str]:
    """Raises ValueError for what is no list of names."""
    names = json.loads(written)
    if not isinstance(names, list) or not all(isinstance(each, str) for each in names):
        raise ValueError(f"{written[:80]!r} is no list of names")
    return frozenset(names)
