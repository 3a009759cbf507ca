"""Signals about an answer that need no one's opinion: checks of its form, and whether it was asked for again."""

from __future__ import annotations

import json
import re
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jsonschema
import referencing
from pointsman.v1 import router_service_pb2 as pb

from server.gateway.conversation import Conversation
from server.gateway.plan import Answer, Plan, Put
from server.gateway.settings import ChecksConfig, GatewayConfig

_SESSIONS_MAX = 10_000
_WORDS_MAX = 400
# Two turns of which this part of the words is in both are one question, asked twice.
_ALIKE = 0.5


@dataclass(frozen=True)
class _Turn:
    decision_id: str
    nonce: str
    model: str
    words: frozenset[str]
    time: float


class Signals:
    """Looks at answers by the checks of their router. What it remembers of sessions is bounded."""

    def __init__(self, config: GatewayConfig, put: Put) -> None:
        self._config = config
        self._put = put
        self._sessions: OrderedDict[str, _Turn] = OrderedDict()

    def of(self, plan: Plan, talk: Conversation, answer: Answer) -> dict[str, float]:
        """Each check that the router has and that applies: 1 if the answer passes, else 0."""
        checks = self._config.router(plan.router).checks
        return {f"check_{name}": float(passed) for name, passed in results(checks, talk, answer).items()}

    def on_turn(self, plan: Plan, talk: Conversation, session: str) -> None:
        """Tells of the session's turn before whether this one asks the same again."""
        turn = self._sessions.pop(f"{plan.router} {session}", None)
        seconds = self._config.router(plan.router).checks.no_retry_seconds
        if turn is None or seconds is None or time.monotonic() - turn.time > seconds:
            return
        report = pb.ReportRewardRequest(
            decision_id=turn.decision_id, report_id=f"gateway-{turn.nonce}-no-retry", served_model=turn.model
        )
        report.signals["check_no_retry"] = float(not _alike(turn.words, _words(talk.prompt)))
        self._put(report)

    def on_served(self, plan: Plan, talk: Conversation, session: str, model: str) -> None:
        """Remembers the turn until the session's next."""
        wanted = self._config.router(plan.router).checks.no_retry_seconds is not None
        if not wanted or not session or not plan.decision_id:
            return
        words = _words(talk.prompt)
        turn = _Turn(plan.decision_id, plan.nonce, model, words, time.monotonic())
        self._sessions[f"{plan.router} {session}"] = turn
        if len(self._sessions) > _SESSIONS_MAX:
            self._sessions.popitem(last=False)


def results(checks: ChecksConfig, talk: Conversation, answer: Answer) -> dict[str, bool]:
    """The checks that apply to an answer, and whether it passes."""
    found: dict[str, bool] = {}
    if checks.non_empty:
        found["non_empty"] = bool(answer.text.strip() or answer.tool_calls)
    if checks.tool_calls and answer.tool_calls:
        tools = _tools(talk)
        found["tool_calls"] = all(_call_fits(tools, name, given) for name, given in answer.tool_calls)
    if answer.tool_calls and not answer.text:
        return found
    if checks.valid_json:
        found["valid_json"] = _parsed(answer.text) is not _NOTHING
    if checks.asked_format and (asked := _asked_format(talk)) is not None:
        found["asked_format"] = _resembles(_parsed(answer.text), asked)
    if checks.json_schema is not None:
        found["json_schema"] = _fits(_parsed(answer.text), checks.json_schema)
    if checks.pattern is not None:
        found["pattern"] = re.search(checks.pattern, answer.text) is not None
    return found


_NOTHING = object()
_KINDS: dict[str, Any] = {
    "string": str,
    "number": int | float,
    "integer": int,
    "boolean": bool,
    "object": dict,
    "array": list,
    "null": type(None),
}


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return _NOTHING


def _fits(value: Any, schema: Mapping[str, Any]) -> bool:
    """By the whole of JSON Schema: for the operator's own, which the file has been checked to be one."""
    if value is _NOTHING:
        return False
    validator = jsonschema.validators.validator_for(schema)(schema, registry=referencing.Registry())
    try:
        return bool(validator.is_valid(value))
    except (RecursionError, referencing.exceptions.Unresolvable):
        return False


def _resembles(value: Any, schema: Any) -> bool:
    """By the top level alone, for a schema that came with the request: it may be wrong, name addresses to be
    fetched, or take for ever.
    """
    if value is _NOTHING:
        return False
    if not isinstance(schema, Mapping):
        return True
    properties, required = schema.get("properties"), schema.get("required")
    if not isinstance(properties, Mapping):
        return True
    if not isinstance(value, Mapping):
        return False
    if isinstance(required, list) and not all(name in value for name in required if isinstance(name, str)):
        return False
    if schema.get("additionalProperties") is False and not value.keys() <= properties.keys():
        return False
    return all(_is_of(each, properties.get(name)) for name, each in value.items())


def _is_of(value: Any, schema: Any) -> bool:
    if not isinstance(schema, Mapping):
        return True
    allowed, kind = schema.get("enum"), schema.get("type")
    if isinstance(allowed, list) and value not in allowed:
        return False
    kinds = kind if isinstance(kind, list) else [kind]
    known = [_KINDS[each] for each in kinds if isinstance(each, str) and each in _KINDS]
    if not known or len(known) != len(kinds):
        return True
    # What Python has for true is a number too.
    return any(isinstance(value, each) and (isinstance(value, bool) <= (each is bool)) for each in known)


def _tools(talk: Conversation) -> dict[str, Mapping[str, Any]]:
    """The schema of each tool's arguments, of any of the APIs."""
    found = {}
    for tool in talk.parameters.get("tools") or ():
        function = tool.get("function", tool) if isinstance(tool, dict) else {}
        if isinstance(function.get("name"), str):
            found[function["name"]] = function.get("parameters") or function.get("input_schema") or {}
    return found


def _call_fits(tools: Mapping[str, Mapping[str, Any]], name: str, arguments: str) -> bool:
    return name in tools and _resembles(_parsed(arguments or "{}"), tools[name])


def _asked_format(talk: Conversation) -> Any:
    """The schema that the request asks its answer to have, {} for any JSON, None where it asks for neither."""
    holders = (talk.parameters.get(name) for name in ("text", "output_config"))
    formats = (each.get("format") for each in holders if isinstance(each, dict))
    asked = talk.parameters.get("response_format") or next(formats, None)
    if not isinstance(asked, dict) or asked.get("type") not in ("json_object", "json_schema"):
        return None
    holder = asked.get("json_schema", asked)
    return (holder.get("schema") if isinstance(holder, dict) else None) or {}


def _words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", text.lower())[:_WORDS_MAX])


def _alike(one: frozenset[str], other: frozenset[str]) -> bool:
    both = one | other
    return bool(both) and len(one & other) >= _ALIKE * len(both)
