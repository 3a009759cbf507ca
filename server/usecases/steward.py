"""What a server does with policies by itself: it goes back to the former one if that was better."""

from __future__ import annotations

import logging

from policy.promotion import PolicyState, is_former, reason_to_go_back
from policy.verdict import judge
from server.errors import PointsmanError
from server.evaluation_loop import Found
from server.registry import Registry, RouterEntry
from server.storage.policy_store import Cause
from server.usecases.promote_policy import PromoteCommand, PromotePolicy, evidence

logger = logging.getLogger(__name__)

ACTOR = "pointsman"


class Steward:
    """Looks at what the evaluation has found of a router, whenever it has found more."""

    def __init__(self, registry: Registry, promote: PromotePolicy) -> None:
        self._registry = registry
        self._promote = promote

    async def __call__(self, router_id: str, found: Found) -> None:
        """Does what is to be done; what cannot be done now is tried again when more is found."""
        entry = self._registry.entry(router_id)
        if entry is None:
            return
        try:
            await self._go_back(entry, found)
        except PointsmanError as error:
            logger.warning("routers/%s stays with its policy for now: %s", router_id, error.message)

    async def _go_back(self, entry: RouterEntry, found: Found) -> None:
        """Takes the former live policy back if it is known to be better than the one that was promoted.

        One that came back itself is not left in this way again: two policies that are about as good would
        otherwise take turns for ever.
        """
        live = [each for each in entry.policies.values() if each.state is PolicyState.LIVE]
        if not live or is_former(live[0].spec.id):
            return
        waiting = {name for name, each in entry.policies.items() if is_former(name) and each.state.evaluated}
        result = next((each for each in found.results.candidates if each.id in waiting), None)
        requirements = found.settings.requirements
        reason = reason_to_go_back(result, requirements) if result is not None else ""
        if result is None or not reason:
            return
        verdict = judge(requirements, result.support, result.sequences)
        cause = Cause(ACTOR, reason, automatic=True, evidence=evidence(found, result, verdict, requirements))
        command = PromoteCommand(entry.router.id, result.id, PolicyState.LIVE)
        await self._promote.move(command, cause)
        logger.warning(
            "routers/%s goes back from %s to %s: %s", entry.router.id, live[0].spec.id, result.id, reason
        )
