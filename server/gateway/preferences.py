"""What a request says to Pointsman beside its text: headers and `metadata`, by the names of the contract."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from server.gateway.problems import ApiError, bad_field

HEADER_PREFIX = "x-pointsman-"
_NUMBERS = ("quality_value_usd", "latency_usd_per_second", "max_cost_usd", "max_latency")
_LISTS = ("allowed_models", "denied_models", "required_capabilities")
_TEXTS = ("session_id", "incumbent_model")
_FLAGS = ("exploit_only",)
NAMES = frozenset((*_NUMBERS, *_LISTS, *_TEXTS, *_FLAGS))
_TRUE, _FALSE = ("true", "1"), ("false", "0")


@dataclass(frozen=True)
class Preferences:
    """What was asked for; None and empty are what was not. `max_latency` is in seconds."""

    quality_value_usd: float | None = None
    latency_usd_per_second: float | None = None
    max_cost_usd: float | None = None
    max_latency: float | None = None
    allowed_models: tuple[str, ...] = ()
    denied_models: tuple[str, ...] = ()
    required_capabilities: tuple[str, ...] = ()
    session_id: str = ""
    incumbent_model: str = ""
    exploit_only: bool = False

    def allows(self, model: str) -> bool:
        """Whether the lists allow a model."""
        return model not in self.denied_models and (not self.allowed_models or model in self.allowed_models)


def read_preferences(headers: Mapping[str, str], metadata: Any) -> Preferences:
    """A header goes before the metadata. Raises ApiError naming the field as the client wrote it."""
    if metadata is None:
        metadata = {}
    if not isinstance(metadata, dict):
        raise bad_field("metadata", "must be an object")
    given: dict[str, Any] = {}
    for name in NAMES:
        header = HEADER_PREFIX + name.replace("_", "-")
        if header in headers:
            given[name] = _parse(name, header, headers[header])
        elif metadata.get(name) is not None:
            given[name] = _parse(name, f"metadata.{name}", metadata[name])
    for name in headers:
        if name.startswith(HEADER_PREFIX) and name.removeprefix(HEADER_PREFIX).replace("-", "_") not in NAMES:
            raise ApiError(400, f"there is no header {name}", code="unknown_header", param=name)
    return Preferences(**given)


def _parse(name: str, param: str, value: Any) -> Any:
    if name in _NUMBERS:
        return _number(name, param, value)
    if name in _LISTS:
        return _list(param, value)
    if name in _FLAGS:
        word = str(value).strip().lower()
        if word not in (*_TRUE, *_FALSE):
            raise bad_field(param, "must be true or false")
        return word in _TRUE
    if not isinstance(value, str) or not value.strip():
        raise bad_field(param, "must be a text")
    return value.strip()


def _number(name: str, param: str, value: Any) -> float:
    text = value.strip() if isinstance(value, str) else value
    if name == "max_latency" and isinstance(text, str):
        text = text.removesuffix("s")
    try:
        number = float(text) if not isinstance(text, bool) else math.nan
    except (TypeError, ValueError):
        number = math.nan
    zero_too = name == "latency_usd_per_second"
    if not math.isfinite(number) or number < 0 or (number == 0 and not zero_too):
        unit = " of seconds" if name == "max_latency" else ""
        raise bad_field(param, f"must be a number{unit}, {'0 or more' if zero_too else 'above 0'}")
    return number


def _list(param: str, value: Any) -> tuple[str, ...]:
    """Names in a list, or in a text with commas, which is all that OpenAI's metadata can hold."""
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list) or not all(isinstance(each, str) for each in parts):
        raise bad_field(param, "must be names with commas between them")
    names = tuple(each.strip() for each in parts if each.strip())
    if not names:
        raise bad_field(param, "must name at least one")
    return names
