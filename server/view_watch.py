"""Follows what other servers on one database publish: views, and changes of the registry."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from policy.view_state import ViewVersionError, load_view
from server.errors import PointsmanError
from server.storage.engine import open_reading
from server.storage.notices import LEARNED
from server.storage.session import Session, SessionLostError, open_session
from server.storage.view_store import Board, StoredView, ViewKey, read_board, read_views
from server.views import CandidateViews, Views

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 0.5
_GATHER_SECONDS = 0.1
_LATE_SECONDS = 10.0
_STOP_SECONDS = 5.0


class ViewWatch:
    """A thread of its own. It looks when it is told that there is something, and twice a second if it is not.

    Views are taken while this server does not learn itself, as `takes_views` says. `on_registry` takes over one
    router that was changed; where it raises it is given that one again at the next look, and what is of other
    routers goes on. `on_looked` is called after every look.
    """

    def __init__(
        self,
        engine: Engine,
        views: Views,
        candidate_views: CandidateViews,
        clock_us: Callable[[], int],
        takes_views: Callable[[], bool],
        on_registry: Callable[[str], object],
        on_looked: Callable[[], object],
    ) -> None:
        self._engine = engine
        self._reading = open_reading(engine)
        self._views = views
        self._candidate_views = candidate_views
        self._clock_us = clock_us
        self._takes_views = takes_views
        self._on_registry = on_registry
        self._on_looked = on_looked
        self._changes_upto = 0
        self._changed: set[str] = set()
        self._misread: set[str] = set()
        self._taken: dict[ViewKey, int] = {}
        self._board = Board(0, set(), {}, None)
        self._learned_upto = -1
        self._moved = time.monotonic()
        self._late = False
        self._failing = False
        self._refused: set[ViewKey] = set()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="view-watch", daemon=True)

    def start(self, changes_upto: int) -> None:
        """Follows from here on what was changed in the registry above this position of the log."""
        self._changes_upto = changes_upto
        self._thread.start()

    def stop(self) -> None:
        """Ends."""
        self._stopping.set()
        if self._thread.is_alive():
            # It may wait for a database that does not answer; the process ends without it then.
            self._thread.join(_STOP_SECONDS)

    @property
    def unlearned(self) -> int:
        """How many positions of the log the learner had still to learn, when it was last looked."""
        learner = self._board.learner
        return max(0, self._board.head - (learner.seq if learner else 0))

    @property
    def learner(self) -> str:
        """Which process has published last how far it has learned; empty before any."""
        return self._board.learner.holder if self._board.learner else ""

    @property
    def late(self) -> bool:
        """Whether the log has grown, and nothing of it has been learned for some seconds."""
        return self._late

    def knows(self, routers: Iterable[str]) -> bool:
        """Whether of each of these routers a view was published, and is taken."""
        keys = [(router, False) for router in routers]
        return all(key in self._taken and key not in self._refused for key in keys)

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                session = open_session(self._engine)
                try:
                    session.listen(LEARNED)
                    self._listen(session)
                finally:
                    session.close()
            except SessionLostError:
                # Without it all goes on, a little later.
                self._look()
                self._stopping.wait(_LOOK_SECONDS)

    def _listen(self, session: Session) -> None:
        while not self._stopping.is_set():
            session.check()
            self._look()
            if session.heard(_LOOK_SECONDS):
                self._stopping.wait(_GATHER_SECONDS)  # What is told together is looked for together.

    def _look(self) -> None:
        """Takes over all that is new. Never raises: what cannot be read is looked for again."""
        try:
            self._board = board = read_board(self._reading, self._changes_upto)
            self._changed |= board.changed
            self._changes_upto = board.head
            self._take_registry()
            if self._takes_views():
                self._take(board.positions)
            self._failing = False
        except (SQLAlchemyError, OSError, PointsmanError) as error:
            if not self._failing:
                logger.warning("what other servers publish cannot be read: the last views stay: %s", error)
            self._failing = True
        except Exception:  # A fault of ours must not end what the decisions need.
            if not self._failing:
                logger.exception("what other servers publish was not taken over")
            self._failing = True
        self._say_if_late()
        self._on_looked()

    def _take_registry(self) -> None:
        """Raises what is no fault of one router: where storage is away none can be read."""
        for router in sorted(self._changed):
            try:
                self._on_registry(router)
            except (SQLAlchemyError, OSError):
                raise
            except Exception:  # Such as a spec of a newer version.
                if router not in self._misread:
                    logger.exception("routers/%s stays as it was: its change cannot be taken over", router)
                self._misread.add(router)
            else:
                self._changed.discard(router)
                self._misread.discard(router)

    def _take(self, positions: Mapping[ViewKey, int]) -> None:
        wanted = {key for key, seq in positions.items() if self._taken.get(key, -1) < seq}
        if not wanted:
            return
        for found in read_views(self._reading, wanted):
            try:
                self._put(found)
                self._refused.discard(found.key)
            except Exception as error:  # A view that is damaged, say, must not keep the others from being taken.
                if found.key not in self._refused:
                    damaged = not isinstance(error, ViewVersionError)
                    logger.warning("routers/%s keeps its last view: %s", found.router, error, exc_info=damaged)
                self._refused.add(found.key)
            self._taken[found.key] = found.seq

    def _put(self, found: StoredView) -> None:
        view = None if found.state is None else load_view(found.state)
        if found.canary:
            self._candidate_views.publish(found.router, found.candidate, view)
        else:
            self._views.publish(found.router, view, max(0.0, (self._clock_us() - found.time_us) * 1e-6))

    def _say_if_late(self) -> None:
        """Says once that the log grows and is not learned, and once that it is again."""
        now = time.monotonic()
        seq = self._board.learner.seq if self._board.learner else -1
        if seq != self._learned_upto or not self.unlearned:
            self._learned_upto, self._moved = seq, now
            if self._late:
                logger.warning("the log is learned again")
            self._late = False
        elif now - self._moved > _LATE_SECONDS and not self._late:
            logger.warning(
                "nobody has learned for %.0f s, and %d positions of the log are new: decisions go on with what "
                "was known then",
                now - self._moved,
                self.unlearned,
            )
            self._late = True
