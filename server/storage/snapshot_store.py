"""Imports snapshots, and goes back to them: each with its record in the log and in the audit."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

from sqlalchemy import Connection

from policy.domain import Router
from policy.promotion import PolicyState, other_policy
from policy.recall import misfits
from server.errors import NotAllowedNowError, SnapshotMisfitError, StaleEtagError
from server.registry import RouterEntry
from server.storage.archive import Imported, SnapshotInfo, add_imported, refer
from server.storage.policy_store import Cause, note_restored, policy_row, record_policies, set_state
from server.storage.registry_store import Change, live_router, load_entry, set_spec


def import_snapshot(router_id: str, imported: Imported) -> Callable[[Connection, int, int], SnapshotInfo]:
    """Adds a snapshot that was exported. Nothing is learned from it before it is restored."""

    def apply(connection: Connection, _seq: int, time_us: int) -> SnapshotInfo:
        row = live_router(connection, router_id)
        require_fitting(imported.stored.router, load_entry(connection, router_id).router)
        return add_imported(connection, row, imported, time_us)

    return apply


def restore_snapshot(router_id: str, snapshot_id: str, revision: int | None, cause: Cause) -> Change:
    """Goes back to a snapshot: from this position on the learner knows what it knew then.

    With one of the router's own its policy, learner, exploration and objective are those of then, too, and the
    policy that was promoted since is retired. One that was imported changes what is known and nothing else.
    """

    def change(connection: Connection, seq: int, time_us: int) -> RouterEntry | None:
        row = live_router(connection, router_id)
        if revision is not None and row.revision != revision:
            raise StaleEtagError(f"routers/{router_id}")
        restored, stored = refer(connection, row, snapshot_id)
        entry = load_entry(connection, router_id)
        before = entry.router.spec
        if restored.position is None:
            require_fitting(stored.router, entry.router)
        else:
            _require_own(stored.router, entry.router, snapshot_id)
            was = stored.router.spec
            after = replace(
                before,
                policy=was.policy,
                learner=was.learner,
                exploration=was.exploration,
                objective=was.objective,
            )
            if other_policy(before, after):
                set_spec(connection, row, after, seq, time_us)
                _retire_live(connection, entry, cause, snapshot_id, seq, time_us)
        evidence = json.dumps({"snapshot": snapshot_id, "digest": restored.digest})
        note_restored(connection, row, restored, replace(cause, evidence=evidence), seq, time_us)
        return record_policies(connection, router_id, seq, time_us, restored)

    return change


def _retire_live(
    connection: Connection, entry: RouterEntry, cause: Cause, snapshot_id: str, seq: int, time_us: int
) -> None:
    replaced = replace(cause, reason=f"snapshot {snapshot_id} is restored", evidence="{}", forced=False)
    for each in entry.policies.values():
        if each.state is PolicyState.LIVE:
            row = policy_row(connection, entry.router.id, each.spec.id, None)
            set_state(connection, row, PolicyState.RETIRED, 0.0, replaced, seq, time_us)


def require_fitting(known: Router, router: Router) -> None:
    """Raises SnapshotMisfitError if what is known of these models cannot be taken over by the router."""
    found = misfits(known, router)
    if found:
        raise SnapshotMisfitError(router.id, found)


def _require_own(known: Router, router: Router, snapshot_id: str) -> None:
    theirs, ours = known.spec.embedding_dimensions, router.spec.embedding_dimensions
    if theirs != ours:
        found = {"embedding_dimensions": f"{theirs} in the snapshot, {ours} in the router"}
        raise SnapshotMisfitError(router.id, found)
    if known.uid != router.uid:
        raise NotAllowedNowError(f"snapshot {snapshot_id} is of another routers/{router.id}, which was deleted")
