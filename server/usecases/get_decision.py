"""GetDecision: reads one decision with what was reported of it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from policy.join import Joined, joined
from policy.log import DecisionRecord, ReportRecord
from server.errors import DecisionNotFoundError
from server.storage.reader import LogReader


@dataclass(frozen=True, slots=True)
class JoinedDecision:
    """A decision, its reports in order of arrival, and what they come to."""

    decision: DecisionRecord
    reports: list[ReportRecord]
    joined: Joined


class GetDecision:
    """Reads the log by decision id."""

    def __init__(self, reader: LogReader) -> None:
        self._reader = reader

    async def __call__(self, decision_id: str) -> JoinedDecision:
        """The decision and its reports. Raises DecisionNotFoundError."""
        return await asyncio.to_thread(self._read, decision_id)

    def _read(self, decision_id: str) -> JoinedDecision:
        decision = self._reader.decision(decision_id)
        if decision is None:
            raise DecisionNotFoundError(decision_id[:64])
        reports = self._reader.reports([decision_id]).get(decision_id, [])
        return JoinedDecision(decision, reports, joined(decision.deferred, reports))
