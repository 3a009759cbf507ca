"""What a line of the log can say of a call: whose it is, never what is in it."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import Message

from server.services.access import METHODS
from server.trace_context import trace_id

_ACCESS = {path.rpartition("/")[2]: access for path, access in METHODS.items()}
_LENGTH_MAX = 128


def call_facts(method: str, request: Any, context: Any, response: Any = None) -> dict[str, str]:
    """As much as is known, as `logging` takes it by `extra`. The method is named alone, as `Route`.

    What a caller sent that is no name is left out: it could pass for a line of its own.
    """
    facts = {"method": method}
    if isinstance(request, Message):
        access = _ACCESS.get(method)
        facts["router"] = (access.router_of(request) if access else None) or ""
        facts["decision_id"] = _text(request, "decision_id") or _text(response, "decision_id")
        facts["model"] = _text(response, "model")
    sent = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
    facts["trace_id"] = trace_id(sent)
    return {fact: value for fact, value in facts.items() if value and _is_name(value)}


def _text(message: Any, field: str) -> str:
    value = getattr(message, field, "")
    return value if isinstance(value, str) else ""


def _is_name(value: str) -> bool:
    return len(value) <= _LENGTH_MAX and value.isascii() and value.isprintable() and " " not in value
