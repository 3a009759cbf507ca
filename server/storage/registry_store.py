"""The registry on disk: each change is written together with its record in the log."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, Engine, insert, select, update

from policy.canary import Canary
from policy.domain import MODELS_PER_ROUTER_MAX, Model, ModelSpec, Router, RouterSpec
from policy.promotion import PolicyState, Promotion
from server.errors import (
    AlreadyExistsError,
    ModelNotFoundError,
    NotAllowedNowError,
    RouterNotFoundError,
    StaleEtagError,
)
from server.registry import PolicyEntry, RouterEntry, Stamp
from server.storage.codec import (
    AnyRow,
    dump_router,
    dump_spec,
    load_candidate,
    load_model_spec,
    load_promotion,
    load_router_spec,
)
from server.storage.schema import changes, decisions, models, policies, promotions, routers

Change = Callable[[Connection, int, int], "RouterEntry | None"]
"""Runs in a write transaction with its position and time; gives the router's new entry, None if deleted."""


def load_entries(engine: Engine) -> list[RouterEntry]:
    """Every router that is not deleted."""
    with engine.connect() as connection:
        ids = connection.execute(select(routers.c.id).where(routers.c.delete_us.is_(None))).scalars()
        return [load_entry(connection, router_id) for router_id in list(ids)]


def read_entry(engine: Engine, router_id: str) -> RouterEntry | None:
    """The router as it is now; None if it was deleted or never was."""
    with engine.execution_options(read_only=True).connect() as connection:
        live = select(routers.c.id).where(routers.c.id == router_id, routers.c.delete_us.is_(None))
        return load_entry(connection, router_id) if connection.execute(live).first() else None


def put_router(
    router_id: str,
    spec: RouterSpec,
    *,
    create: bool,
    revision: int | None = None,
    declared: str | None = None,
) -> Change:
    """Creates or changes a router. `revision` is the one it must have; `declared` is kept if given."""

    def change(connection: Connection, seq: int, time_us: int) -> RouterEntry | None:
        row = connection.execute(select(routers).where(routers.c.id == router_id)).one_or_none()
        exists = row is not None and row.delete_us is None
        if create and exists:
            raise AlreadyExistsError(f"there is a router {router_id!r} already", {"router": router_id})
        if not create and not exists:
            raise RouterNotFoundError(router_id)
        _require_revision(f"routers/{router_id}", row if exists else None, revision)
        if row is not None and exists:
            _require_same_features(connection, row, spec)
        values = _values(row, dump_spec(spec), declared, exists, seq, time_us)
        if row is None:
            connection.execute(insert(routers).values(id=router_id, **values))
        else:
            connection.execute(update(routers).where(routers.c.id == router_id).values(**values))
        return _record(connection, router_id, seq, time_us)

    return change


def set_spec(connection: Connection, row: AnyRow, spec: RouterSpec, seq: int, time_us: int) -> None:
    """Gives a router that exists another spec with the same features; the caller writes the record of the log."""
    values = _values(row, dump_spec(spec), None, True, seq, time_us)
    connection.execute(update(routers).where(routers.c.id == row.id).values(**values))


def delete_router(router_id: str, revision: int | None) -> Change:
    """Deletes a router with its models."""

    def change(connection: Connection, seq: int, time_us: int) -> RouterEntry | None:
        row = live_router(connection, router_id)
        _require_revision(f"routers/{router_id}", row, revision)
        connection.execute(
            update(routers).where(routers.c.id == router_id).values(delete_us=time_us, declared=None)
        )
        connection.execute(
            update(models)
            .where(models.c.router == router_id, models.c.delete_us.is_(None))
            .values(delete_us=time_us, declared=None)
        )
        _log(connection, router_id, None, seq, time_us)
        return None

    return change


def put_model(
    router_id: str,
    model_id: str,
    spec: ModelSpec,
    *,
    create: bool,
    revision: int | None = None,
    declared: str | None = None,
) -> Change:
    """Creates or changes a model. A model created again after its deletion starts from nothing."""

    def change(connection: Connection, seq: int, time_us: int) -> RouterEntry | None:
        live_router(connection, router_id)
        name = f"routers/{router_id}/models/{model_id}"
        row = connection.execute(_model_query(router_id, model_id)).one_or_none()
        exists = row is not None and row.delete_us is None
        if create and exists:
            raise AlreadyExistsError(f"there is a model {name!r} already", {"model": model_id})
        if not create and not exists:
            raise ModelNotFoundError(router_id, model_id)
        _require_revision(name, row if exists else None, revision)
        if create:
            _require_room(connection, router_id)
        values = _values(row, dump_spec(spec), declared, exists, seq, time_us)
        if row is None:
            connection.execute(insert(models).values(router=router_id, id=model_id, **values))
        else:
            connection.execute(
                update(models).where(models.c.router == router_id, models.c.id == model_id).values(**values)
            )
        return _record(connection, router_id, seq, time_us)

    return change


def delete_model(router_id: str, model_id: str, revision: int | None) -> Change:
    """Removes a model."""

    def change(connection: Connection, seq: int, time_us: int) -> RouterEntry | None:
        row = connection.execute(_model_query(router_id, model_id)).one_or_none()
        if row is None or row.delete_us is not None:
            raise ModelNotFoundError(router_id, model_id)
        _require_revision(f"routers/{router_id}/models/{model_id}", row, revision)
        connection.execute(
            update(models).where(models.c.router == router_id, models.c.id == model_id).values(delete_us=time_us)
        )
        return _record(connection, router_id, seq, time_us)

    return change


def declared_router(engine: Engine, router_id: str) -> str | None:
    """The spec that a file last declared for the router, or None."""
    with engine.connect() as connection:
        return connection.execute(select(routers.c.declared).where(routers.c.id == router_id)).scalar_one_or_none()


def declared_model(engine: Engine, router_id: str, model_id: str) -> str | None:
    """The spec that a file last declared for the model, or None."""
    with engine.connect() as connection:
        return connection.execute(
            select(models.c.declared).where(models.c.router == router_id, models.c.id == model_id)
        ).scalar_one_or_none()


def _model_query(router_id: str, model_id: str) -> Any:
    return select(models).where(models.c.router == router_id, models.c.id == model_id)


def live_router(connection: Connection, router_id: str) -> AnyRow:
    """The router's row. Raises RouterNotFoundError if it was deleted or never was."""
    row = connection.execute(
        select(routers).where(routers.c.id == router_id, routers.c.delete_us.is_(None))
    ).one_or_none()
    if row is None:
        raise RouterNotFoundError(router_id)
    return row


def _require_revision(name: str, row: AnyRow | None, revision: int | None) -> None:
    if row is not None and revision is not None and row.revision != revision:
        raise StaleEtagError(name)


def _require_same_features(connection: Connection, row: AnyRow, new: RouterSpec) -> None:
    old = load_router_spec(row.spec)
    if old.embedding_dimensions == new.embedding_dimensions:
        return
    query = select(decisions.c.seq).where(decisions.c.router_uid == row.uid).limit(1)
    if connection.execute(query).first() is not None:
        raise NotAllowedNowError(
            f"routers/{row.id} has decided with embedding_dimensions {old.embedding_dimensions} already; "
            f"create another router for {new.embedding_dimensions}"
        )


def _require_room(connection: Connection, router_id: str) -> None:
    query = select(models.c.id).where(models.c.router == router_id, models.c.delete_us.is_(None))
    if len(connection.execute(query).all()) >= MODELS_PER_ROUTER_MAX:
        raise NotAllowedNowError(
            f"routers/{router_id} has {MODELS_PER_ROUTER_MAX} models, as many as a router may have"
        )


def _values(
    row: AnyRow | None,
    spec: str,
    declared: str | None,
    exists: bool,
    seq: int,
    time_us: int,
) -> dict[str, Any]:
    values: dict[str, Any] = {
        "spec": spec,
        "revision": seq,
        "update_us": time_us,
        "delete_us": None,
    }
    if declared is not None:
        values["declared"] = declared
    if row is None or not exists:
        values |= {"uid": seq, "create_us": time_us}
    return values


def _record(connection: Connection, router_id: str, seq: int, time_us: int) -> RouterEntry:
    entry = load_entry(connection, router_id)
    _log(connection, router_id, entry.router, seq, time_us)
    return entry


def _log(
    connection: Connection,
    router_id: str,
    router: Router | None,
    seq: int,
    time_us: int,
) -> None:
    connection.execute(
        insert(changes).values(
            seq=seq,
            time_us=time_us,
            kind="registry",
            router=router_id,
            payload=None if router is None else dump_router(router),
        )
    )


def load_entry(connection: Connection, router_id: str) -> RouterEntry:
    """The router as it is now, in this transaction."""
    row = connection.execute(select(routers).where(routers.c.id == router_id)).one()
    query = select(models).where(models.c.router == router_id).order_by(models.c.uid)
    rows = connection.execute(query).all()
    live = [each for each in rows if each.delete_us is None]
    members = tuple(Model(each.id, each.uid, load_model_spec(each.spec)) for each in live)
    router = Router(router_id, load_router_spec(row.spec), members, row.uid)
    known = _load_policies(connection, row.uid)
    query = select(promotions).where(promotions.c.router_uid == row.uid)
    promotion = connection.execute(query).one_or_none()
    return RouterEntry(
        router=router,
        stamp=Stamp(row.revision, row.create_us, row.update_us),
        model_stamps={each.id: Stamp(each.revision, each.create_us, each.update_us) for each in live},
        removed_models=frozenset(each.id for each in rows if each.delete_us is not None),
        by_id={member.id: member for member in members},
        policies=known,
        canary=_canary(router, known),
        promotion=load_promotion(promotion.settings) if promotion else Promotion(),
        promotion_revision=promotion.revision if promotion else 0,
    )


def _canary(router: Router, known: dict[str, PolicyEntry]) -> Canary | None:
    serving = [each for each in known.values() if each.state is PolicyState.CANARY]
    return Canary(serving[0].spec, serving[0].canary_share, serving[0].spec.router(router)) if serving else None


def _load_policies(connection: Connection, router_uid: int) -> dict[str, PolicyEntry]:
    query = (
        select(policies).where(policies.c.router_uid == router_uid).order_by(policies.c.create_seq, policies.c.id)
    )
    return {
        row.id: PolicyEntry(
            spec=load_candidate(row.spec),
            state=PolicyState(row.state),
            canary_share=row.canary_share,
            create_seq=row.create_seq,
            stamp=Stamp(row.revision, row.create_us, row.update_us),
        )
        for row in connection.execute(query)
    }
