"""What a row of a file of decisions has: the one format that is read and written, as docs/evaluation.md has it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from policy.domain import MODELS_PER_ROUTER_MAX, TOKENS_MAX, InvalidFieldError, ModelError

_VALUES_MAX = 8192
_NUMBER_MAX = 1e300
_TIME_SECONDS_MAX = 253_402_300_799.0  # The last of the year 9999.

_Number = Annotated[float, Meta(ge=-_NUMBER_MAX, le=_NUMBER_MAX)]
_Share = Annotated[float, Meta(ge=0, le=1)]
_Usd = Annotated[float, Meta(ge=0, le=1e6)]
_Seconds = Annotated[float, Meta(ge=0, le=1e6)]
# Parquet files often have whole numbers that may be missing as floating-point ones.
_Tokens = Annotated[float, Meta(ge=0, le=TOKENS_MAX, multiple_of=1)]
_Vector = Annotated[list[_Number], Meta(min_length=1, max_length=_VALUES_MAX)]
_Prompt = Annotated[str, Meta(max_length=1 << 20)]
_Time = Annotated[datetime, Meta(tz=True)] | Annotated[float, Meta(ge=0, le=_TIME_SECONDS_MAX)]


class CandidateRow(Struct, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """A model that could have been chosen, with its propensity and what was predicted of it before the call."""

    model: str = ""
    propensity: _Share | None = None
    quality: Annotated[float, Meta(ge=-10, le=10)] | None = None
    cost_usd: _Usd | None = None
    latency_seconds: _Seconds | None = None
    score: _Number | None = None
    excluded: bool | None = None


_Listed = Annotated[list[str | CandidateRow], Meta(max_length=MODELS_PER_ROUTER_MAX)]
_ByModel = Annotated[dict[str, _Share | CandidateRow | None], Meta(max_length=MODELS_PER_ROUTER_MAX)]


class Row(Struct, kw_only=True, omit_defaults=True, gc=False):
    """A decision and what came of it. Null is as good as absent; only the model has to be there."""

    request_id: str | int | None = None
    session_id: str | int | None = None
    router: str | None = None
    time: _Time | None = None
    prompt: _Prompt | None = None
    embedding: _Vector | None = None
    features: _Vector | None = None
    numeric: dict[str, _Number | None] | None = None
    categorical: dict[str, str | int | None] | None = None
    model: str
    propensity: _Share | None = None
    candidates: _Listed | _ByModel | None = None
    incumbent_model: str | None = None
    proposed_model: str | None = None
    sticky: bool | None = None
    exploit_only: bool | None = None
    price_of_money: Annotated[float, Meta(ge=0, le=_NUMBER_MAX)] | None = None
    reward: _Share | None = None
    cost_usd: _Usd | None = None
    input_tokens: _Tokens | None = None
    output_tokens: _Tokens | None = None
    cached_input_tokens: _Tokens | None = None
    latency_seconds: _Seconds | None = None
    error: ModelError | None = None
    served_model: str | None = None

    @property
    def given_candidates(self) -> list[CandidateRow]:
        """The candidates, in whatever form they are given. Raises InvalidFieldError for one without a model, or
        that stands twice.
        """
        given = self.candidates or ()
        if isinstance(given, dict):
            return [_named(model, value) for model, value in given.items()]
        found = [CandidateRow(each) if isinstance(each, str) else each for each in given]
        models = [each.model for each in found]
        if "" in models:
            raise InvalidFieldError(f"candidates[{models.index('')}].model", "must be there")
        if len(set(models)) < len(models):
            raise InvalidFieldError("candidates", "must name each model once")
        return found

    @property
    def given_numeric(self) -> dict[str, float]:
        """The numeric features that are there."""
        return {name: value for name, value in (self.numeric or {}).items() if value is not None}

    @property
    def given_categorical(self) -> dict[str, str]:
        """The categorical features that are there; a whole number is taken for a text, since ids often are."""
        return {name: str(value) for name, value in (self.categorical or {}).items() if value is not None}

    @property
    def time_us(self) -> int | None:
        """Microseconds since 1970, if the time is known."""
        if self.time is None:
            return None
        return round((self.time.timestamp() if isinstance(self.time, datetime) else self.time) * 1e6)


class _Strict(Row, forbid_unknown_fields=True):
    """A row without fields that no row has."""


_FIELDS = frozenset(Row.__struct_fields__)
_strict = msgspec.json.Decoder(_Strict)
_lenient = msgspec.json.Decoder(Row)

OnIgnored = Callable[[set[str]], object]


def row_of_json(line: str, on_ignored: OnIgnored) -> Row:
    """The row of a line of JSON; `on_ignored` hears of fields in it that no row has. Raises InvalidFieldError."""
    try:
        return _strict.decode(line)
    except (msgspec.DecodeError, RecursionError):
        pass
    try:
        # Python's own reader also takes halves of surrogate pairs, of which other writers leave some.
        values = json.loads(line)
        line = json.dumps(values, ensure_ascii=False).encode("utf-8", "replace").decode()
    except (ValueError, RecursionError) as error:  # An integer of 5,000 digits is no JSONDecodeError.
        raise InvalidFieldError("line", f"is not JSON: {error}") from error
    return _checked(values, lambda: _lenient.decode(line), on_ignored)


def row_of_values(values: dict[str, Any], on_ignored: OnIgnored) -> Row:
    """The row of values as Parquet has them, likewise."""
    return _checked(values, lambda: msgspec.convert(values, Row), on_ignored)


def _checked(values: Any, read: Callable[[], Row], on_ignored: OnIgnored) -> Row:
    try:
        row = read()
    except msgspec.ValidationError as error:
        raise _refusal(str(error), values) from error
    except msgspec.DecodeError as error:
        raise InvalidFieldError("line", f"is not JSON: {error}") from error
    if unknown := values.keys() - _FIELDS:
        on_ignored(unknown)
    return row


def _named(model: str, value: float | CandidateRow | None) -> CandidateRow:
    if isinstance(value, CandidateRow):
        if value.model not in {"", model}:
            raise InvalidFieldError(f"candidates[{model}].model", f"must be {model!r} or not there")
        value.model = model
        return value
    return CandidateRow(model, value)


_WORDS = {
    "float": "a number",
    "int": "a whole number",
    "str": "a text",
    "bool": "true or false",
    "object": "an object",
    "array": "a list",
    "datetime": "a time with its zone, as 2026-01-31T12:00:00Z",
    "null": "null",
}


def _refusal(message: str, values: Any) -> InvalidFieldError:
    """What msgspec says, by the field's path and in the words of this format."""
    what, _, path = message.partition(" - at `$")
    field = path.rstrip("`").removeprefix(".")
    if "[...]" in field:
        field = field.replace("[...]", f"[{_key_at_fault(field.partition('[')[0], values)}]")
    if missing := re.fullmatch(r"Object missing required field `(\w+)`", what):
        return InvalidFieldError(missing[1], "must be there")
    if unknown := re.fullmatch(r"Object contains unknown field `(.*)`", what):
        return InvalidFieldError(f"{field}.{unknown[1]}", "is no field of a candidate")
    if "enum value" in what:
        return InvalidFieldError(field, f"must be one of {', '.join(ModelError)}, not {values[field]!r:.80}")
    if "RFC3339" in what:
        return InvalidFieldError(field, f"must be {_WORDS['datetime']}, or seconds since 1970")
    return InvalidFieldError(field or "line", _sentence(what))


def _sentence(what: str) -> str:
    expected = re.fullmatch(r"Expected `([^`]*)`(?: with a timezone component)?(.*)", what)
    if expected is None:
        return f"is refused: {what.lower()}"
    kinds = " or ".join(_WORDS.get(kind, kind) for kind in expected[1].split(" | ") if kind != "null")
    rest = re.sub(r"`(\w+)`", lambda found: _WORDS.get(found[1], found[1]), expected[2])
    return f"must be {kinds}{rest.replace(', got', ', not')}"


def _key_at_fault(name: str, values: Any) -> str:
    """msgspec does not say which key of a mapping has the value at fault."""
    for key, value in values[name].items():
        try:
            msgspec.convert({"model": "", name: {key: value}}, Row)
        except msgspec.ValidationError:
            return str(key)
    return "..."
