"""What a request's body says of the query: the last user turn, facts about the conversation, its tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from server.gateway.messages import PARAMETERS as MESSAGES_PARAMETERS
from server.gateway.messages import check_request
from server.gateway.problems import ApiError, bad_field

Api = Literal["chat", "responses", "messages"]

_PARAMETERS: dict[Api, frozenset[str]] = {
    "chat": frozenset(
        [
            "messages",
            "tools",
            "tool_choice",
            "functions",
            "function_call",
            "temperature",
            "top_p",
            "n",
            "stop",
            "max_tokens",
            "max_completion_tokens",
            "modalities",
            "prediction",
            "audio",
            "presence_penalty",
            "frequency_penalty",
            "logit_bias",
            "response_format",
            "seed",
            "parallel_tool_calls",
            "logprobs",
            "top_logprobs",
            "reasoning_effort",
            "verbosity",
            "service_tier",
            "store",
            "prompt_cache_key",
            "prompt_cache_retention",
            "safety_identifier",
            "user",
            "web_search_options",
        ]
    ),
    "responses": frozenset(
        [
            "input",
            "include",
            "instructions",
            "max_output_tokens",
            "parallel_tool_calls",
            "previous_response_id",
            "reasoning",
            "store",
            "temperature",
            "text",
            "tool_choice",
            "tools",
            "top_p",
            "truncation",
            "user",
            "service_tier",
            "safety_identifier",
            "prompt_cache_key",
            "max_tool_calls",
            "top_logprobs",
            "prompt",
        ]
    ),
    "messages": MESSAGES_PARAMETERS,
}
# Read here and not handed on. LiteLLM takes other words too, addresses and keys among them: a client sends none.
_OURS = frozenset(("model", "stream", "stream_options", "metadata", "background"))
_CHARACTERS_PER_TOKEN = 4
_IMAGE_TOKENS = 800
_PROMPT_CHARACTERS_MAX = 200_000
_NAME_MAX = 128


@dataclass(frozen=True)
class Conversation:
    """The query as Pointsman is told of it, and what goes to the provider."""

    api: Api
    model: str
    stream: bool
    wants_usage: bool
    parameters: dict[str, Any]
    metadata: dict[str, Any]
    prompt: str
    numeric_features: dict[str, float]
    categorical_features: dict[str, str]
    capabilities: tuple[str, ...]
    input_tokens: int
    max_output_tokens: int
    user: str


def read_conversation(api: Api, body: Any) -> Conversation:
    """Raises ApiError for a body that is none, naming the field."""
    if not isinstance(body, dict):
        raise ApiError(400, "the body must be a JSON object", code="invalid_json")
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise bad_field("model", "must name a model, or be 'pointsman' or 'pointsman/<router>'")
    for name in body:
        if name not in _PARAMETERS[api] and name not in _OURS:
            raise ApiError(400, f"there is no parameter {name!r}", code="unknown_parameter", param=name)
    if body.get("background"):
        raise bad_field("background", "is not supported: the gateway waits for the answer")
    options = _object(body, "stream_options")
    turns = _turns(api, body)
    metadata = _object(body, "metadata")
    if api == "messages":
        check_request(body, turns)
    text = _Text(turns, body.get("system" if api == "messages" else "instructions"), body.get("tools"))
    return Conversation(
        api=api,
        model=model,
        stream=_flag(body, "stream"),
        wants_usage=bool(options.get("include_usage")),
        parameters=_parameters(api, body, metadata),
        metadata=metadata,
        prompt=text.last_user_turn[:_PROMPT_CHARACTERS_MAX],
        numeric_features=_numbers(turns, text, body),
        categorical_features={"gateway_format": _format(api, body)},
        capabilities=_capabilities(text, body, _format(api, body)),
        input_tokens=text.tokens,
        max_output_tokens=_most_output(body),
        user=_name(metadata.get("user_id") if api == "messages" else body.get("user")),
    )


class _Text:
    """Counts characters and images, and keeps the last user turn."""

    def __init__(self, turns: list[Any], instructions: Any, tools: Any) -> None:
        self.images = 0
        self.last_user_turn = ""
        characters = sum(len(each) for each in self._texts(instructions))
        # Tools are JSON that goes to the model as well; its length is taken without writing it out.
        characters += _size(tools)
        for turn in turns:
            text = "\n".join(self._texts(turn.get("content")))
            characters += len(text) + _size(turn.get("tool_calls")) + self._tools_said(turn.get("content"))
            if turn.get("role") == "user" and text:
                self.last_user_turn = text
        self.tokens = characters // _CHARACTERS_PER_TOKEN + 4 * len(turns) + _IMAGE_TOKENS * self.images

    def _texts(self, content: Any) -> Iterator[str]:
        if isinstance(content, str):
            yield content
        for part in content if isinstance(content, list) else ():
            if not isinstance(part, dict):
                continue
            if part.get("type") in ("image_url", "input_image", "image"):
                self.images += 1
            elif isinstance(part.get("text"), str):
                yield part["text"]

    def _tools_said(self, content: Any) -> int:
        """The characters of tools' calls and results, which Anthropic has among a turn's parts: nobody's words."""
        parts = [each for each in content if isinstance(each, dict)] if isinstance(content, list) else []
        calls = sum(_size(each.get("input")) for each in parts if each.get("type") == "tool_use")
        results = (each.get("content") for each in parts if each.get("type") == "tool_result")
        return calls + sum(len(text) for each in results for text in self._texts(each))


def _turns(api: Api, body: dict[str, Any]) -> list[Any]:
    field = "input" if api == "responses" else "messages"
    given = body.get(field)
    if api == "responses" and isinstance(given, str):
        given = [{"role": "user", "content": given}]
    if api == "responses" and given is None and body.get("prompt"):
        return []
    if not isinstance(given, list) or not given:
        raise bad_field(field, "must be a list with at least one entry")
    for index, each in enumerate(given):
        if not isinstance(each, dict):
            raise bad_field(f"{field}[{index}]", "must be an object")
    return given


def _parameters(api: Api, body: dict[str, Any], metadata: dict[str, Any]) -> dict[str, Any]:
    """What goes to the provider."""
    found = {name: body[name] for name in body if name in _PARAMETERS[api] and body[name] is not None}
    if api == "messages" and isinstance(metadata.get("user_id"), str):
        # Where the other APIs have a parameter of its own.
        found["metadata"] = {"user_id": metadata["user_id"]}
    return found


def _numbers(turns: list[Any], text: _Text, body: dict[str, Any]) -> dict[str, float]:
    """Of order one, as the learner likes them."""
    return {
        "gateway_turns": min(len(turns), 20) / 10,
        "gateway_tools": min(len(_list(body, "tools")), 20) / 10,
        "gateway_images": min(text.images, 10) / 5,
        "gateway_tokens": min(text.tokens, 20_000) / 10_000,
    }


def _format(api: Api, body: dict[str, Any]) -> str:
    """Which form of answer is asked for: text, json_object, json_schema."""
    holder: Any = _object(body, {"chat": "response_format", "responses": "text", "messages": "output_config"}[api])
    if api != "chat":
        holder = holder.get("format")
    kind = holder.get("type") if isinstance(holder, dict) else None
    return kind if kind in ("json_object", "json_schema") else "text"


def _capabilities(text: _Text, body: dict[str, Any], form: str) -> tuple[str, ...]:
    needs = (
        ("tools", bool(_list(body, "tools") or _list(body, "functions"))),
        ("vision", text.images > 0),
        ("json", form != "text"),
    )
    return tuple(name for name, needed in needs if needed)


def _most_output(body: dict[str, Any]) -> int:
    most = 0
    for name in ("max_tokens", "max_completion_tokens", "max_output_tokens"):
        value = body.get(name)
        if value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise bad_field(name, "must be a whole number above 0")
        most = value
    return most


def _name(value: Any) -> str:
    """As a session's id: as it is if it is short, else its digest."""
    if not isinstance(value, str):
        return ""
    return value if len(value) <= _NAME_MAX else hashlib.sha256(value.encode()).hexdigest()


def _size(value: Any) -> int:
    """The characters of a JSON value, about."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum(len(str(name)) + _size(each) + 4 for name, each in value.items())
    if isinstance(value, list):
        return sum(_size(each) + 1 for each in value)
    return 0 if value is None else 4


def _flag(body: dict[str, Any], name: str) -> bool:
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise bad_field(name, "must be true or false")
    return bool(value)


def _object(body: dict[str, Any], name: str) -> dict[str, Any]:
    value = body.get(name)
    if value is not None and not isinstance(value, dict):
        raise bad_field(name, "must be an object")
    return value or {}


def _list(body: dict[str, Any], name: str) -> list[Any]:
    value = body.get(name)
    if value is not None and not isinstance(value, list):
        raise bad_field(name, "must be a list")
    return value or []
