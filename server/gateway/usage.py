"""What an answer used: as the provider counts it or, where it has not said, by the length of the text."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from server.gateway.conversation import Conversation
from server.gateway.plan import Answer
from server.gateway.providers import Failure

_CHARACTERS_PER_TOKEN = 4
_TEXT_MAX = 1 << 20
_CALLS_MAX = 128


@dataclass(frozen=True)
class Tally:
    """Tokens, and the cost where the provider itself says it."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    cost_usd: float | None = None


def read_usage(message: Mapping[str, Any]) -> Tally | None:
    """The usage in an answer or a part of a stream; None where it has none."""
    usage = message.get("usage") or (message.get("response") or {}).get("usage")
    if not isinstance(usage, Mapping):
        return None
    cached = _count(usage, "cache_read_input_tokens")
    # Anthropic counts what was cached beside the input, OpenAI within it.
    beside = 0 if "prompt_tokens" in usage else cached + _count(usage, "cache_creation_input_tokens")
    given = _count(usage, "prompt_tokens", "input_tokens") + beside
    made = _count(usage, "completion_tokens", "output_tokens")
    if not given and not made:
        return None
    details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details") or {}
    cost = usage.get("cost")
    told = float(cost) if isinstance(cost, int | float) and not isinstance(cost, bool) and cost >= 0 else None
    return Tally(given, made, min(_count(details, "cached_tokens") or cached, given), told)


def tally_of(body: Mapping[str, Any], talk: Conversation) -> Tally:
    """Of a whole answer."""
    found = read_usage(body)
    return found or Tally(talk.input_tokens, len(answer_of(body).text) // _CHARACTERS_PER_TOKEN)


class StreamTally:
    """The usage of a stream so far, its text, and whether the provider has called it failed."""

    def __init__(self, talk: Conversation) -> None:
        self._talk = talk
        self._usage: Tally | None = None
        self._characters = 0
        self._texts: list[str] = []
        self._calls: dict[int, list[str]] = {}
        self._final: Mapping[str, Any] | None = None
        self.failure: Failure | None = None

    def see(self, part: Mapping[str, Any]) -> None:
        """Takes one part."""
        self._usage = read_usage(part) or self._usage
        if part.get("type") in ("response.failed", "error"):
            self.failure = Failure.UNAVAILABLE
        if part.get("type") == "response.completed":
            self._final = part.get("response")
        self._see_calls(part)
        for text, said in _delta_texts(part):
            if said and self._characters < _TEXT_MAX:
                self._texts.append(text)
            self._characters += len(text)

    @property
    def tally(self) -> Tally:
        """As the provider says, or by length: also in the middle."""
        return self._usage or Tally(self._talk.input_tokens, -(-self._characters // _CHARACTERS_PER_TOKEN))

    @property
    def answer(self) -> Answer:
        """What was said so far, to a bound."""
        if self._final is not None:
            return answer_of(self._final)
        calls = tuple((name, arguments) for name, arguments in self._calls.values())
        return Answer("".join(self._texts), calls)

    def _see_calls(self, part: Mapping[str, Any]) -> None:
        """Tool calls come in pieces, each with the place of its call."""
        for place, name, arguments in _call_pieces(part):
            if place not in self._calls and len(self._calls) >= _CALLS_MAX:
                continue
            kept = self._calls.setdefault(place, ["", ""])
            kept[0] = kept[0] or name
            if len(kept[1]) < _TEXT_MAX:
                kept[1] += arguments


def answer_of(body: Mapping[str, Any]) -> Answer:
    """The text and the tool calls of a whole answer, of any of the APIs."""
    texts: list[Any] = []
    calls: list[Any] = []
    for choice in body.get("choices") or ():
        message = choice.get("message") or {}
        texts.append(message.get("content"))
        calls.extend(each.get("function") or {} for each in message.get("tool_calls") or ())
    for item in body.get("output") or ():
        texts.extend(content.get("text") for content in item.get("content") or ())
        if item.get("type") == "function_call":
            calls.append(item)
    for block in body.get("content") or ():
        texts.append(block.get("text"))
        if block.get("type") == "tool_use":
            calls.append({**block, "arguments": json.dumps(block.get("input") or {})})
    told = ((str(each.get("name") or ""), str(each.get("arguments") or "")) for each in calls)
    return Answer("\n".join(text for text in texts if isinstance(text, str)), tuple(told))


def _call_pieces(part: Mapping[str, Any]) -> Iterator[tuple[int, str, str]]:
    """The place, name and arguments of each piece of a tool call, of a chat or a message."""
    for choice in part.get("choices") or ():
        for call in (choice.get("delta") or {}).get("tool_calls") or ():
            function = call.get("function") or {}
            yield call.get("index") or 0, function.get("name") or "", function.get("arguments") or ""
    if part.get("type") == "content_block_start" and part["content_block"].get("type") == "tool_use":
        yield part["index"], part["content_block"].get("name") or "", ""
    if part.get("type") == "content_block_delta" and part["delta"].get("type") == "input_json_delta":
        yield part["index"], "", part["delta"].get("partial_json") or ""


def _delta_texts(part: Mapping[str, Any]) -> Iterator[tuple[str, bool]]:
    """The texts of a part, and whether each is the answer's own: thoughts and arguments only count as tokens."""
    if str(part.get("type", "")).endswith(".delta") and isinstance(part.get("delta"), str):
        yield part["delta"], part["type"] == "response.output_text.delta"
    if part.get("type") == "content_block_delta":
        for name in ("text", "thinking", "partial_json"):
            if isinstance(part["delta"].get(name), str):
                yield part["delta"][name], name == "text"
    for choice in part.get("choices") or ():
        delta = choice.get("delta") or {}
        for name in ("content", "reasoning_content"):
            if isinstance(delta.get(name), str):
                yield delta[name], name == "content"
        for call in delta.get("tool_calls") or ():
            arguments = (call.get("function") or {}).get("arguments")
            if isinstance(arguments, str):
                yield arguments, False


def _count(holder: Mapping[str, Any], *names: str) -> int:
    for name in names:
        value = holder.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return 0
