"""Snapshots of what a router's learner knows: exported, imported, and gone back to."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from sqlalchemy import Engine

from policy.domain import InvalidFieldError, Router
from policy.learner import StateVersionError
from policy.recall import matched
from server.errors import NotAllowedNowError, RouterNotFoundError, SnapshotMisfitError
from server.registry import Registry
from server.storage.archive import SnapshotInfo, list_snapshots, read_snapshot
from server.storage.bounded_reads import BoundedReads
from server.storage.group_commit import GroupCommit
from server.storage.policy_store import Cause
from server.storage.snapshot_file import FILE_BYTES_MAX, SnapshotVersionError, dump_snapshot, load_snapshot
from server.storage.snapshot_store import import_snapshot, restore_snapshot
from server.storage.writes import Transact
from server.usecases.change_policies import check_cause
from server.usecases.change_registry import ChangeRegistry


@dataclass(frozen=True, slots=True)
class Matched:
    """Which of the router's models a snapshot knows, by id, and which begin anew with it."""

    known: tuple[str, ...]
    new: tuple[str, ...]


class Snapshots:
    """Reads them off the event loop; an import and a return are writes of the log's one writer."""

    def __init__(
        self, engine: Engine, reads: BoundedReads, registry: Registry, change: ChangeRegistry, log: GroupCommit
    ) -> None:
        self._engine = engine
        self._reads = reads
        self._registry = registry
        self._change = change
        self._log = log

    async def list(self, router_id: str) -> Sequence[SnapshotInfo]:
        """The router's snapshots, oldest first. Raises RouterNotFoundError, StorageUnavailableError."""
        router = self._router(router_id)
        return await self._reads(partial(list_snapshots, self._engine, router_id, router.uid))

    async def export(self, router_id: str, snapshot_id: str, name: str) -> bytes:
        """The file of a snapshot of this name.

        Raises RouterNotFoundError, SnapshotNotFoundError, StorageUnavailableError, NotAllowedNowError for one of
        another version.
        """
        router = self._router(router_id)

        def made() -> bytes:
            stored = read_snapshot(self._engine, router_id, router.uid, snapshot_id)
            try:
                return dump_snapshot(name, stored)
            except StateVersionError as error:
                raise NotAllowedNowError(f"{name} cannot be exported: {error}") from error

        return await self._reads(made)

    async def take(self, router_id: str, data: bytes) -> SnapshotInfo:
        """Adds a file that was exported to the router's snapshots; nothing is learned before it is restored.

        Raises InvalidFieldError, RouterNotFoundError, SnapshotMisfitError, QueueFullError,
        StorageUnavailableError.
        """
        self._router(router_id)
        if len(data) > FILE_BYTES_MAX:
            raise InvalidFieldError("chunk", f"must be at most {FILE_BYTES_MAX:,} bytes in all")
        try:
            imported = await asyncio.to_thread(load_snapshot, data)
        except SnapshotVersionError as error:
            raise SnapshotMisfitError(router_id, error.differences) from error
        info: SnapshotInfo = await self._log.submit(Transact(import_snapshot(router_id, imported)))
        return info

    async def restore(self, router_id: str, snapshot_id: str, revision: int | None, cause: Cause) -> Matched:
        """Goes back to a snapshot: the learner knows what it knew then, as soon as it comes to the record.

        Raises InvalidFieldError, RouterNotFoundError, SnapshotNotFoundError, SnapshotMisfitError, StaleEtagError,
        NotAllowedNowError, QueueFullError, StorageUnavailableError.
        """
        router = self._router(router_id)
        check_cause(cause)
        entry = await self._change.apply(router_id, restore_snapshot(router_id, snapshot_id, revision, cause))
        stored = await self._reads(partial(read_snapshot, self._engine, router_id, router.uid, snapshot_id))
        names = matched(stored.router, entry.router, own=snapshot_id.isdigit())
        known = {model.key for model in entry.router.models} & set(names.values())
        return Matched(
            tuple(model.id for model in entry.router.models if model.key in known),
            tuple(model.id for model in entry.router.models if model.key not in known),
        )

    def _router(self, router_id: str) -> Router:
        router = self._registry.router(router_id)
        if router is None:
            raise RouterNotFoundError(router_id)
        return router
