"""The registry in memory: every router with its models as of now, replaced whole at each change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from policy.canary import Canary
from policy.candidates import CandidateSpec
from policy.domain import Model, Router
from policy.promotion import PolicyState, Promotion


@dataclass(frozen=True, slots=True)
class Stamp:
    """What the registry keeps beside a spec. Times are microseconds since 1970."""

    revision: int
    create_us: int
    update_us: int


@dataclass(frozen=True, slots=True)
class PolicyEntry:
    """A candidate policy as registered. `create_seq` is the position from which on it is evaluated."""

    spec: CandidateSpec
    state: PolicyState
    canary_share: float
    create_seq: int
    stamp: Stamp


@dataclass(frozen=True, slots=True)
class RouterEntry:
    """A router as registered. `removed_models` are the ids of models it once had, `policies` all by id."""

    router: Router
    stamp: Stamp
    model_stamps: Mapping[str, Stamp]
    removed_models: frozenset[str] = frozenset()
    by_id: Mapping[str, Model] = field(default_factory=dict)
    policies: Mapping[str, PolicyEntry] = field(default_factory=dict)
    canary: Canary | None = None
    promotion: Promotion = Promotion()
    promotion_revision: int = 0

    def model(self, model_id: str) -> Model | None:
        """The model of this id, or None."""
        return self.by_id.get(model_id)


class Registry:
    """The routers by id. Reads never wait; `replace` swaps one router in a single assignment."""

    def __init__(self) -> None:
        self._entries: Mapping[str, RouterEntry] = MappingProxyType({})

    def entry(self, router_id: str) -> RouterEntry | None:
        """The router with its stamps, or None."""
        return self._entries.get(router_id)

    def entries(self) -> list[RouterEntry]:
        """All routers, by id."""
        return [self._entries[key] for key in sorted(self._entries)]

    def router(self, router_id: str) -> Router | None:
        """The router, or None."""
        entry = self._entries.get(router_id)
        return entry.router if entry else None

    def knows_model(self, router_id: str, model_id: str) -> bool:
        """Whether the router has, or once had, this model. Of a deleted router nothing is known, so all pass."""
        entry = self._entries.get(router_id)
        return entry is None or model_id in entry.by_id or model_id in entry.removed_models

    def replace(self, router_id: str, entry: RouterEntry | None) -> None:
        """Puts the router's new state in place; None removes it."""
        entries = dict(self._entries)
        entries.pop(router_id, None)
        if entry is not None:
            entries[router_id] = entry
        self._entries = MappingProxyType(entries)
