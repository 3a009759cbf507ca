"""Writes the decisions of a simulation as rows, which `pointsman evaluate` and `pointsman import` read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import BinaryIO

import msgspec

from policy.choices import Candidate
from policy.domain import Router
from policy.join import Joined
from policy.log import DecisionRecord, ReportRecord
from server.rows.row import CandidateRow, Row


class LogWriter:
    """Follows a simulation in which all that comes of a decision comes at once.

    `prompts` are those of the decisions, in their order.
    """

    def __init__(self, out: BinaryIO, prompts: Sequence[str]) -> None:
        self._out = out
        self._prompts = iter(prompts)

    def on_registry(self, router: Router) -> None: ...

    def on_decision(self, decision: DecisionRecord) -> None: ...

    def on_report(self, report: ReportRecord, decision: DecisionRecord) -> None:
        """Writes the row. Raises OSError if it cannot."""
        choice, usage = decision.choice, report.usage
        row = Row(
            request_id=decision.decision_id,
            time=decision.time_us / 1e6,
            prompt=next(self._prompts),
            model=choice.model,
            propensity=choice.probability,
            candidates=[_candidate(each) for each in choice.candidates],
            price_of_money=choice.price_of_money,
            reward=report.learned_reward,
            cost_usd=report.charged_usd,
            input_tokens=usage.input_tokens or None if usage else None,
            output_tokens=usage.output_tokens or None if usage else None,
        )
        self._out.write(msgspec.json.encode(row) + b"\n")

    def on_close(self, decision: DecisionRecord, joined: Joined) -> None: ...


def _candidate(candidate: Candidate) -> CandidateRow:
    return CandidateRow(
        model=candidate.model,
        propensity=candidate.probability,
        quality=candidate.quality,
        cost_usd=candidate.cost_usd,
        score=candidate.score,
        excluded=candidate.exclusion is not None or None,
    )
