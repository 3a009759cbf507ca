"""The fields of one JSON object of a log, checked as they are taken."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from policy.domain import MODELS_PER_ROUTER_MAX, InvalidFieldError, require_model_id, require_number

_TEXT_MAX = 1 << 20
_FEATURES_MAX = 4096
_NUMBER_MAX = 1e300


class Fields:
    """An object's fields; `place` is its path. Null is as good as absent. All raise InvalidFieldError."""

    def __init__(self, value: Any, place: str = "") -> None:
        if not isinstance(value, dict):
            raise InvalidFieldError(place or "line", "must be a JSON object")
        self._values: Mapping[str, Any] = value
        self._place = f"{place}." if place else ""

    def text(self, name: str) -> str:
        """A text; empty if it is absent."""
        value = self._values.get(name)
        if value is None:
            return ""
        if not isinstance(value, str) or len(value) > _TEXT_MAX:
            raise self._error(name, f"must be a text of at most {_TEXT_MAX:,} characters")
        # JSON may hold halves of surrogate pairs.
        return value if value.isascii() else value.encode("utf-8", "replace").decode()

    def model(self, name: str, *, required: bool = False) -> str:
        """The id of a model; empty if it is absent."""
        value = self.text(name)
        if value or required:
            require_model_id(self._place + name, value)
        return value

    def truth(self, name: str) -> bool:
        """True or false; false if it is absent."""
        value = self._values.get(name)
        if value is not None and not isinstance(value, bool):
            raise self._error(name, f"must be true or false, not {value!r}")
        return bool(value)

    def number(self, name: str, low: float, high: float, absent: float = math.nan) -> float:
        """A number in [low, high]; `absent` if it is absent."""
        value = self._values.get(name)
        return absent if value is None else self._number(name, value, low, high)

    def numbers(self, name: str) -> list[float]:
        """A list of numbers; empty if it is absent."""
        value = self._values.get(name)
        if value is None:
            return []
        if not isinstance(value, list) or not 1 <= len(value) <= _FEATURES_MAX:
            raise self._error(name, f"must be a list of 1 to {_FEATURES_MAX} numbers")
        return [self._number(f"{name}[{index}]", each, -math.inf, math.inf) for index, each in enumerate(value)]

    def mapping(self, name: str) -> dict[str, float]:
        """An object of numbers; empty if it is absent. Of `propensities` each has to be in [0, 1]."""
        low, high = (0.0, 1.0) if name == "propensities" else (-math.inf, math.inf)
        return {key: self._number(f"{name}[{key}]", each, low, high) for key, each in self._object(name).items()}

    def texts(self, name: str) -> dict[str, str]:
        """An object of texts; empty if it is absent."""
        found = self._object(name)
        for key, value in found.items():
            if not isinstance(value, str):
                raise self._error(f"{name}[{key}]", f"must be a text, not {value!r}")
        return found

    def objects(self, name: str) -> dict[str, Fields]:
        """An object of objects, by model; empty if it is absent."""
        found = self._object(name)
        if len(found) > MODELS_PER_ROUTER_MAX:
            raise self._error(name, f"must be of at most {MODELS_PER_ROUTER_MAX} models")
        for key in found:
            require_model_id(self._place + name, key)
        return {key: Fields(value, f"{self._place}{name}[{key}]") for key, value in found.items()}

    def _object(self, name: str) -> dict[str, Any]:
        value = self._values.get(name)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise self._error(name, "must be an object")
        return value

    def _number(self, name: str, value: Any, low: float, high: float) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._error(name, f"must be a number, not {value!r}")
        require_number(self._place + name, value, max(low, -_NUMBER_MAX), min(high, _NUMBER_MAX))
        return float(value)

    def _error(self, name: str, message: str) -> InvalidFieldError:
        return InvalidFieldError(self._place + name, message)
