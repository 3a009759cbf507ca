"""Brings the registry to what a file declares, and to the one router that always exists."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable
from functools import partial

from sqlalchemy import Engine

from policy.domain import DEFAULT_ROUTER, RouterSpec
from server.config_file import DeclaredRouter
from server.errors import AlreadyExistsError
from server.registry import Registry, RouterEntry
from server.storage import registry_store
from server.storage.codec import dump_spec, load_router_spec
from server.usecases.change_registry import ChangeRegistry


async def apply_declared(
    engine: Engine, registry: Registry, change: ChangeRegistry, declared: Iterable[DeclaredRouter]
) -> None:
    """Takes over what has changed in the file since it was last applied; what was changed elsewhere stays."""

    async def put(router_id: str, made: Awaitable[RouterEntry]) -> None:
        """Another server that starts on the same empty database may be first."""
        try:
            await made
        except AlreadyExistsError:
            await change.refresh(router_id, partial(registry_store.read_entry, engine))

    if registry.entry(DEFAULT_ROUTER) is None:
        await put(DEFAULT_ROUTER, change.put_router(DEFAULT_ROUTER, RouterSpec(), create=True))
    for router in declared:
        entry = registry.entry(router.id)
        text = dump_spec(router.spec)
        known = registry_store.declared_router(engine, router.id)
        # Compared as specs: an older version wrote down fewer settings.
        if entry is None or known is None or load_router_spec(known) != router.spec:
            await put(router.id, change.put_router(router.id, router.spec, create=entry is None, declared=text))
        for model_id, spec in router.models.items():
            entry = registry.entry(router.id)
            missing = entry is None or entry.model(model_id) is None
            text = dump_spec(spec)
            if registry_store.declared_model(engine, router.id, model_id) != text:
                made = change.put_model(router.id, model_id, spec, create=missing, declared=text)
                await put(router.id, made)
