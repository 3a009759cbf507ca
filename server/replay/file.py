"""Reads replay files: JSON lines, optionally gzipped, one query with every model's outcome a line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from policy.domain import (
    MODELS_PER_ROUTER_MAX,
    TOKENS_MAX,
    InvalidFieldError,
    require_model_id,
    require_number,
)
from policy.simulation import Outcome
from server.json_lines import UnreadableFileError, numbered_lines, parsed

_PROMPT_MAX = 1 << 20


class ReplayFileError(Exception):
    """A file that cannot be replayed. The message names the file, the line and the field."""


@dataclass(frozen=True, slots=True)
class ReplayRow:
    """One query with the outcome of every model."""

    prompt: str
    split: str | None
    outcomes: dict[str, Outcome]


@dataclass(frozen=True, slots=True)
class ReplayFile:
    """The rows of a file; every row has an outcome for every one of `models`."""

    models: tuple[str, ...]
    rows: list[ReplayRow]


def read_replay(path: Path, on_line: Callable[[], object] = lambda: None) -> ReplayFile:
    """Reads the whole file; `on_line` is called for each line. Raises ReplayFileError."""
    try:
        return _read(path, on_line)
    except UnreadableFileError as error:
        raise ReplayFileError(str(error)) from error


def _read(path: Path, on_line: Callable[[], object]) -> ReplayFile:
    rows: list[ReplayRow] = []
    for number, line in numbered_lines(path):
        try:
            row = _row(parsed(line))
        except InvalidFieldError as error:
            raise ReplayFileError(f"{path}:{number}: {error}") from error
        if rows and row.outcomes.keys() != rows[0].outcomes.keys():
            odd = sorted(row.outcomes.keys() ^ rows[0].outcomes.keys())
            raise ReplayFileError(
                f"{path}:{number}: outcomes: must be of the same models in every line; {odd[0]!r} is not"
            )
        rows.append(row)
        on_line()
    if len(rows) < 2:
        raise ReplayFileError(f"{path}: must have at least two lines, not {len(rows)}")
    return ReplayFile(tuple(rows[0].outcomes), rows)


def _row(value: Any) -> ReplayRow:
    if not isinstance(value, dict):
        raise InvalidFieldError("line", "must be a JSON object")
    prompt, split, outcomes = value.get("prompt"), value.get("split"), value.get("outcomes")
    if not isinstance(prompt, str) or len(prompt) > _PROMPT_MAX:
        raise InvalidFieldError("prompt", f"must be a text of at most {_PROMPT_MAX:,} characters")
    if split not in (None, "learn", "measure"):
        raise InvalidFieldError("split", f"must be 'learn' or 'measure' if it is there, not {split!r}")
    if not isinstance(outcomes, dict) or not 1 <= len(outcomes) <= MODELS_PER_ROUTER_MAX:
        raise InvalidFieldError(
            "outcomes", f"must be an object of 1 to {MODELS_PER_ROUTER_MAX} models and what came of them"
        )
    text = prompt.encode("utf-8", "replace").decode()  # JSON may hold halves of surrogate pairs.
    return ReplayRow(text, split, {str(key): _outcome(str(key), each) for key, each in outcomes.items()})


def _outcome(model: str, value: Any) -> Outcome:
    require_model_id("outcomes", model)
    place = f"outcomes[{model}]"
    if not isinstance(value, dict):
        raise InvalidFieldError(place, "must be an object with quality and cost_usd")
    return Outcome(
        quality=_number(f"{place}.quality", value.get("quality"), 1.0),
        cost_usd=_number(f"{place}.cost_usd", value.get("cost_usd"), 1e6),
        input_tokens=int(_number(f"{place}.input_tokens", value.get("input_tokens", 0), TOKENS_MAX)),
        output_tokens=int(_number(f"{place}.output_tokens", value.get("output_tokens", 0), TOKENS_MAX)),
    )


def _number(field: str, value: Any, most: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidFieldError(field, f"must be a number, not {value!r}")
    require_number(field, value, 0, most)
    return float(value)
