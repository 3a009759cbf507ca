"""Creates and retires candidate policies of a router."""

from __future__ import annotations

from policy.candidates import CandidateSpec
from policy.domain import require_router_id, require_text
from policy.promotion import Promotion, require_candidate_id
from server.registry import PolicyEntry, RouterEntry
from server.storage import policy_store as store
from server.storage.policy_store import Cause
from server.usecases.change_registry import ChangeRegistry

REASON_LENGTH_MAX = 1000
ACTOR_LENGTH_MAX = 256


class ChangePolicies:
    """Changes policies in the registry's own order, so that a policy and its router are never apart."""

    def __init__(self, change: ChangeRegistry) -> None:
        self._change = change

    async def create(self, router_id: str, spec: CandidateSpec, cause: Cause) -> PolicyEntry:
        """The policy as created, in shadow.

        Raises InvalidFieldError, RouterNotFoundError, AlreadyExistsError, NotAllowedNowError, QueueFullError,
        StorageUnavailableError.
        """
        require_router_id("policy_id", spec.id)
        require_candidate_id("policy_id", spec.id)
        check_cause(cause)
        entry = await self._change.apply(router_id, store.create_policy(router_id, spec, cause))
        return entry.policies[spec.id]

    async def put_promotion(
        self, router_id: str, settings: Promotion, revision: int | None, cause: Cause
    ) -> RouterEntry:
        """The router with these promotion settings. Raises RouterNotFoundError, StaleEtagError and as create."""
        check_cause(cause)
        return await self._change.apply(router_id, store.put_promotion(router_id, settings, revision, cause))

    async def retire(self, router_id: str, policy_id: str, revision: int | None, cause: Cause) -> PolicyEntry:
        """The policy as retired. Raises as create, and PolicyNotFoundError and StaleEtagError."""
        check_cause(cause)
        change = store.retire_policy(router_id, policy_id, revision, cause)
        return (await self._change.apply(router_id, change)).policies[policy_id]


def check_cause(cause: Cause) -> None:
    """Raises InvalidFieldError for what cannot be kept."""
    require_text("reason", cause.reason, REASON_LENGTH_MAX)
    require_text("actor", cause.actor, ACTOR_LENGTH_MAX)
