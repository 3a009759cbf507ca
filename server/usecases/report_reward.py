"""ReportReward and ActivateDecision: take what came of a decision; the answer means it is on disk."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence

from policy.domain import MODEL_ID_LENGTH_MAX, TOKENS_MAX, InvalidFieldError, require_number, require_text
from policy.log import ReportRecord
from server.errors import DecisionNotFoundError, PointsmanError
from server.storage.group_commit import GroupCommit
from server.storage.writes import Disposition, ReportWrite

BATCH_MAX = 1000
SIGNALS_MAX = 64
ID_LENGTH_MAX = 128
COST_USD_MAX = 1e6
LATENCY_SECONDS_MAX = 7 * 86_400.0

_DECISION_ID = re.compile(r"[0-9a-f]{32}\Z")


class ReportReward:
    """Stores reports. Each is joined to its decision when it is stored, and learned from after that.

    `on_answered` hears each one's disposition.
    """

    def __init__(self, log: GroupCommit, on_answered: Callable[[str], object] = lambda _: None) -> None:
        self._log = log
        self._on_answered = on_answered

    async def __call__(
        self, report: ReportRecord, served_router: str = "", permitted: frozenset[str] | None = None
    ) -> Disposition:
        """The report's disposition. `served_router` is the one that the served model was named with, if any.

        If `permitted` is given, to the caller there are no decisions but of these routers.
        Raises InvalidFieldError, DecisionNotFoundError, ModelNotFoundError, DecisionExpiredError (of
        an activation), QueueFullError, StorageUnavailableError.
        """
        check_report(report)
        disposition: Disposition = await self._log.submit(ReportWrite(report, served_router, permitted))
        self._on_answered(disposition.value)
        return disposition

    async def batch(
        self, reports: Sequence[tuple[ReportRecord, str]], permitted: frozenset[str] | None = None
    ) -> list[Disposition | Exception]:
        """The fate of each report with its served router."""
        calls = (self(report, served_router, permitted) for report, served_router in reports)
        fates = await asyncio.gather(*calls, return_exceptions=True)
        for fate in fates:
            if isinstance(fate, BaseException) and not isinstance(fate, (PointsmanError, InvalidFieldError)):
                raise fate
        return [fate for fate in fates if not isinstance(fate, BaseException) or isinstance(fate, Exception)]


def check_report(report: ReportRecord) -> None:
    """Raises InvalidFieldError for what is wrong whatever the decision, DecisionNotFoundError for no id at all."""
    if not report.decision_id:
        raise InvalidFieldError("decision_id", "must be set to the decision_id of a RouteResponse")
    require_decision_id(report.decision_id)
    require_text("report_id", report.report_id, ID_LENGTH_MAX)
    require_text("served_model", report.served_model, MODEL_ID_LENGTH_MAX)
    if report.activation:
        return
    if report.reward is not None:
        require_number("reward", report.reward, 0, 1)
    if len(report.signals) > SIGNALS_MAX:
        raise InvalidFieldError("signals", f"must be at most {SIGNALS_MAX}")
    for name, value in report.signals.items():
        if len(name) > ID_LENGTH_MAX:
            raise InvalidFieldError("signals", f"names must be at most {ID_LENGTH_MAX} characters")
        require_number(f"signals[{name}]", value, -1e300)
    if report.usage is not None:
        require_number("usage.input_tokens", report.usage.input_tokens, 0, TOKENS_MAX)
        require_number("usage.output_tokens", report.usage.output_tokens, 0, TOKENS_MAX)
        require_number("usage.cached_input_tokens", report.usage.cached_input_tokens, 0, report.usage.input_tokens)
        if report.usage.cost_usd is not None:
            require_number("usage.cost_usd", report.usage.cost_usd, 0, COST_USD_MAX)
    if report.latency_seconds is not None:
        require_number("latency", report.latency_seconds, 0, LATENCY_SECONDS_MAX)
    if (
        report.reward is None
        and not report.signals
        and report.usage is None
        and report.latency_seconds is None
        and report.error is None
    ):
        raise InvalidFieldError(
            "reward",
            "must be set, or else signals, usage, latency or error: the report says nothing",
        )


def require_decision_id(value: str) -> None:
    """Raises DecisionNotFoundError for what can be the id of no decision, and that a database may not take."""
    if not _DECISION_ID.match(value):
        raise DecisionNotFoundError(value[:64])
