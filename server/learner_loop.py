"""The learner at work: follows the log, publishes views, saves snapshots; says so if it dies."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from sqlalchemy import Connection, delete, insert, select
from sqlalchemy.exc import SQLAlchemyError

from policy.learner import StateVersionError
from server.errors import PointsmanError
from server.learner_fold import LearnerFold, ReplayStoppedError
from server.storage.codec import dump_router
from server.storage.reader import LogReader, StoredSnapshot
from server.storage.schema import changes, snapshots
from server.storage.snapshot_ages import kept
from server.storage.writes import Transact
from server.views import OnViews, Views

logger = logging.getLogger(__name__)

_PAGE = 256
_SNAPSHOT_GAP_MAX = 100_000
_REFRESH_US = 3_600_000_000
_RETRY_SECONDS = 1.0
# A page costs about as much for one record as for fifty, and a view may be 0.2 s old.
_GATHER_SECONDS = 0.08
_SAVE_SHARE = 0.002
_SAVE_GAP_SECONDS_MAX = 15.0

Submit = Callable[[Transact], object]
"""Hands a write to the log's writer from the learner's thread and waits for it."""


class LearnerLoop:
    """Runs in a thread of its own. `notify` wakes it when something was committed.

    Views are published after every page of the log. Snapshots are saved every `snapshot_seconds` at most, and more
    rarely, up to once a minute, where saving would take more than a two-hundredth of the time, each with its
    position in one transaction. `on_health` hears whether the learner works, `on_views` what it has published.
    `position` is up to where the log is learned, and `died` whether a fault of ours has ended it. Whatever others
    write is seen after at most `idle_seconds_max`.
    """

    def __init__(
        self,
        reader: LogReader,
        views: Views,
        submit: Submit,
        clock_us: Callable[[], int],
        on_health: Callable[[bool], object],
        snapshot_seconds: float,
        on_views: OnViews = lambda _seq, _views, _settled: None,
        idle_seconds_max: float = 60.0,
    ) -> None:
        self._reader = reader
        self._views = views
        self._submit = submit
        self._clock_us = clock_us
        self._on_health = on_health
        self._on_views = on_views
        self._idle_seconds_max = idle_seconds_max
        self._snapshot_us = round(snapshot_seconds * 1e6)
        self._wake = threading.Event()
        self._stopping = False
        self._abandoned = False
        self.position = 0
        self.died = False
        self._thread = threading.Thread(target=self._run, name="learner", daemon=True)

    def start(self) -> None:
        """Starts following the log."""
        self._thread.start()

    def notify(self) -> None:
        """Says that the log has grown."""
        self._wake.set()

    def stop(self) -> None:
        """Learns what is in the log, saves a snapshot, and ends. Where the log is being learned from its beginning
        for one record it ends without: that is begun again after the next start.
        """
        self._stopping = True
        self._wake.set()
        self._thread.join()

    def abandon(self) -> None:
        """Ends soon, without saving or publishing anything more, since another learner goes on. Does not wait."""
        self._abandoned = True
        self._wake.set()

    def _run(self) -> None:
        while True:
            try:
                self._follow()
                return
            except ReplayStoppedError:
                return  # Saved is what was saved last: what comes after it is for the next start.
            except (SQLAlchemyError, OSError, PointsmanError) as error:
                if self._abandoned:
                    return
                logger.error("the learner cannot reach the log, and starts again: %s", error)
                self._on_health(False)
                if self._stopping:
                    return
                self._wake.clear()
                self._wake.wait(_RETRY_SECONDS)
            except Exception:
                logger.exception("the learner has died")
                self.died = True
                self._on_health(False)
                return

    def _follow(self) -> None:
        fold = self._open()
        saved = dict.fromkeys(fold.routers, fold.seq)
        self._publish(fold, set(fold.routers))
        due_us = self._clock_us() + self._snapshot_us
        refresh_us = self._clock_us() + _REFRESH_US
        unsaved: set[str] = set()
        healthy = False
        last: int | None = None
        while True:
            if self._stopping and last is None:
                last = self._reader.head()  # Other servers may go on writing.
            advanced = fold.advance(_PAGE)
            if self._abandoned:
                return
            unsaved |= fold.changed
            self._publish(fold, fold.changed, settled=advanced < _PAGE)
            self.position = fold.seq
            fold.changed = set()
            if not healthy and advanced < _PAGE:
                self._on_health(True)
                healthy = True
            if advanced >= _PAGE and self._clock_us() < due_us:
                continue
            finished = last is not None and fold.seq >= last
            if finished or self._clock_us() >= due_us:
                now_us = self._clock_us()
                if now_us >= refresh_us:  # The log that a router's last snapshot needs is not dropped.
                    unsaved |= {each for each in fold.routers if fold.seq > saved.get(each, 0)}
                    refresh_us = now_us + _REFRESH_US
                began = time.perf_counter()
                self._save(fold, unsaved, saved)
                unsaved = set()
                # Whoever writes meanwhile waits for it: after a slow one the next comes later.
                gap_seconds = min((time.perf_counter() - began) / _SAVE_SHARE, _SAVE_GAP_SECONDS_MAX)
                due_us = now_us + max(self._snapshot_us, round(gap_seconds * 1e6))
            if finished:
                return
            if advanced == 0:
                self._rest(fold, due_us if unsaved else None)
            elif not self._stopping:
                time.sleep(_GATHER_SECONDS)

    def _open(self) -> LearnerFold:
        try:
            return LearnerFold(self._reader, self._reader.latest_snapshots(), self._ends)
        except StateVersionError as error:
            logger.warning("the whole log is learned again: %s", error)
            return LearnerFold(self._reader, [], self._ends)

    def _ends(self) -> bool:
        return self._stopping or self._abandoned

    def _publish(self, fold: LearnerFold, routers: set[str], *, settled: bool = False) -> None:
        found = {router: ("", fold.view(router)) for router in routers}
        for router, (_, view) in found.items():
            self._views.publish(router, view)
        self._on_views(fold.seq, found, settled)

    def _rest(self, fold: LearnerFold, due_us: int | None) -> None:
        """Waits for the log to grow, a snapshot to be due, or a window to close in the quiet."""
        expiry_us = fold.next_expiry_us()
        now_us = self._clock_us()
        if expiry_us is not None and expiry_us < now_us:
            self._submit(Transact(_tick))
            return
        times = [each for each in (due_us, None if expiry_us is None else expiry_us + 1) if each]
        seconds = min((each - now_us) * 1e-6 for each in times) if times else self._idle_seconds_max
        self._wake.wait(min(max(seconds, 0.001), self._idle_seconds_max))
        if not self._stopping:
            time.sleep(_GATHER_SECONDS)
        self._wake.clear()

    def _save(self, fold: LearnerFold, routers: set[str], saved: dict[str, int]) -> None:
        """Saves what changed, and what has not for so long that a restart would read too much."""
        stale = {each for each in fold.routers if fold.seq - saved.get(each, 0) > _SNAPSHOT_GAP_MAX}
        due = sorted(routers | stale)
        if due:
            # In one transaction: a restart reads on from the oldest of the newest snapshots.
            stores = [_store(router, fold.seq, fold.snapshot(router)) for router in due]
            self._submit(Transact(_each(stores), logs=False))
            saved.update(dict.fromkeys(due, fold.seq))
            for router in saved.keys() - set(fold.routers):
                del saved[router]


def _tick(connection: Connection, seq: int, time_us: int) -> None:
    connection.execute(insert(changes).values(seq=seq, time_us=time_us, kind="tick", router=""))


def _each(parts: list[Callable[[Connection, int, int], None]]) -> Callable[[Connection, int, int], None]:
    def apply(connection: Connection, seq: int, time_us: int) -> None:
        for part in parts:
            part(connection, seq, time_us)

    return apply


def _store(router: str, seq: int, snapshot: StoredSnapshot | None) -> Callable[[Connection, int, int], None]:
    """Stores the newest snapshot and thins out those before it; drops all of a router that is not there at `seq`.

    Where another learner has come further already, it leaves what that has saved.
    """

    def apply(connection: Connection, _seq: int, time_us: int) -> None:
        mine = snapshots.c.router == router
        if snapshot is None:
            connection.execute(delete(snapshots).where(mine, snapshots.c.seq <= seq))
            return
        if connection.execute(select(snapshots.c.seq).where(mine, snapshots.c.seq > seq).limit(1)).first():
            return
        connection.execute(delete(snapshots).where(mine, snapshots.c.seq == snapshot.seq))
        connection.execute(
            insert(snapshots).values(
                router=router,
                seq=snapshot.seq,
                time_us=time_us,
                closed_through_us=snapshot.closed_through_us,
                payload=dump_router(snapshot.router),
                state=snapshot.state,
            )
        )
        saved = select(snapshots.c.seq, snapshots.c.time_us).where(mine).order_by(snapshots.c.seq)
        keep = kept([(row.seq, row.time_us) for row in connection.execute(saved)], time_us)
        connection.execute(delete(snapshots).where(mine, snapshots.c.seq.not_in(sorted(keep))))

    return apply
