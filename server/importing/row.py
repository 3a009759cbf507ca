"""Makes a row of a file into an imported decision on the wire."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any

from pointsman.v1 import router_service_pb2 as pb

from policy.domain import TOKENS_MAX, InvalidFieldError, ModelError, require_number
from server.services.outcomes import ERROR_VALUES
from server.services.times import duration, timestamp

FIELDS = frozenset(
    {
        *("request_id", "session_id", "time", "prompt", "embedding", "features", "numeric", "categorical"),
        *("model", "propensity", "candidates", "incumbent_model"),
        *("reward", "cost_usd", "input_tokens", "output_tokens", "cached_input_tokens"),
        *("latency_seconds", "error"),
    }
)
"""What a row may have; anything else in it is ignored."""

_TEXTS = ("request_id", "session_id", "prompt", "model", "incumbent_model")
_TOKENS = ("input_tokens", "output_tokens", "cached_input_tokens")
_LATENCY_SECONDS_MAX = 1e9
_TIME_SECONDS_END = 253_402_300_800.0  # The year 10000.


def imported_decision(number: int, row: Mapping[str, Any]) -> pb.ImportedDecision:
    """The row on the wire; None in a field is as if it were not there. Raises InvalidFieldError naming the field.

    A row without a request_id gets one made of its number and its content, so that importing the same file
    again, or the file when it has grown, takes no row twice.
    """
    given = {name: value for name, value in row.items() if name in FIELDS and value is not None}
    message = pb.ImportedDecision()
    for name in _TEXTS:
        if name in given:
            setattr(message, name, _text(name, given[name]))
    message.request_id = message.request_id or _derived_id(number, row)
    for name in ("embedding", "features"):
        getattr(message, name).extend(_vector(name, given.get(name, ())))
    for key, value in _pairs("numeric", given.get("numeric")):
        message.numeric_features[key] = _number(f"numeric[{key}]", value)
    for key, value in _pairs("categorical", given.get("categorical")):
        message.categorical_features[key] = _text(f"categorical[{key}]", value)
    for name in ("propensity", "reward"):
        if name in given:
            setattr(message, name, _number(name, given[name]))
    message.candidates.extend(_candidates(given.get("candidates", ())))
    _add_outcome(message, given)
    if "time" in given:
        message.event_time.CopyFrom(timestamp(_time_us(given["time"])))
    return message


def _add_outcome(message: pb.ImportedDecision, given: Mapping[str, Any]) -> None:
    for name in _TOKENS:
        if name in given:
            setattr(message.usage, name, _whole(name, given[name]))
    if "cost_usd" in given:
        message.usage.cost_usd = _number("cost_usd", given["cost_usd"])
    if "latency_seconds" in given:
        seconds = _number("latency_seconds", given["latency_seconds"])
        require_number("latency_seconds", seconds, 0, _LATENCY_SECONDS_MAX)
        message.latency.CopyFrom(duration(seconds))
    if "error" in given:
        message.error = _error(given["error"])


def _derived_id(number: int, row: Mapping[str, Any]) -> str:
    content = json.dumps(row, sort_keys=True, default=str)
    return f"import-{blake2b(f'{number} {content}'.encode(), digest_size=16).hexdigest()}"


def _text(field: str, value: Any) -> str:
    """A text; a whole number is taken for one, since ids often are."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise InvalidFieldError(field, f"must be a text, not {_shown(value)}")
    return str(value).encode("utf-8", "replace").decode()  # JSON may hold halves of surrogate pairs.


def _number(field: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidFieldError(field, f"must be a number, not {_shown(value)}")
    require_number(field, value, -1e300, 1e300)
    return float(value)


def _whole(field: str, value: Any) -> int:
    number = _number(field, value)
    require_number(field, number, 0, TOKENS_MAX)
    if number != int(number):
        raise InvalidFieldError(field, f"must be a whole number, not {_shown(value)}")
    return int(number)


def _vector(field: str, value: Any) -> list[float]:
    if not isinstance(value, list | tuple):
        raise InvalidFieldError(field, f"must be a list of numbers, not {_shown(value)}")
    return [_number(f"{field}[{index}]", each) for index, each in enumerate(value)]


def _pairs(field: str, value: Any) -> list[tuple[str, Any]]:
    """Names and values of an object, or of the list of pairs that a Parquet map is. None is not there."""
    if value is None:
        return []
    pairs = list(value.items()) if isinstance(value, dict) else value
    if not isinstance(pairs, list) or not all(isinstance(each, tuple) and len(each) == 2 for each in pairs):
        raise InvalidFieldError(field, f"must be an object, not {_shown(value)}")
    return [(_text(field, key), each) for key, each in pairs if each is not None]


def _candidates(value: Any) -> list[pb.ImportedCandidate]:
    """From a list of ids, or of objects with a model and perhaps a propensity, or from propensities by id."""
    if isinstance(value, dict):
        value = [{"model": model, "propensity": share} for model, share in value.items()]
    if not isinstance(value, list | tuple):
        raise InvalidFieldError("candidates", f"must be a list, not {_shown(value)}")
    return [_candidate(f"candidates[{index}]", each) for index, each in enumerate(value)]


def _candidate(field: str, value: Any) -> pb.ImportedCandidate:
    if isinstance(value, str):
        return pb.ImportedCandidate(model=_text(field, value))
    if not isinstance(value, dict) or "model" not in value:
        raise InvalidFieldError(field, f"must be a model's id, or an object with a model, not {_shown(value)}")
    message = pb.ImportedCandidate(model=_text(f"{field}.model", value["model"]))
    if value.get("propensity") is not None:
        message.propensity = _number(f"{field}.propensity", value["propensity"])
    return message


def _error(value: Any) -> pb.ModelError.ValueType:
    try:
        return ERROR_VALUES[ModelError(value)]
    except ValueError as error:
        known = ", ".join(ModelError)
        raise InvalidFieldError("error", f"must be one of {known}, not {_shown(value)}") from error


def _time_us(value: Any) -> int:
    """Microseconds since 1970 of an RFC 3339 time, seconds since 1970, or a Parquet timestamp (UTC if it has no
    zone).
    """
    if isinstance(value, datetime):
        moment = value if value.tzinfo else value.replace(tzinfo=UTC)
    elif isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError as error:
            raise InvalidFieldError(
                "time", f"must be RFC 3339, or seconds since 1970, not {_shown(value)}"
            ) from error
        if moment.tzinfo is None:
            raise InvalidFieldError("time", f"must have a zone, as in 2026-01-31T12:00:00Z, not {_shown(value)}")
    else:
        seconds = _number("time", value)
        require_number("time", seconds, 0, _TIME_SECONDS_END - 1)
        return round(seconds * 1e6)
    seconds = moment.timestamp()
    require_number("time", seconds, 0, _TIME_SECONDS_END - 1)
    return round(seconds * 1e6)


def _shown(value: Any) -> str:
    return repr(value)[:80]
