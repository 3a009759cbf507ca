"""An OpenTelemetry collector for the tests: a real gRPC server that takes spans and keeps them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as wire
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as wire_grpc
from opentelemetry.proto.trace.v1.trace_pb2 import Span


class Collector(wire_grpc.TraceServiceServicer):
    """Keeps what it is sent."""

    def __init__(self) -> None:
        self.port = 0
        self.sent: list[wire.ExportTraceServiceRequest] = []

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def Export(self, request: Any, context: Any) -> Any:  # noqa: N802 (gRPC names it)
        self.sent.append(request)
        return wire.ExportTraceServiceResponse()

    @property
    def spans(self) -> list[Span]:
        """Every span, by when it began."""
        scopes = (scope for sent in self.sent for each in sent.resource_spans for scope in each.scope_spans)
        return sorted((span for scope in scopes for span in scope.spans), key=lambda s: s.start_time_unix_nano)

    @property
    def resource(self) -> dict[str, Any]:
        """Who has sent the spans."""
        return attributes(self.sent[0].resource_spans[0].resource)

    def called(self, method: str) -> list[Span]:
        """The spans of the calls of a method, as `Route`."""
        return [each for each in self.spans if each.name.endswith(f"/{method}")]

    def below(self, parent: Span) -> list[Span]:
        """The children of a span."""
        return [each for each in self.spans if each.parent_span_id == parent.span_id]


def attributes(of: Any) -> dict[str, Any]:
    """The attributes of a span or a resource."""
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in of.attributes}


@asynccontextmanager
async def running_collector() -> AsyncIterator[Collector]:
    """A collector on a free port of this machine."""
    server, collector = grpc.aio.server(), Collector()
    wire_grpc.add_TraceServiceServicer_to_server(collector, server)
    collector.port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield collector
    finally:
        await server.stop(None)


def trace_to(endpoint: str, patch: pytest.MonkeyPatch, more: Mapping[str, str] | None = None) -> None:
    """Sets the environment so that servers which start from here on send their spans there."""
    for name, value in {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, **(more or {})}.items():
        patch.setenv(name, value)
