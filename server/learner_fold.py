"""Folds the log into what follows it for each router: the same records give the same states, bit for bit."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeVar

from policy.domain import LearnerKind, Router
from policy.join import Joined, joined
from policy.learner import RouterLearner, StateVersionError
from policy.log import DecisionRecord, LogRecord, RegistryRecord, ReportRecord
from policy.promotion import PolicyRecord, Restored
from policy.view import PolicyView
from server.storage.reader import LogDroppedError, LogReader, StoredSnapshot
from server.storage.tail import LogPage

_RECENT_DECISIONS = 20_000
_CLOSING_CHUNK = 1000
_REPLAY_PAGE = 1000


class ReplayStoppedError(Exception):
    """The log was to be learned from its beginning, and whoever wants that known is to end."""


class Follower(Protocol):
    """What follows the log of one router."""

    def on_registry(self, router: Router) -> None:
        """The router or its models have changed."""
        ...

    def on_decision(self, decision: DecisionRecord) -> None:
        """A decision was logged."""
        ...

    def on_report(self, report: ReportRecord, decision: DecisionRecord) -> None:
        """A report on one of the router's decisions was logged."""
        ...

    def on_close(self, decision: DecisionRecord, joined: Joined) -> None:
        """A decision's window has closed."""
        ...


@dataclass(frozen=True, slots=True)
class Position:
    """How far a follower has come: it has followed `seq`, and the windows that ended up to `closed_through_us`."""

    seq: int
    closed_through_us: int


F = TypeVar("F", bound=Follower)


class LogFold(ABC, Generic[F]):
    """What follows the logs of all routers, at one position.

    Windows close by the log's own time, just before the first record that is later than their end,
    so that neither the clock nor the size of a page has any part in what is followed.
    """

    def __init__(self, reader: LogReader, followers: Mapping[str, tuple[F, Position]]) -> None:
        self._reader = reader
        self._recent: OrderedDict[str, DecisionRecord] = OrderedDict()
        self._followers = {router: follower for router, (follower, _) in followers.items()}
        self._followed_upto = {router: position.seq for router, (_, position) in followers.items()}
        self._closed_upto = {router: position.closed_through_us for router, (_, position) in followers.items()}
        self.seq = min(self._followed_upto.values(), default=0)
        self.closed_through_us = min(self._closed_upto.values(), default=0)
        self._fetched_through_us = self.closed_through_us
        self._closing: deque[tuple[DecisionRecord, list[ReportRecord]]] = deque()
        # No window that is still to be fetched ends before this; asking the log at every record would be slow.
        self._next_expiry_us: float = 0
        # Who begins at the beginning takes the log as it is; a saved state has followed all that was dropped.
        self._floor: int | None = 0 if followers else None
        self.changed: set[str] = set()

    @property
    def routers(self) -> list[str]:
        """The routers that are followed."""
        return sorted(self._followers)

    def follower(self, router: str) -> F | None:
        """What follows the router, or None."""
        return self._followers.get(router)

    def advance(self, limit: int, upto: int | None = None) -> int:
        """Follows the next records, about `limit` positions and none above `upto`; gives how many positions.

        Raises LogDroppedError if some of them were dropped since the first were followed.
        """
        return self.follow(self.read(limit, upto))

    def read(self, limit: int, upto: int | None = None) -> LogPage:
        """The records that `advance` would follow, for `follow`: with the reading done, nothing else is yet.

        Raises as `advance` does.
        """
        limit = max(limit, (self._floor or 0) - self.seq)  # Hardly anything is left below it.
        if upto is not None:
            limit = min(limit, upto - self.seq)
        page = self._reader.page(self.seq, limit)
        if self._floor is None:
            self._floor = page.floor
        if page.floor > max(self._floor, self.seq):
            raise LogDroppedError(f"the log was dropped up to {page.floor}, while it was read from {self.seq}")
        self._prefetch(page)
        return page

    def follow(self, page: LogPage) -> int:
        """Follows what was `read`; gives how many positions."""
        for record in page.records:
            self._close_windows(record.time_us)
            self._apply(record)
        advanced = page.upto - self.seq
        self.seq = page.upto
        self._forget_old()
        return advanced

    def next_expiry_us(self) -> int | None:
        """When the next window closes, None if none is open."""
        if self._closing:
            return self._closing[0][0].expire_us
        if not self._next_expiry_us:
            return self._reader.next_expiry_us(self._fetched_through_us)
        return None if math.isinf(self._next_expiry_us) else int(self._next_expiry_us)

    def _prefetch(self, page: LogPage) -> None:
        """Reads what the page's records refer to, so that each page costs a few queries."""
        inside = {each.decision_id for each in page.records if isinstance(each, DecisionRecord)}
        missing = {
            each.decision_id
            for each in page.records
            if isinstance(each, ReportRecord)
            and each.decision_id not in self._recent
            and each.decision_id not in inside
        }
        for decision in self._reader.decisions(sorted(missing)).values():
            self._remember(decision)

    def _remember(self, decision: DecisionRecord) -> None:
        self._recent[decision.decision_id] = decision

    def _forget_old(self) -> None:
        while len(self._recent) > _RECENT_DECISIONS:
            self._recent.popitem(last=False)

    def _apply(self, record: LogRecord) -> None:
        if isinstance(record, DecisionRecord):
            self._remember(record)
            if record.expire_us:  # An imported decision has no window.
                self._next_expiry_us = min(self._next_expiry_us, record.expire_us)
            follower = self._follower_at(record.router, record.seq)
            if follower is not None:
                follower.on_decision(record)
                self.changed.add(record.router)
        elif isinstance(record, ReportRecord):
            decision = self._recent.get(record.decision_id)
            if decision is None:
                raise LogDroppedError(f"decision {record.decision_id} was dropped while its reports were read")
            follower = self._follower_at(decision.router, record.seq)
            if follower is not None:
                follower.on_report(record, decision)
                self.changed.add(decision.router)
        elif isinstance(record, RegistryRecord):
            self._change_router(record)

    def _follower_at(self, router: str, seq: int) -> F | None:
        """What follows the router, unless it knows this record already by its saved state."""
        if seq <= self._followed_upto.get(router, 0):
            return None
        return self._followers.get(router)

    def _change_router(self, record: RegistryRecord) -> None:
        if record.seq <= self._followed_upto.get(record.router_id, 0):
            return
        self.changed.add(record.router_id)
        if record.router is None:
            self._followers.pop(record.router_id, None)
            return
        follower = self._followers.get(record.router_id)
        if follower is None:
            self._followers[record.router_id] = self._begin(record.router)
        else:
            self._followers[record.router_id] = self._changed(follower, record.router, record)

    @abstractmethod
    def _begin(self, router: Router) -> F:
        """What follows a router that is new."""

    @abstractmethod
    def _changed(self, follower: F, router: Router, record: RegistryRecord) -> F:
        """What follows the router from here on, which has become this."""

    def _close_windows(self, now_us: int) -> None:
        """Closes every window that ended before `now_us`."""
        while True:
            if not self._closing and self._next_expiry_us < now_us:
                self._fetch_closing(now_us - 1)
            if not self._closing or self._closing[0][0].expire_us >= now_us:
                break
            decision, reports = self._closing.popleft()
            follower = self._followers.get(decision.router)
            if follower is not None and decision.expire_us > self._closed_upto.get(decision.router, 0):
                follower.on_close(decision, joined(decision.deferred, reports))
                self.changed.add(decision.router)
        self.closed_through_us = max(self.closed_through_us, now_us - 1)

    def _fetch_closing(self, upto_us: int) -> None:
        """Reads the decisions whose windows end next, with all the reports they will ever join."""
        found = self._reader.expired(self._fetched_through_us, upto_us, _CLOSING_CHUNK)
        reports = self._reader.reports([each.decision_id for each in found])
        self._closing.extend((each, reports.get(each.decision_id, [])) for each in found)
        complete = len(found) <= _CLOSING_CHUNK
        self._fetched_through_us = upto_us if complete else found[-1].expire_us
        following = self._reader.next_expiry_us(self._fetched_through_us)
        self._next_expiry_us = math.inf if following is None else following


class LearnerFold(LogFold[RouterLearner]):
    """The learners of all routers at one position of the log.

    Where the log has to be learned from its beginning for one record, `advance` raises ReplayStoppedError once it
    is `stopping`. The fold is then of no more use: a part of a page was followed.
    """

    def __init__(
        self,
        reader: LogReader,
        snapshots: list[StoredSnapshot],
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        restored = {each.router.id: RouterLearner.restore(each.router, each.state) for each in snapshots}
        positions = {each.router.id: Position(each.seq, each.closed_through_us) for each in snapshots}
        super().__init__(reader, {router: (restored[router], positions[router]) for router in restored})
        self._stopping = stopping

    def view(self, router: str) -> PolicyView | None:
        """What decisions of this router are to be made with now; None once it was deleted.

        Its position is the router's own: after a restart that may be ahead of where the other routers' are.
        """
        learner = self._followers.get(router)
        position = max(self.seq, self._followed_upto.get(router, 0))
        return None if learner is None else learner.view(position)

    def learner(self, router: str) -> RouterLearner | None:
        """The router's learner, or None."""
        return self.follower(router)

    def snapshot(self, router: str) -> StoredSnapshot | None:
        """The router's whole state at this position; None once it was deleted."""
        learner = self._followers.get(router)
        if learner is None:
            return None
        return StoredSnapshot(learner.router, self.seq, self.closed_through_us, learner.state())

    def _begin(self, router: Router) -> RouterLearner:
        return RouterLearner(router)

    def _changed(self, follower: RouterLearner, router: Router, record: RegistryRecord) -> RouterLearner:
        if isinstance(record, PolicyRecord):
            if record.restored is not None and self._recall(follower, router, record.restored):
                return follower
            if router == follower.router:
                return follower  # A candidate that comes or goes changes nothing of what is learned.
            if router.spec.learner is not follower.router.spec.learner:
                follower = learned_as(self._reader, follower.router, router.spec.learner, record, self._stopping)
        follower.on_registry(router)
        return follower

    def _recall(self, follower: RouterLearner, router: Router, restored: Restored) -> bool:
        """Goes back to a snapshot; says whether that could be.

        It cannot for one of another kind of learner, which only a learner that is imagined meets (`learned_as`):
        that goes on with all it has learned. Nor for one that was imported from another version: then the learner
        begins anew with what is reported from here on.
        """
        stored = self._reader.recalled(router.uid, restored)
        if stored.router.spec.learner is not router.spec.learner:
            return False
        try:
            known = RouterLearner.restore(stored.router, stored.state)
        except StateVersionError:
            known = self._relearned(router, restored)
        follower.recall(router, known, own=restored.position is not None)
        return True

    def _relearned(self, router: Router, restored: Restored) -> RouterLearner:
        """What was saved by another version, learned from the log again, so far as it is in the log."""
        if restored.position is None:
            return RouterLearner(router)
        fold = _Replay(self._reader.without_tail(), self._stopping)
        return fold.learned(router.id, restored.position)


class _Replay(LearnerFold):
    """The learners of all routers from the log's beginning on, until it is `stopping`."""

    def __init__(self, reader: LogReader, stopping: Callable[[], bool]) -> None:
        super().__init__(reader, [], stopping)

    def learned(self, router: str, upto: int) -> RouterLearner:
        """The router's learner once it knows all up to a position. Raises LogDroppedError, ReplayStoppedError."""
        while self.seq < upto and self.advance(_REPLAY_PAGE, upto):
            self._require_wanted()
        return self._followers[router]

    def _fetch_closing(self, upto_us: int) -> None:
        self._require_wanted()  # Between two records there may be millions of windows that end.
        super()._fetch_closing(upto_us)

    def _require_wanted(self) -> None:
        if self._stopping():
            raise ReplayStoppedError


class _OneKind(_Replay):
    """The learner of one router, as if it had been of this kind from the beginning."""

    def __init__(self, reader: LogReader, router: Router, kind: LearnerKind, stopping: Callable[[], bool]) -> None:
        super().__init__(reader, stopping)
        self._of = router
        self._kind = kind

    def before(self, record: RegistryRecord) -> RouterLearner:
        """Learns all that was before a record of the router's."""
        learner = self.learned(self._of.id, record.seq - 1)
        self._close_windows(record.time_us)
        return learner

    def _change_router(self, record: RegistryRecord) -> None:
        if record.router_id == self._of.id:
            super()._change_router(record)

    def _begin(self, router: Router) -> RouterLearner:
        return super()._begin(self._as_kind(router))

    def _changed(self, follower: RouterLearner, router: Router, record: RegistryRecord) -> RouterLearner:
        return super()._changed(follower, self._as_kind(router), record)

    def _as_kind(self, router: Router) -> Router:
        return replace(router, spec=replace(router.spec, learner=self._kind))


def learned_as(
    reader: LogReader,
    router: Router,
    kind: LearnerKind,
    record: RegistryRecord,
    stopping: Callable[[], bool],
) -> RouterLearner:
    """What a learner of this kind knows of the router just before a record, learned from the log's beginning.

    So a policy that is promoted, with another kind of learner than the router had, begins with all that was
    ever reported, and rebuilding it gives the same bits. It takes as long as learning the log does.
    Raises ReplayStoppedError as soon as it is `stopping`.
    """
    return _OneKind(reader.without_tail(), router, kind, stopping).before(record)
