"""Anthropic's Messages API: what a request must be like for any provider's model to take it.

It goes to the provider as a chat completion, so what has no counterpart there is refused by its place: left out in
silence, it would change the answer.
"""

from __future__ import annotations

from typing import Any

from server.gateway.problems import bad_field

PARAMETERS = frozenset(
    [
        "messages",
        "system",
        "max_tokens",
        "temperature",
        "top_p",
        "top_k",
        "stop_sequences",
        "tools",
        "tool_choice",
        "thinking",
        "output_config",
    ]
)
_BLOCKS = {
    "user": ("text", "image", "document", "tool_result"),
    "assistant": ("text", "tool_use", "thinking", "redacted_thinking"),
}
_IN_RESULTS = ("text", "image")
# The texts that a block cannot be without.
_TEXTS = {"text": ("text",), "tool_use": ("id", "name"), "tool_result": ("tool_use_id",)}
_SOURCES = {"base64": ("media_type", "data"), "url": ("url",)}
_CHOICES = ("auto", "any", "tool", "none")


def check_request(body: dict[str, Any], turns: list[Any]) -> None:
    """Raises ApiError naming the field. `turns` is its list of messages, each an object."""
    if body.get("max_tokens") is None:
        raise bad_field("max_tokens", "must be a whole number above 0")
    for name in ("thinking", "output_config"):
        if body.get(name) is not None and not isinstance(body[name], dict):
            raise bad_field(name, "must be an object")
    for index, turn in enumerate(turns):
        place = f"messages[{index}]"
        role = turn.get("role")
        if role not in _BLOCKS:
            raise bad_field(f"{place}.role", "must be user or assistant; what the system says is in system")
        content = turn.get("content")
        if role == "user" and content in ("", []):
            raise bad_field(f"{place}.content", "must not be empty")
        _check_content(f"{place}.content", content, _BLOCKS[role])
    if body.get("system") is not None:
        _check_content("system", body["system"], ("text",))
    _check_tools(body.get("tools"))
    choice = body.get("tool_choice")
    if choice is not None and (not isinstance(choice, dict) or choice.get("type") not in _CHOICES):
        raise bad_field("tool_choice.type", f"must be one of {', '.join(_CHOICES)}")
    form = (body.get("output_config") or {}).get("format")
    if form is not None and not (isinstance(form, dict) and isinstance(form.get("schema"), dict)):
        raise bad_field("output_config.format.schema", "must be an object")


def _check_content(place: str, content: Any, kinds: tuple[str, ...]) -> None:
    if isinstance(content, str):
        return
    if not isinstance(content, list):
        raise bad_field(place, "must be a text or a list of blocks")
    for index, block in enumerate(content):
        _check_block(f"{place}[{index}]", block, kinds)


def _check_block(place: str, block: Any, kinds: tuple[str, ...]) -> None:
    if not isinstance(block, dict):
        raise bad_field(place, "must be an object")
    kind = block.get("type")
    if kind not in kinds:
        raise bad_field(f"{place}.type", f"must be one of {', '.join(kinds)} here")
    for name in _TEXTS.get(kind, ()):
        if not isinstance(block.get(name), str):
            raise bad_field(f"{place}.{name}", "must be a text")
    if kind == "tool_use" and not isinstance(block.get("input"), dict):
        raise bad_field(f"{place}.input", "must be an object")
    if kind in ("image", "document"):
        _check_source(f"{place}.source", block.get("source"), kind)
    if kind == "tool_result" and block.get("content") is not None:
        _check_content(f"{place}.content", block["content"], _IN_RESULTS)


def _check_source(place: str, source: Any, kind: str) -> None:
    if not isinstance(source, dict):
        raise bad_field(place, "must be an object")
    kinds = ("base64",) if kind == "document" else tuple(_SOURCES)
    if source.get("type") not in kinds:
        raise bad_field(f"{place}.type", f"must be one of {', '.join(kinds)} here")
    for name in _SOURCES[source["type"]]:
        if not isinstance(source.get(name), str):
            raise bad_field(f"{place}.{name}", "must be a text")


def _check_tools(tools: Any) -> None:
    if tools is None:
        return
    if not isinstance(tools, list):
        raise bad_field("tools", "must be a list")
    for index, tool in enumerate(tools):
        place = f"tools[{index}]"
        if not isinstance(tool, dict):
            raise bad_field(place, "must be an object")
        if tool.get("type") not in (None, "custom"):
            raise bad_field(f"{place}.type", "must be custom: a tool that only Anthropic runs is not supported")
        if not isinstance(tool.get("name"), str) or not tool["name"]:
            raise bad_field(f"{place}.name", "must be a text")
        if not isinstance(tool.get("input_schema"), dict):
            raise bad_field(f"{place}.input_schema", "must be an object")
