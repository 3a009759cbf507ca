"""Whether traces are asked for, by the variables that OpenTelemetry's programs have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import grpc

from policy.domain import InvalidFieldError
from server.usecases.report_reward import ReportReward
from server.usecases.route import Route

if TYPE_CHECKING:
    from server.tracing.spans import Tracing

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_EXPORTER = "OTEL_TRACES_EXPORTER"
_OFF = "set OTEL_SDK_DISABLED=true to have no traces"


class Untraced:
    """What there is without traces: the plain use cases, and nothing around a call."""

    interceptors: tuple[grpc.aio.ServerInterceptor, ...] = ()
    make_route = Route
    make_report_reward = ReportReward

    def give_up(self, code: grpc.StatusCode) -> None:
        """Has no span to say it in."""

    def stop(self) -> None:
        """Has nothing to send."""


def open_tracing(environment: Mapping[str, str]) -> Tracing | Untraced:
    """What makes the traces, if they are asked for. Raises InvalidFieldError naming the variable."""
    variable = _asking(environment)
    if variable is None:
        return Untraced()
    try:
        # Only now: it takes time and memory, and need not be there.
        from server.tracing.spans import Tracing  # noqa: PLC0415
    except ImportError as error:
        raise InvalidFieldError(
            variable,
            f"asks for traces, for which there is no {error.name}: pip install 'pointsman[tracing]', or {_OFF}",
        ) from error
    try:
        return Tracing()
    except ValueError as error:  # Of another of the variables, which it names.
        raise InvalidFieldError(variable, f"asks for traces, which cannot be made: {error}") from error


def _asking(environment: Mapping[str, str]) -> str | None:
    """The variable that asks for traces."""
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    exporter = environment.get(_EXPORTER, "").strip().lower()
    if exporter == "none":
        return None
    if exporter not in ("", "otlp"):
        raise InvalidFieldError(_EXPORTER, f"must be otlp or none, not {exporter[:40]}; or {_OFF}")
    asking = next((each for each in (*_ENDPOINTS, _EXPORTER) if environment.get(each)), None)
    if asking is None:
        return None
    for each in _PROTOCOLS:
        protocol = environment.get(each, "").strip().lower()
        if protocol and protocol != "grpc":
            raise InvalidFieldError(each, f"must be grpc, which OTLP is sent by, not {protocol[:40]}; or {_OFF}")
        if protocol:
            break
    return asking
