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
    """All keys, in the order of their creation, those that are revoked or expired included."""
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
    return ApiKey(
        id=row.id,
        name=row.name,
        digest=bytes(row.digest),
        scopes=frozenset(map(Scope, json.loads(row.scopes))),
        create_us=row.create_us,
        routers=None if row.routers is None else frozenset(json.loads(row.routers)),
        expire_us=row.expire_us,
        revoke_us=row.revoke_us,
        requests_per_second=row.requests_per_second,
        burst=row.burst,
        concurrent_max=row.concurrent_max,
    )
