"""Routers and models from a YAML file, applied at the start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from policy.domain import InvalidFieldError, ModelSpec, RouterSpec, require_model_id, require_router_id
from policy.policies import parse_policy
from server.storage.codec import parse_spec
from server.storage.retention import require_window


@dataclass(frozen=True, slots=True)
class DeclaredRouter:
    """A router as a file declares it; `models` by id, in the order of the file."""

    id: str
    spec: RouterSpec
    models: Mapping[str, ModelSpec]


class ConfigError(Exception):
    """A file that cannot be applied. The message names the file, the place and what would be right."""


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice in a mapping, where YAML's readers would silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = next((key for position, key in enumerate(keys) if key in keys[:position]), None)
        if twice is not None:
            raise yaml.constructor.ConstructorError(None, None, f"the key {twice!r} stands twice", node.start_mark)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> object:
    """What the YAML file holds. Raises ConfigError."""
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 (a SafeLoader)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    # A date such as 2026-13-45 is a ValueError, as is text that is not UTF-8.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: is not YAML: {' '.join(str(error).split())}") from error


def read_config(path: Path, window_seconds_max: float | None = None) -> list[DeclaredRouter]:
    """The routers that the file declares, whose join windows may be so long. Raises ConfigError."""
    document = read_yaml(path)
    try:
        routers = _mapping("", document)
        if set(routers) != {"routers"}:
            raise InvalidFieldError("routers", "must be the one key at the top")
        found = [_router(str(key), value) for key, value in _mapping("routers", routers["routers"]).items()]
        for router in found:
            require_window(router.spec, window_seconds_max, f"routers.{router.id}.")
        return found
    except InvalidFieldError as error:
        raise ConfigError(f"{path}: {error}") from error


def _router(router_id: str, value: object) -> DeclaredRouter:
    place = f"routers.{router_id}"
    try:
        require_router_id("id", router_id)
        values = dict(_mapping("", value))
        members = _mapping("models", values.pop("models", {}))
        spec = parse_spec(RouterSpec, values)
        parse_policy(spec.policy)
    except InvalidFieldError as error:
        raise _at(place, error) from error
    return DeclaredRouter(
        router_id, spec, {str(key): _model(place, str(key), each) for key, each in members.items()}
    )


def _model(place: str, model_id: str, value: object) -> ModelSpec:
    try:
        require_model_id("id", model_id)
        return parse_spec(ModelSpec, _mapping("", value))
    except InvalidFieldError as error:
        raise _at(f"{place}.models.{model_id}", error) from error


def _at(place: str, error: InvalidFieldError) -> InvalidFieldError:
    return InvalidFieldError(f"{place}.{error.field}" if error.field else place, error.message)


def _mapping(field: str, value: object) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidFieldError(field, f"must be a mapping, not {type(value).__name__}")
    return value
