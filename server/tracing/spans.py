"""The spans of a call and of the stages in it. All that knows OpenTelemetry is here."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import copy_context
from functools import partial
from importlib.metadata import version
from typing import Any

import grpc
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.grpc import aio_server_interceptor, filters
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import INVALID_SPAN, StatusCode, Tracer, format_trace_id, get_current_span, use_span
from opentelemetry.util.types import AttributeValue

from policy.choices import Turn
from policy.features import QueryFeatures
from policy.log import DecisionRecord, ReportRecord
from server.registry import RouterEntry
from server.storage.writes import DecisionWrite, Disposition
from server.usecases.report_reward import ReportReward
from server.usecases.route import Attempt, Route
from server.usecases.route_command import RouteCommand

_SEND_SECONDS_MAX = 5.0
"""How long a stop waits for a collector."""


class Tracing:
    """Makes spans, and sends them in a thread of its own; what a slow collector does not take is dropped."""

    def __init__(self) -> None:
        """Configured by the OTEL_ variables of the environment. Raises ValueError for one that cannot be read."""
        self._exporter = OTLPSpanExporter()
        # No events: the ones that are made without being asked for have the text of an exception.
        self._provider = TracerProvider(
            resource=_resource(), span_limits=SpanLimits(max_events=0), shutdown_on_exit=False
        )
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        tracer = self._provider.get_tracer("pointsman", version("pointsman"))
        self.make_route = partial(TracedRoute, tracer)
        self.make_report_reward = TracedReportReward
        # Not of health checks and reflection.
        of_ours = filters.negate(filters.service_prefix("grpc."))
        self.interceptors: tuple[grpc.aio.ServerInterceptor, ...] = (
            aio_server_interceptor(self._provider, of_ours),  # type: ignore[no-untyped-call]
        )
        """Go before all others: a call's span is a child of the caller's, if the caller says which."""
        for handler in logging.root.handlers:
            handler.addFilter(_name_trace)

    def give_up(self, code: grpc.StatusCode) -> None:
        """Says in the call's span that its caller has not waited.

        The instrumentation would take such a call for one that ended well.
        """
        span = get_current_span()
        number, name = code.value
        span.set_attribute("rpc.grpc.status_code", number)
        span.set_status(StatusCode.ERROR, name)

    def stop(self) -> None:
        """Sends what is left, if that can be done in a moment."""
        giving_up = threading.Timer(_SEND_SECONDS_MAX, self._exporter.shutdown)
        giving_up.daemon = True
        giving_up.start()
        self._provider.shutdown()
        giving_up.cancel()
        for handler in logging.root.handlers:
            handler.removeFilter(_name_trace)


class TracedRoute(Route):
    """Shows each stage of a decision as a span, and in the call's own span what was decided.

    Nothing of a prompt, a feature or a key is in any of them.
    """

    def __init__(self, tracer: Tracer, *wiring: Any) -> None:
        super().__init__(*wiring)
        self._tracer = tracer

    async def __call__(self, command: RouteCommand, deadline_seconds: float | None = None) -> DecisionRecord:
        """As Route."""
        span = get_current_span()
        span.set_attribute("pointsman.router", command.router_id)
        decision = await super().__call__(command, deadline_seconds)
        choice = decision.choice
        attributes: dict[str, AttributeValue] = {
            "pointsman.decision_id": decision.decision_id,
            "pointsman.model": choice.model,
            "pointsman.policy": choice.policy,
            "pointsman.probability": choice.probability,
            "pointsman.snapshot": choice.snapshot,
            "pointsman.logged": bool(decision.seq),
        }
        span.set_attributes(attributes)
        return decision

    def _featurise(self, command: RouteCommand, entry: RouterEntry) -> QueryFeatures:
        with self._stage("featurise"):
            return super()._featurise(command, entry)

    async def _session(self, command: RouteCommand, entry: RouterEntry, now_us: int, until: float) -> Turn | None:
        if not command.session_id:
            return None
        with self._stage("session"):
            return await super()._session(command, entry, now_us, until)

    def _decide(
        self, command: RouteCommand, entry: RouterEntry, features: QueryFeatures, session: Turn | None, now_us: int
    ) -> DecisionRecord:
        with self._stage("decide"):
            return super()._decide(command, entry, features, session, now_us)

    async def _earlier_decision(
        self, command: RouteCommand, entry: RouterEntry, until: float
    ) -> DecisionRecord | None:
        with self._stage("earlier_decision"):
            return await super()._earlier_decision(command, entry, until)

    async def _store(self, attempt: Attempt, entry: RouterEntry, until: float) -> DecisionRecord:
        with self._stage("store"):
            return await super()._store(attempt, entry, until)

    def _making(self, attempt: Attempt) -> Callable[[], DecisionWrite]:
        # It is called by who writes the log, for whom the call's span is not the current one.
        return partial(copy_context().run, super()._making(attempt))

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        with self._tracer.start_as_current_span(
            name, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield
            except BaseException as error:
                # Not its text, which may have what was to be stored in it.
                span.set_status(StatusCode.ERROR, type(error).__name__)
                raise


class TracedReportReward(ReportReward):
    """Says in the call's span which decision a report is on, or how many reports there are."""

    async def __call__(
        self, report: ReportRecord, served_router: str = "", permitted: frozenset[str] | None = None
    ) -> Disposition:
        """As ReportReward."""
        span = get_current_span()
        span.set_attribute("pointsman.decision_id", report.decision_id[:64])
        disposition = await super().__call__(report, served_router, permitted)
        span.set_attribute("pointsman.disposition", disposition.value)
        return disposition

    async def batch(
        self, reports: Sequence[tuple[ReportRecord, str]], permitted: frozenset[str] | None = None
    ) -> list[Disposition | Exception]:
        """As ReportReward."""
        get_current_span().set_attribute("pointsman.reports", len(reports))
        with use_span(INVALID_SPAN):  # Each would overwrite what the one before has said.
            return await super().batch(reports, permitted)


def _name_trace(record: logging.LogRecord) -> bool:
    """Says in a line that is logged during a call which trace it belongs to."""
    context = get_current_span().get_span_context()
    if context.is_valid:
        record.trace_id = format_trace_id(context.trace_id)
    return True


def _resource() -> Resource:
    """Who makes the spans, as OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say, or else by our name."""
    found = Resource.create({"service.version": version("pointsman")})
    if str(found.attributes["service.name"]).startswith("unknown_service"):
        return found.merge(Resource({"service.name": "pointsman"}))
    return found
