"""What a server does with policies by itself: goes back to the former one, and promotes where it is told to."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

from policy.league import CandidateResult
from policy.promotion import PolicyState, is_former, live_spec, next_canary, reason_to_go_back
from policy.verdict import Outcome, judge
from server.errors import PointsmanError
from server.evaluation_loop import Found
from server.registry import Registry, RouterEntry
from server.storage.policy_store import Cause
from server.usecases.promote_policy import PromoteCommand, PromotePolicy, evidence

logger = logging.getLogger(__name__)

ACTOR = "pointsman"


class Steward:
    """Looks at what the evaluation has found of a router, whenever it has found more."""

    def __init__(self, registry: Registry, promote: PromotePolicy, clock_us: Callable[[], int]) -> None:
        self._registry = registry
        self._promote = promote
        self._clock_us = clock_us

    async def __call__(self, router_id: str, found: Found) -> None:
        """Does what is to be done; what cannot be done now is tried again when more is found."""
        entry = self._registry.entry(router_id)
        if entry is None or found.position < entry.stamp.revision:
            return  # It may have another policy since, or another objective: a later look will tell.
        try:
            if not await self._go_back(entry, found):
                await self._walk(entry, found)
        except PointsmanError as error:
            message = "routers/%s stays with its policy for now: %s"
            logger.warning(message, router_id, error.message, extra={"router": router_id})

    async def _go_back(self, entry: RouterEntry, found: Found) -> bool:
        """Takes the former live policy back if it is known to be better than the one that was promoted.

        Where the live one has crossed a guardrail, the learner too goes back to what it knew before that began.
        One that came back itself is not left in this way again: two policies that are about as good would
        otherwise take turns for ever.
        """
        live = [each for each in entry.policies.values() if each.state is PolicyState.LIVE]
        if not live or is_former(live[0].spec.id):
            return False
        waiting = {name for name, each in entry.policies.items() if is_former(name) and each.state.evaluated}
        result = next((each for each in found.results.candidates if each.id in waiting), None)
        if result is None:
            return False
        crossed = found.crossed if found.since >= live[0].stamp.revision else None
        reason = crossed.sentence if crossed else reason_to_go_back(result, found.requirements)
        if not reason:
            return False
        good_until = crossed.since if crossed else None
        await self._move(entry, found, result, PolicyState.LIVE, reason, good_until=good_until)
        return True

    async def _walk(self, entry: RouterEntry, found: Found) -> None:
        """One step of a candidate, where the router has its candidates promoted automatically."""
        settings = entry.promotion
        if not settings.automatic_canary_share:
            return
        if entry.canary is None:
            shadows = [
                name
                for name, each in entry.policies.items()
                if each.state is PolicyState.SHADOW and not is_former(name)
            ]
            passed = next_canary(found.results, shadows)
            if passed is not None:
                share = settings.automatic_canary_share
                await self._move(entry, found, passed, PolicyState.CANARY, "it passes", share)
            return
        canary = entry.policies[entry.canary.spec.id]
        result = next((each for each in found.results.candidates if each.id == canary.spec.id), None)
        if result is None:
            return
        served_seconds = (self._clock_us() - canary.stamp.update_us) * 1e-6
        if result.verdict.outcome is Outcome.FAILED:
            await self._move(entry, found, result, PolicyState.SHADOW, result.verdict.reasons[0])
            return
        possible = (
            live_spec(canary.spec, entry.router.spec) is not None and served_seconds >= settings.canary_seconds
        )
        if possible and result.verdict.outcome is Outcome.PASSED:
            reason = f"it passes after {served_seconds:.0f} s as a canary"
            await self._move(entry, found, result, PolicyState.LIVE, reason, settings.automatic_canary_share)

    async def _move(
        self,
        entry: RouterEntry,
        found: Found,
        result: CandidateResult,
        state: PolicyState,
        reason: str,
        share: float = 0.0,
        good_until: int | None = None,
    ) -> None:
        known = evidence(found, result, judge(found.requirements, result.support, result.sequences))
        cause = Cause(ACTOR, reason, automatic=True, evidence=known)
        # What was found may be older than what somebody has done since.
        revision = entry.policies[result.id].stamp.revision
        command = PromoteCommand(entry.router.id, result.id, state, revision=revision)
        live = state is PolicyState.LIVE
        command = replace(command, holdback_share=share) if live else replace(command, canary_share=share)
        await self._promote.move(command, cause, good_until)
        router = entry.router.id
        logger.warning("routers/%s: %s is %s: %s", router, result.id, state, reason, extra={"router": router})
