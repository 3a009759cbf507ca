"""Creates, changes and deletes routers and models; a change is in force when the answer is given."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

from policy.domain import (
    DEFAULT_ROUTER,
    ModelSpec,
    RouterSpec,
    require_model_id,
    require_router_id,
)
from policy.policy_name import require_policy
from server.errors import NotAllowedNowError, RouterNotFoundError
from server.registry import Registry, RouterEntry
from server.storage import registry_store as store
from server.storage.group_commit import GroupCommit
from server.storage.retention import require_window
from server.storage.writes import Transact


class ChangeRegistry:
    """The only one that changes the registry, on disk and in memory, one change after another.

    `window_seconds_max` is how long the log is kept, and so a join window can be; None is for ever.
    """

    def __init__(self, registry: Registry, log: GroupCommit, window_seconds_max: float | None = None) -> None:
        self._registry = registry
        self._log = log
        self._window_seconds_max = window_seconds_max
        self._turn = asyncio.Lock()

    async def put_router(
        self,
        router_id: str,
        spec: RouterSpec,
        *,
        create: bool,
        revision: int | None = None,
        declared: str | None = None,
    ) -> RouterEntry:
        """The router as created or changed.

        Raises InvalidFieldError, AlreadyExistsError, RouterNotFoundError, StaleEtagError,
        NotAllowedNowError, QueueFullError, StorageUnavailableError.
        """
        require_router_id("router_id", router_id)
        require_policy(spec.policy)
        require_window(spec, self._window_seconds_max)
        return await self.apply(
            router_id,
            store.put_router(router_id, spec, create=create, revision=revision, declared=declared),
        )

    async def delete_router(self, router_id: str, revision: int | None = None) -> None:
        """Deletes the router. Raises as put_router."""
        if router_id == DEFAULT_ROUTER:
            raise NotAllowedNowError("routers/default always exists and cannot be deleted")
        await self._store(router_id, store.delete_router(router_id, revision))

    async def put_model(
        self,
        router_id: str,
        model_id: str,
        spec: ModelSpec,
        *,
        create: bool,
        revision: int | None = None,
        declared: str | None = None,
    ) -> RouterEntry:
        """The router with the model as created or changed. Raises as put_router, and ModelNotFoundError."""
        require_model_id("model_id", model_id)
        return await self.apply(
            router_id,
            store.put_model(
                router_id,
                model_id,
                spec,
                create=create,
                revision=revision,
                declared=declared,
            ),
        )

    async def delete_model(self, router_id: str, model_id: str, revision: int | None = None) -> None:
        """Removes the model. Raises as put_model."""
        if self._registry.entry(router_id) is None:
            raise RouterNotFoundError(router_id)
        await self.apply(router_id, store.delete_model(router_id, model_id, revision))

    async def refresh(self, router_id: str, read: Callable[[str], RouterEntry | None]) -> None:
        """Takes over what another server has changed of a router, in turn with the changes made here."""
        async with self._turn:
            self._registry.replace(router_id, await asyncio.to_thread(read, router_id))

    async def apply(self, router_id: str, change: store.Change) -> RouterEntry:
        """Makes a change of a router, on disk and then in memory. Raises what the change raises."""
        entry: RouterEntry = await self._store(router_id, change)
        return entry

    async def _store(self, router_id: str, change: store.Change) -> Any:
        """Makes the change on disk. Who commits it puts it in force, before anything else is decided, and also if
        the caller has gone.
        """
        async with self._turn:
            return await self._log.submit(Transact(change, partial(self._registry.replace, router_id)))
