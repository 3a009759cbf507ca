"""PromotePolicy: takes a candidate to its next state, if what is known of it allows that."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

from policy.confidence import Contrast
from policy.domain import InvalidFieldError, require_number
from policy.evidence import Metric
from policy.league import CandidateResult
from policy.promotion import PolicyState, require_canary_share
from policy.verdict import Outcome, Requirements, Verdict, judge
from server.errors import (
    EvaluationUnavailableError,
    NotPromotableError,
    PolicyNotFoundError,
    RouterNotFoundError,
)
from server.evaluation_loop import Found
from server.registry import PolicyEntry, Registry
from server.storage import policy_store as store
from server.storage.policy_store import Cause
from server.usecases.change_policies import check_cause
from server.usecases.change_registry import ChangeRegistry

_HOLDBACK_MAX = 0.99

Find = Callable[[str], Found | None]
"""What the evaluation knows of a router; may wait for a page of the log, for a second at most, and then raises
EvaluationUnavailableError.
"""


@dataclass(frozen=True, slots=True)
class PromoteCommand:
    """A request to take a policy to another state. `requirements` None are the router's own."""

    router_id: str
    policy_id: str
    state: PolicyState
    canary_share: float = 0.0
    force: bool = False
    reason: str = ""
    actor: str = ""
    revision: int | None = None
    requirements: Requirements | None = None
    automatic: bool = False
    holdback_share: float = 0.0


class PromotePolicy:
    """Judges by the evaluation as it is now, and changes in the registry's own order."""

    def __init__(self, registry: Registry, change: ChangeRegistry, find: Find) -> None:
        self._registry = registry
        self._change = change
        self._find = find

    async def __call__(self, command: PromoteCommand) -> PolicyEntry:
        """The policy in its new state.

        Raises InvalidFieldError, RouterNotFoundError, PolicyNotFoundError, StaleEtagError, NotPromotableError,
        NotAllowedNowError, EvaluationUnavailableError, QueueFullError, StorageUnavailableError.
        """
        before = self._check(command)
        cause = Cause(command.actor, command.reason, command.force, command.automatic)
        check_cause(cause)
        if _more_traffic(before, command):
            cause = replace(cause, evidence=await self._judged(command))
        return await self.move(command, cause)

    async def move(self, command: PromoteCommand, cause: Cause, good_until: int | None = None) -> PolicyEntry:
        """Does it without asking the evaluation. With `good_until` the learner goes back to what it knew there.

        Raises as the call does.
        """
        where = (command.router_id, command.policy_id)
        if command.state is PolicyState.LIVE:
            change = store.go_live(*where, command.revision, cause, command.holdback_share, good_until)
        else:
            change = store.serve_policy(*where, command.state, command.canary_share, command.revision, cause)
        return (await self._change.apply(command.router_id, change)).policies[command.policy_id]

    def _check(self, command: PromoteCommand) -> PolicyEntry:
        if command.state is PolicyState.CANARY:
            require_canary_share(command.canary_share)
        elif command.canary_share:
            raise InvalidFieldError("canary_share", "must be 0 but for a canary")
        require_number("holdback_share", command.holdback_share, 0.0, _HOLDBACK_MAX)
        if command.holdback_share and command.state is not PolicyState.LIVE:
            raise InvalidFieldError("holdback_share", "must be 0 but for a policy that goes live")
        if command.force and not command.reason:
            raise InvalidFieldError("reason", "must be set with force")
        entry = self._registry.entry(command.router_id)
        if entry is None:
            raise RouterNotFoundError(command.router_id)
        policy = entry.policies.get(command.policy_id)
        if policy is None:
            raise PolicyNotFoundError(command.router_id, command.policy_id)
        return policy

    async def _judged(self, command: PromoteCommand) -> str:
        """The evidence as JSON. Raises NotPromotableError or EvaluationUnavailableError, unless it is forced."""
        try:
            found = await self._known(command.router_id)
        except EvaluationUnavailableError:
            if command.force:
                return "{}"
            raise
        result = next((each for each in found.results.candidates if each.id == command.policy_id), None)
        if result is None:
            if command.force:
                return "{}"
            raise NotPromotableError(
                f"{command.policy_id} is not evaluated yet", {"outcome": Outcome.REFUSED.value}
            )
        requirements = command.requirements or found.requirements
        verdict = judge(requirements, result.support, result.sequences)
        if verdict.outcome is not Outcome.PASSED and not command.force:
            reasons = {f"reason_{number}": each for number, each in enumerate(verdict.reasons, 1)}
            raise NotPromotableError(
                f"{command.policy_id} is {verdict.outcome}: {verdict.reasons[0]}",
                {"outcome": verdict.outcome.value, **reasons},
            )
        return evidence(replace(found, requirements=requirements), result, verdict)

    async def _known(self, router_id: str) -> Found:
        """What is known of a router as it is now: what was found against a policy that is no longer live, say, is
        no evidence. Raises EvaluationUnavailableError.
        """
        found = await asyncio.to_thread(self._find, router_id)
        entry = self._registry.entry(router_id)
        if found is None or entry is None or found.position < entry.stamp.revision:
            raise EvaluationUnavailableError(router_id)
        return found


def evidence(found: Found, result: CandidateResult, verdict: Verdict) -> str:
    """What is known of a candidate, as JSON for the record."""
    gain = result.sequences[Contrast(Metric.UTILITY)]
    return json.dumps(
        {
            "position": found.position,
            "since": found.since,
            "events": result.support.events,
            "utility_gain": [gain.low, gain.high] if result.support.events else None,
            "outcome": verdict.outcome,
            "reasons": verdict.reasons,
            "requirements": asdict(found.requirements),
        }
    )


def _more_traffic(before: PolicyEntry, command: PromoteCommand) -> bool:
    """Whether the policy is to decide more than it does."""
    return command.state is PolicyState.LIVE or command.canary_share > before.canary_share
