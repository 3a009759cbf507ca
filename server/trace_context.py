"""What a caller says of the trace that its call belongs to (https://www.w3.org/TR/trace-context/), as headers."""

from __future__ import annotations

from collections.abc import Mapping

_NAMES = ("traceparent", "tracestate")
_LENGTH_MAX = 512


def trace_headers(headers: Mapping[str, str]) -> list[tuple[str, str]]:
    """Those of the headers that a call which is made on behalf of this one has to have as well.

    What gRPC could not carry is left out: a trace that is cut in two is no reason to refuse a call.
    """
    found = ((name, headers.get(name, "")) for name in _NAMES)
    return [
        (name, value)
        for name, value in found
        if value and len(value) <= _LENGTH_MAX and value.isascii() and value.isprintable()
    ]


def trace_id(headers: Mapping[str, str]) -> str:
    """The id of the trace in hexadecimal digits, empty if there is none."""
    parts = headers.get("traceparent", "").split("-")
    known = len(parts) >= 4 and len(parts[1]) == 32 and set(parts[1]) <= set("0123456789abcdef")
    return parts[1] if known else ""
