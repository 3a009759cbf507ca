"""Saved states of learners that stay: those that records of the log refer to, and imported ones."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

from sqlalchemy import ColumnElement, Connection, Engine, delete, func, insert, select, update

from policy.domain import LearnerKind
from policy.learner import STATE_VERSION
from policy.promotion import Restored
from policy.recall import state_version
from server.errors import NotAllowedNowError, SnapshotNotFoundError
from server.storage.codec import AnyRow, dump_router, load_router
from server.storage.reader import StoredSnapshot
from server.storage.schema import snapshot_archive as archive
from server.storage.schema import snapshots

_IMPORTS_KEPT = 3
_OWN_KEPT = 3


@dataclass(frozen=True, slots=True)
class SnapshotInfo:
    """Of a saved state: its id, when it was saved, its size in bytes, and what it was if it was imported."""

    id: str
    time_us: int
    size: int
    source: str = ""


@dataclass(frozen=True, slots=True)
class Imported:
    """A state that was learned elsewhere. `stored.router` has the models that it knows; `source` is its name."""

    stored: StoredSnapshot
    source: str

    @property
    def id(self) -> str:
        """By what it holds, so that it is the same however often it is imported."""
        return f"import-{digest_of(self.stored.state)[:16]}"


def digest_of(state: bytes) -> str:
    """The SHA-256 of a state in hexadecimal."""
    return sha256(state).hexdigest()


def list_snapshots(engine: Engine, router_id: str, router_uid: int) -> list[SnapshotInfo]:
    """The router's snapshots, oldest first, without what they hold."""
    with engine.execution_options(read_only=True).connect() as connection:
        size = func.length(snapshots.c.state).label("size")
        saved = select(snapshots.c.seq, snapshots.c.time_us, size).where(snapshots.c.router == router_id)
        found = {
            str(row.seq): SnapshotInfo(str(row.seq), row.time_us, row.size) for row in connection.execute(saved)
        }
        size = func.length(archive.c.state).label("size")
        kept = select(archive.c.id, archive.c.time_us, archive.c.source, size)
        for row in connection.execute(kept.where(archive.c.router_uid == router_uid)):
            found.setdefault(row.id, SnapshotInfo(row.id, row.time_us, row.size, row.source))
    return sorted(found.values(), key=lambda each: (each.time_us, each.id))


def read_snapshot(engine: Engine, router_id: str, router_uid: int, snapshot_id: str) -> StoredSnapshot:
    """A snapshot with its state. Raises SnapshotNotFoundError."""
    with engine.execution_options(read_only=True).connect() as connection:
        row = _archived(connection, router_uid, snapshot_id) or _saved(connection, router_id, snapshot_id)
    if row is None:
        raise SnapshotNotFoundError(router_id, snapshot_id)
    return StoredSnapshot(load_router(row.payload), row.seq or 0, row.closed_through_us, row.state)


def add_imported(connection: Connection, router: AnyRow, imported: Imported, time_us: int) -> SnapshotInfo:
    """Adds an imported state, once; of those that nothing refers to the last few stay."""
    stored = imported.stored
    if _archived(connection, router.uid, imported.id) is None:
        _add(connection, router, imported.id, None, stored, imported.source, time_us)
    _thin_out(connection, router, archive.c.seq.is_(None), _IMPORTS_KEPT)
    return SnapshotInfo(imported.id, time_us, len(stored.state), imported.source)


def keep_newest(connection: Connection, router: AnyRow) -> None:
    """Keeps the router's newest snapshot to go back to, however soon others follow it; of such the last few."""
    query = select(snapshots).where(snapshots.c.router == router.id).order_by(snapshots.c.seq.desc()).limit(1)
    row = connection.execute(query).one_or_none()
    if row is None or _archived(connection, router.uid, str(row.seq)) is not None:
        return
    stored = StoredSnapshot(load_router(row.payload), row.seq, row.closed_through_us, row.state)
    if stored.router.uid == router.uid:
        _add(connection, router, str(row.seq), row.seq, stored, "", row.time_us)
        _thin_out(connection, router, archive.c.seq.is_not(None), _OWN_KEPT)


def _thin_out(connection: Connection, router: AnyRow, which: ColumnElement[bool], count: int) -> None:
    """Of those that no record refers to the newest stay."""
    loose = (archive.c.router_uid == router.uid, archive.c.referred.is_(False), which)
    newest = select(archive.c.id).where(*loose).order_by(archive.c.time_us.desc(), archive.c.id).limit(count)
    keep = list(connection.execute(newest).scalars())
    connection.execute(delete(archive).where(*loose, archive.c.id.not_in(keep)))


def refer(connection: Connection, router: AnyRow, snapshot_id: str) -> tuple[Restored, StoredSnapshot]:
    """Keeps a snapshot for ever, for the record of the log that goes back to it.

    Raises SnapshotNotFoundError, and NotAllowedNowError for one that this version cannot read.
    """
    row = _archived(connection, router.uid, snapshot_id)
    saved = None if row is not None else _saved(connection, router.id, snapshot_id)
    found = saved if row is None else row
    if found is None:
        raise SnapshotNotFoundError(router.id, snapshot_id)
    version = state_version(found.state)
    if version != STATE_VERSION:
        raise NotAllowedNowError(
            f"snapshot {snapshot_id} has state_version {version}, and this server {STATE_VERSION}",
            {"state_version": f"{version} in the snapshot, {STATE_VERSION} in the server"},
        )
    stored = StoredSnapshot(load_router(found.payload), found.seq or 0, found.closed_through_us, found.state)
    if saved is not None:
        _add(connection, router, snapshot_id, saved.seq, stored, "", saved.time_us)
    mine = (archive.c.router_uid == router.uid, archive.c.id == snapshot_id)
    connection.execute(update(archive).where(*mine).values(referred=True))
    return Restored(snapshot_id, digest_of(stored.state), found.seq), stored


def last_good(connection: Connection, router: AnyRow, before: int, kind: LearnerKind) -> str:
    """The newest snapshot of the router up to this position by this kind of learner; empty if there is none that
    this version can read.
    """
    saved = select(snapshots.c.seq).where(snapshots.c.router == router.id, snapshots.c.seq <= before)
    kept = select(archive.c.seq).where(archive.c.router_uid == router.uid, archive.c.seq <= before)
    positions = {*connection.execute(saved).scalars(), *connection.execute(kept).scalars()}
    for seq in sorted(positions, reverse=True):
        row = _archived(connection, router.uid, str(seq)) or _saved(connection, router.id, str(seq))
        of = load_router(row.payload) if row is not None else None
        if row is None or of is None or of.uid != router.uid or of.spec.learner is not kind:
            continue
        if state_version(row.state) == STATE_VERSION:
            return str(seq)
    return ""


def _archived(connection: Connection, router_uid: int, snapshot_id: str) -> AnyRow | None:
    mine = (archive.c.router_uid == router_uid, archive.c.id == snapshot_id)
    return connection.execute(select(archive).where(*mine)).one_or_none()


def _saved(connection: Connection, router_id: str, snapshot_id: str) -> AnyRow | None:
    if not snapshot_id.isascii() or not snapshot_id.isdigit() or len(snapshot_id) > 18:
        return None
    mine = (snapshots.c.router == router_id, snapshots.c.seq == int(snapshot_id))
    return connection.execute(select(snapshots).where(*mine)).one_or_none()


def _add(
    connection: Connection,
    router: AnyRow,
    snapshot_id: str,
    seq: int | None,
    stored: StoredSnapshot,
    source: str,
    time_us: int,
) -> None:
    connection.execute(
        insert(archive).values(
            router_uid=router.uid,
            id=snapshot_id,
            router=router.id,
            seq=seq,
            time_us=time_us,
            closed_through_us=stored.closed_through_us,
            source=source,
            digest=digest_of(stored.state),
            referred=False,
            payload=dump_router(stored.router),
            state=stored.state,
        )
    )
