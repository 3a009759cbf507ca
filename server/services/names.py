"""Resource names on the wire, and the ids they stand for."""

from __future__ import annotations

from policy.domain import DEFAULT_ROUTER, InvalidFieldError

_ROUTERS = "routers/"
_MODELS = "/models/"
_POLICIES = "/policies/"
_SNAPSHOTS = "/snapshots/"
_PROMOTION = "/promotionSettings"


def router_name(router_id: str) -> str:
    """The full name of a router."""
    return _ROUTERS + router_id


def model_name(router_id: str, model_id: str) -> str:
    """The full name of a model."""
    return f"{_ROUTERS}{router_id}{_MODELS}{model_id}"


def policy_name(router_id: str, policy_id: str) -> str:
    """The full name of a policy."""
    return f"{_ROUTERS}{router_id}{_POLICIES}{policy_id}"


def snapshot_name(router_id: str, snapshot_id: str) -> str:
    """The full name of a snapshot."""
    return f"{_ROUTERS}{router_id}{_SNAPSHOTS}{snapshot_id}"


def promotion_name(router_id: str) -> str:
    """The full name of a router's promotion settings."""
    return f"{_ROUTERS}{router_id}{_PROMOTION}"


def parse_promotion(field: str, name: str) -> str:
    """The router's id of a full name. Raises InvalidFieldError."""
    router_id = name.removeprefix(_ROUTERS).removesuffix(_PROMOTION)
    if name != promotion_name(router_id) or not _can_be_id(router_id) or "/" in router_id:
        raise InvalidFieldError(field, f"must be 'routers/ROUTER/promotionSettings', not {name[:160]!r}")
    return router_id


def parse_policy_name(field: str, name: str) -> tuple[str, str]:
    """The ids of the router and the policy of a full name. Raises InvalidFieldError."""
    return _member(field, name, _POLICIES, "policies/POLICY")


def parse_snapshot_name(field: str, name: str) -> tuple[str, str]:
    """The ids of the router and the snapshot of a full name. Raises InvalidFieldError."""
    return _member(field, name, _SNAPSHOTS, "snapshots/SNAPSHOT")


def parse_router(field: str, name: str) -> str:
    """The router's id; an empty name is the default router. Raises InvalidFieldError."""
    if not name:
        return DEFAULT_ROUTER
    router_id = name.removeprefix(_ROUTERS)
    if router_id == name or not _can_be_id(router_id) or "/" in router_id:
        raise InvalidFieldError(field, f"must be 'routers/ROUTER', not {name[:80]!r}")
    return router_id


def parse_model(field: str, name: str) -> tuple[str, str]:
    """The ids of the router and the model of a full name. Raises InvalidFieldError."""
    return _member(field, name, _MODELS, "models/MODEL")


def _member(field: str, name: str, collection: str, form: str) -> tuple[str, str]:
    router, separator, member = name.removeprefix(_ROUTERS).partition(collection)
    named = name.startswith(_ROUTERS) and separator and _can_be_id(router) and _can_be_id(member)
    if not named or "/" in router:
        raise InvalidFieldError(field, f"must be 'routers/ROUTER/{form}', not {name[:160]!r}")
    return router, member


def _can_be_id(text: str) -> bool:
    """A NUL is in no id, and not every database can be asked for one that has it."""
    return bool(text) and "\0" not in text


def short_model(router_id: str, name: str) -> str:
    """A model's id from its id or its full name."""
    return name.removeprefix(f"{_ROUTERS}{router_id}{_MODELS}")
