"""Routers and models from a YAML file, applied at the start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from policy.domain import InvalidFieldError, ModelSpec, RouterSpec, require_model_id, require_router_id
from policy.policy_name import require_policy
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


@dataclass(frozen=True, slots=True)
class YamlFile:
    """What a YAML file holds, and where."""

    path: Path
    value: object
    root: yaml.Node | None

    def error(self, error: InvalidFieldError) -> ConfigError:
        """What is wrong with a field, with its line, or that of the nearest part of the file that is there."""
        return ConfigError(f"{self.path}:{_line(self.root, error.field)}: {error}")


def read_yaml(path: Path) -> YamlFile:
    """What the YAML file holds. Raises ConfigError."""
    try:
        loader = _Loader(path.read_text(encoding="utf-8"))
        root = loader.get_single_node()
        return YamlFile(path, None if root is None else loader.construct_document(root), root)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = mark.line + 1 if mark else 1
        raise ConfigError(f"{path}:{line}: is not YAML: {error.problem or error.context}") from error
    # A date such as 2026-13-45 is a ValueError, as is text that is not UTF-8.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: is not YAML: {' '.join(str(error).split())}") from error


def _line(node: yaml.Node | None, place: str) -> int:
    """The line of a field such as routers.a.models.gpt-4.1.prices, or of as much of it as there is."""
    line = 1
    while isinstance(node, yaml.MappingNode):
        # Ids have dots in them: of the keys that the place could begin with the longest is meant.
        here = [(key, value) for key, value in node.value if _begins(place, key)]
        if not here:
            break
        key, node = max(here, key=lambda each: len(each[0].value))
        line = key.start_mark.line + 1
        place = place[len(key.value) :].lstrip(".[")
    return line


def _begins(place: str, key: yaml.Node) -> bool:
    value = str(key.value)
    return place.startswith(value) and place[len(value) : len(value) + 1] in ("", ".", "[", "]")


def read_config(path: Path, window_seconds_max: float | None = None) -> list[DeclaredRouter]:
    """The routers that the file declares, whose join windows may be so long. Raises ConfigError."""
    document = read_yaml(path)
    try:
        routers = _mapping("", document.value)
        if set(routers) != {"routers"}:
            wrong = next((str(key) for key in routers if key != "routers"), None)
            if wrong is not None:
                raise InvalidFieldError(wrong, "must not be here: routers is the one key at the top")
            raise InvalidFieldError("routers", "must be the one key at the top")
        found = [_router(str(key), value) for key, value in _mapping("routers", routers["routers"]).items()]
        for router in found:
            require_window(router.spec, window_seconds_max, f"routers.{router.id}.")
        return found
    except InvalidFieldError as error:
        raise document.error(error) from error


def _router(router_id: str, value: object) -> DeclaredRouter:
    place = f"routers.{router_id}"
    try:
        require_router_id("id", router_id)
        values = dict(_mapping("", value))
        members = _mapping("models", values.pop("models", {}))
        spec = parse_spec(RouterSpec, values)
        require_policy(spec.policy)
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
