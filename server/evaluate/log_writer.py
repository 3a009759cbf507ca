"""Writes the decisions of a simulation as JSON lines that `pointsman evaluate` reads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import IO, Any

from policy.domain import Candidate, Router
from policy.join import Joined
from policy.log import DecisionRecord, ReportRecord


class LogWriter:
    """Follows a simulation in which all that comes of a decision comes at once.

    `prompts` are those of the decisions, in their order.
    """

    def __init__(self, out: IO[str], prompts: Sequence[str]) -> None:
        self._out = out
        self._prompts = iter(prompts)

    def on_registry(self, router: Router) -> None: ...

    def on_decision(self, decision: DecisionRecord) -> None: ...

    def on_report(self, report: ReportRecord, decision: DecisionRecord) -> None:
        """Writes the line. Raises OSError if it cannot."""
        choice = decision.choice
        line: dict[str, Any] = {
            "decision_id": decision.decision_id,
            "time_us": decision.time_us,
            "prompt": next(self._prompts),
            "model": choice.model,
            "propensity": choice.probability,
            "candidates": {each.model: _candidate(each) for each in choice.candidates},
            "price_of_money": choice.price_of_money,
            "reward": report.learned_reward,
            "cost_usd": report.charged_usd,
        }
        if report.usage is not None and (report.usage.input_tokens or report.usage.output_tokens):
            line |= {"input_tokens": report.usage.input_tokens, "output_tokens": report.usage.output_tokens}
        self._out.write(json.dumps(line) + "\n")

    def on_close(self, decision: DecisionRecord, joined: Joined) -> None: ...


def _candidate(candidate: Candidate) -> dict[str, Any]:
    found: dict[str, Any] = {
        "probability": candidate.probability,
        "quality": candidate.quality,
        "cost_usd": candidate.cost_usd,
        "score": candidate.score,
    }
    if candidate.exclusion is not None:
        found["excluded"] = True
    return found
