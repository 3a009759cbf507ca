"""Reads candidates from a YAML file."""

from __future__ import annotations

from pathlib import Path

from policy.candidates import CandidateSpec, parse_candidate
from policy.domain import InvalidFieldError
from server.config_file import read_yaml
from server.storage.codec import parse_spec


def read_candidates(path: Path) -> list[CandidateSpec]:
    """The candidates of a file. Raises ConfigError.

    The file is `candidates:` and under it, by name, a short form as `parse_candidate` takes it, or the fields of a
    CandidateSpec.
    """
    document = read_yaml(path)
    try:
        if not isinstance(document.value, dict) or set(document.value) != {"candidates"}:
            raise InvalidFieldError("candidates", "must be the one key at the top")
        named = document.value["candidates"]
        if not isinstance(named, dict) or not named:
            raise InvalidFieldError("candidates", "must be a mapping of names to candidates")
        return [_candidate(str(name), value) for name, value in named.items()]
    except InvalidFieldError as error:
        raise document.error(error) from error


def _candidate(name: str, value: object) -> CandidateSpec:
    place = f"candidates.{name}"
    try:
        if isinstance(value, str):
            return parse_candidate(name, value)
        if not isinstance(value, dict) or "id" in value:
            raise InvalidFieldError("", "must be a short form or a mapping of fields without id")
        return parse_spec(CandidateSpec, {"id": name, **value})
    except InvalidFieldError as error:
        raise InvalidFieldError(f"{place}.{error.field}" if error.field else place, error.message) from error
