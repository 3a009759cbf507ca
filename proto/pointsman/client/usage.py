"""What a provider's answer says of itself: tokens, and whether the model declined. By its shape, so that no
provider's SDK is imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Usage:
    """What one or several calls used. `cached_input_tokens` are among the `input_tokens`.

    Without `cost_usd` the server charges the model's prices.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    cost_usd: float | None = None

    def __add__(self, other: Usage) -> Usage:
        costs = [each.cost_usd for each in (self, other) if each.cost_usd is not None]
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cached_input_tokens + other.cached_input_tokens,
            sum(costs) if costs else None,
        )

    def updated(self, later: Usage) -> Usage:
        """As a stream tells it: each part of it counts anew what it mentions, and leaves the rest as it was."""
        return Usage(
            later.input_tokens or self.input_tokens,
            later.output_tokens or self.output_tokens,
            later.cached_input_tokens or self.cached_input_tokens,
            self.cost_usd if later.cost_usd is None else later.cost_usd,
        )


class StreamUsage:
    """The usage of a stream, from those of its parts that mention it."""

    def __init__(self) -> None:
        self.usage: Usage | None = None
        self.refused = False

    def see(self, part: Any) -> None:
        """Takes what one part says."""
        found = usage_from(part)
        if found is not None:
            self.usage = found if self.usage is None else self.usage.updated(found)
        self.refused = self.refused or is_refusal(part)


def usage_from(response: Any) -> Usage | None:
    """The usage of an answer, or of one part of a stream; None where it has none.

    Known are the objects of these SDKs, and dicts of the same shape: OpenAI's chat completions and responses,
    Anthropic's messages, LiteLLM's, and whatever else speaks one of those languages.
    """
    for holder in (response, _get(response, "response"), _get(response, "message")):
        usage = _get(holder, "usage")
        if usage is not None:
            found = _openai_chat(usage) or _anthropic(usage) or _openai_responses(usage)
            if found is not None:
                return found
    return None


def is_refusal(response: Any) -> bool:
    """Whether the answer says that the model, or its provider's filter, declined to give one."""
    if _get(response, "stop_reason") == "refusal" or _get(_get(response, "delta"), "stop_reason") == "refusal":
        return True
    choices = _get(response, "choices")
    return isinstance(choices, (list, tuple)) and any(
        _get(each, "finish_reason") == "content_filter" or bool(_get(_get(each, "message"), "refusal"))
        for each in choices
    )


def _openai_chat(usage: Any) -> Usage | None:
    """Also LiteLLM's, whatever the provider behind it. The prompt's tokens include those in the cache."""
    prompt, completion = _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")
    if not prompt and not completion:
        return None
    cached = _count(_get(usage, "prompt_tokens_details"), "cached_tokens")
    return Usage(prompt, completion, min(cached, prompt))


def _anthropic(usage: Any) -> Usage | None:
    """The input tokens are only those past the cache; what was read from it or written to it is billed beside."""
    read = _get(usage, "cache_read_input_tokens")
    written = _get(usage, "cache_creation_input_tokens")
    if read is None and written is None:
        return None
    if _get(usage, "input_tokens") is None:
        # The end of a stream, whose beginning has told the input.
        return Usage(0, _count(usage, "output_tokens"), 0)
    read_count = _count(usage, "cache_read_input_tokens")
    total = _count(usage, "input_tokens") + read_count + _count(usage, "cache_creation_input_tokens")
    return Usage(total, _count(usage, "output_tokens"), read_count)


def _openai_responses(usage: Any) -> Usage | None:
    """Also an Anthropic answer that says nothing of a cache."""
    given, made = _count(usage, "input_tokens"), _count(usage, "output_tokens")
    if not given and not made:
        return None
    cached = _count(_get(usage, "input_tokens_details"), "cached_tokens")
    return Usage(given, made, min(cached, given))


def _get(holder: Any, name: str) -> Any:
    return holder.get(name) if isinstance(holder, Mapping) else getattr(holder, name, None)


def _count(holder: Any, name: str) -> int:
    """A number of tokens; 0 for what is none."""
    value = _get(holder, name)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
