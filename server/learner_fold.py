"""Folds the log into the routers' learners: the same records always give the same states, bit for bit."""

from __future__ import annotations

import math
from collections import OrderedDict, deque

from policy.join import joined
from policy.learner import RouterLearner
from policy.log import DecisionRecord, LogRecord, RegistryRecord, ReportRecord
from policy.view import PolicyView
from server.storage.reader import LogReader, StoredSnapshot
from server.storage.tail import LogPage

_RECENT_DECISIONS = 20_000
_CLOSING_CHUNK = 1000


class LearnerFold:
    """The learners of all routers at one position of the log.

    Windows close by the log's own time, just before the first record that is later than their end,
    so that neither the clock nor the size of a page has any part in what is learned.
    """

    def __init__(self, reader: LogReader, snapshots: list[StoredSnapshot]) -> None:
        self._reader = reader
        self._recent: OrderedDict[str, DecisionRecord] = OrderedDict()
        self._learners = {each.router.id: RouterLearner.restore(each.router, each.state) for each in snapshots}
        self._learned_upto = {each.router.id: each.seq for each in snapshots}
        self._closed_upto = {each.router.id: each.closed_through_us for each in snapshots}
        self.seq = min(self._learned_upto.values(), default=0)
        self.closed_through_us = min(self._closed_upto.values(), default=0)
        self._fetched_through_us = self.closed_through_us
        self._closing: deque[tuple[DecisionRecord, list[ReportRecord]]] = deque()
        # No window that is still to be fetched ends before this; asking the log at every record would be slow.
        self._next_expiry_us: float = 0
        self.changed: set[str] = set()

    @property
    def routers(self) -> list[str]:
        """The routers that have a learner."""
        return sorted(self._learners)

    def view(self, router: str) -> PolicyView | None:
        """What decisions of this router are to be made with now; None once it was deleted."""
        learner = self._learners.get(router)
        return None if learner is None else learner.view(self.seq)

    def learner(self, router: str) -> RouterLearner | None:
        """The router's learner, or None."""
        return self._learners.get(router)

    def snapshot(self, router: str) -> StoredSnapshot | None:
        """The router's whole state at this position; None once it was deleted."""
        learner = self._learners.get(router)
        if learner is None:
            return None
        return StoredSnapshot(learner.router, self.seq, self.closed_through_us, learner.state())

    def advance(self, limit: int, upto: int | None = None) -> int:
        """Learns the next records, at most `limit` positions and none above `upto`; gives how many positions."""
        if upto is not None:
            limit = min(limit, upto - self.seq)
        page = self._reader.page(self.seq, limit)
        self._prefetch(page)
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
            learner = self._learner_at(record.router, record.seq)
            if learner is not None:
                learner.on_decision(record)
                self.changed.add(record.router)
        elif isinstance(record, ReportRecord):
            decision = self._recent[record.decision_id]
            learner = self._learner_at(decision.router, record.seq)
            if learner is not None:
                learner.on_report(record, decision)
                self.changed.add(decision.router)
        elif isinstance(record, RegistryRecord):
            self._change_router(record)

    def _learner_at(self, router: str, seq: int) -> RouterLearner | None:
        """The router's learner, unless its snapshot knows this record already."""
        if seq <= self._learned_upto.get(router, 0):
            return None
        return self._learners.get(router)

    def _change_router(self, record: RegistryRecord) -> None:
        if record.seq <= self._learned_upto.get(record.router_id, 0):
            return
        self.changed.add(record.router_id)
        if record.router is None:
            self._learners.pop(record.router_id, None)
            return
        learner = self._learners.get(record.router_id)
        if learner is None:
            self._learners[record.router_id] = RouterLearner(record.router)
        else:
            learner.on_registry(record.router)

    def _close_windows(self, now_us: int) -> None:
        """Closes every window that ended before `now_us`."""
        while True:
            if not self._closing and self._next_expiry_us < now_us:
                self._fetch_closing(now_us - 1)
            if not self._closing or self._closing[0][0].expire_us >= now_us:
                break
            decision, reports = self._closing.popleft()
            learner = self._learners.get(decision.router)
            if learner is not None and decision.expire_us > self._closed_upto.get(decision.router, 0):
                learner.on_close(decision, joined(decision.deferred, reports))
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
