"""GetDecision: reads one decision with what was reported of it, and explains it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from policy.explanation import Explanation, explain
from policy.join import Joined, joined
from policy.log import DecisionRecord, ReportRecord
from server.errors import DecisionNotFoundError
from server.registry import Registry
from server.storage.bounded_reads import BoundedReads
from server.storage.reader import LogReader
from server.usecases.report_reward import require_decision_id
from server.views import Views


@dataclass(frozen=True, slots=True)
class JoinedDecision:
    """A decision, its reports in order of arrival, what they come to, and why it was made."""

    decision: DecisionRecord
    reports: list[ReportRecord]
    joined: Joined
    explanation: Explanation


class GetDecision:
    """Reads the log by decision id; explains with the newest view, as the decision's own is not kept."""

    def __init__(self, reader: LogReader, reads: BoundedReads, registry: Registry, views: Views) -> None:
        self._reader = reader
        self._reads = reads
        self._registry = registry
        self._views = views

    async def __call__(self, decision_id: str, permitted: frozenset[str] | None = None) -> JoinedDecision:
        """The decision and its reports.

        Raises DecisionNotFoundError, also for a decision of a router that is not among the `permitted`, if given,
        StorageUnavailableError.
        """
        require_decision_id(decision_id)
        decision, reports = await self._reads(partial(self._read, decision_id, permitted))
        # Not in that thread: a view is for the one that routes.
        explanation = self._explain(decision)
        return JoinedDecision(decision, reports, joined(decision.deferred, reports), explanation)

    def _read(
        self, decision_id: str, permitted: frozenset[str] | None
    ) -> tuple[DecisionRecord, list[ReportRecord]]:
        decision = self._reader.decision(decision_id)
        if decision is None or (permitted is not None and decision.router not in permitted):
            raise DecisionNotFoundError(decision_id)
        return decision, self._reader.reports([decision_id]).get(decision_id, [])

    def _explain(self, decision: DecisionRecord) -> Explanation:
        router = self._registry.router(decision.router)
        return explain(decision, router, None if router is None else self._views.get(router))
