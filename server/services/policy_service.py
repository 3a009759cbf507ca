"""PolicyService: candidate policies on the wire."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

from pointsman.v1 import policy_service_pb2 as pb
from pointsman.v1 import policy_service_pb2_grpc as pb_grpc

from policy.domain import InvalidFieldError
from policy.promotion import PolicyState
from server.errors import EvaluationUnavailableError, PolicyNotFoundError, RouterNotFoundError, StaleEtagError
from server.registry import PolicyEntry, Registry, RouterEntry
from server.services.evaluations import evaluation_to_proto, requirements_from_proto
from server.services.names import (
    parse_policy_name,
    parse_promotion,
    parse_router,
    parse_snapshot_name,
    snapshot_name,
)
from server.services.pages import page_of, page_size
from server.services.peer import caller_address
from server.services.policies import (
    STATES,
    candidate_from_proto,
    policy_to_proto,
    promotion_from_proto,
    promotion_to_proto,
    transition_to_proto,
)
from server.services.status import Context, streamed, translated
from server.services.times import timestamp
from server.storage.archive import SnapshotInfo
from server.storage.policy_store import Cause
from server.storage.snapshot_file import FILE_BYTES_MAX
from server.usecases.change_policies import ChangePolicies
from server.usecases.promote_policy import Find, PromoteCommand, PromotePolicy
from server.usecases.snapshots import Snapshots

_CHUNK_BYTES = 1 << 20
# A position that every database can count to, and the id of a policy, which a change of settings has none of.
_TRANSITION = re.compile(r"([0-9]{1,18}):([A-Za-z0-9._-]{0,63})\Z")


class PolicyService(pb_grpc.PolicyServiceServicer):
    """Translates; ChangePolicies, PromotePolicy and Snapshots change."""

    def __init__(
        self,
        registry: Registry,
        change: ChangePolicies,
        promote: PromotePolicy,
        find: Find,
        transitions: Callable[[int, tuple[int, str], int], Awaitable[Sequence[Any]]],
        snapshots: Snapshots,
    ) -> None:
        self._registry = registry
        self._change = change
        self._promote = promote
        self._find = find
        self._transitions = transitions
        self._snapshots = snapshots

    @translated
    async def CreatePolicy(self, request: pb.CreatePolicyRequest, context: Context) -> pb.CreatePolicyResponse:
        """Creates a candidate."""
        router_id = parse_router("parent", request.parent)
        spec = candidate_from_proto(router_id, request.policy_id, request.policy)
        created = await self._change.create(router_id, spec, Cause(_actor(request.actor, context)))
        return pb.CreatePolicyResponse(policy=policy_to_proto(router_id, created))

    @translated
    async def GetPolicy(self, request: pb.GetPolicyRequest, context: Context) -> pb.GetPolicyResponse:
        """Reads a policy."""
        router_id, _, entry = self._member(request.name)
        return pb.GetPolicyResponse(policy=policy_to_proto(router_id, entry))

    @translated
    async def ListPolicies(self, request: pb.ListPoliciesRequest, context: Context) -> pb.ListPoliciesResponse:
        """Lists a router's policies."""
        entry = self._router(parse_router("parent", request.parent))
        names = sorted(entry.policies)
        found = [entry.policies[name] for name in names]
        page, token = page_of(found, names, request.page_size, request.page_token)
        shown = [policy_to_proto(entry.router.id, each) for each in page]
        return pb.ListPoliciesResponse(policies=shown, next_page_token=token)

    @translated
    async def RetirePolicy(self, request: pb.RetirePolicyRequest, context: Context) -> pb.RetirePolicyResponse:
        """Ends a candidate."""
        router_id, policy_id, entry = self._member(request.name)
        revision = _revision(request.name, request.etag, entry)
        cause = Cause(_actor(request.actor, context), request.reason)
        retired = await self._change.retire(router_id, policy_id, revision, cause)
        return pb.RetirePolicyResponse(policy=policy_to_proto(router_id, retired))

    @translated
    async def PromotePolicy(self, request: pb.PromotePolicyRequest, context: Context) -> pb.PromotePolicyResponse:
        """Takes a policy to another state."""
        router_id, policy_id, entry = self._member(request.name)
        command = PromoteCommand(
            router_id,
            policy_id,
            _target(request.state),
            request.canary_share,
            request.force,
            request.reason,
            _actor(request.actor, context),
            _revision(request.name, request.etag, entry),
            requirements_from_proto(request.requirements) if request.HasField("requirements") else None,
            holdback_share=request.holdback_share,
        )
        return pb.PromotePolicyResponse(policy=policy_to_proto(router_id, await self._promote(command)))

    @translated
    async def GetPromotionSettings(
        self, request: pb.GetPromotionSettingsRequest, context: Context
    ) -> pb.GetPromotionSettingsResponse:
        """Reads by what candidates are judged."""
        entry = self._router(parse_promotion("name", request.name))
        return pb.GetPromotionSettingsResponse(promotion_settings=promotion_to_proto(entry))

    @translated
    async def UpdatePromotionSettings(
        self, request: pb.UpdatePromotionSettingsRequest, context: Context
    ) -> pb.UpdatePromotionSettingsResponse:
        """Changes by what candidates are judged."""
        given = request.promotion_settings
        entry = self._router(parse_promotion("promotion_settings.name", given.name))
        if given.etag and given.etag != str(entry.promotion_revision):
            raise StaleEtagError(given.name)
        revision = entry.promotion_revision if given.etag else None
        cause = Cause(_actor(request.actor, context), request.reason)
        changed = await self._change.put_promotion(entry.router.id, promotion_from_proto(given), revision, cause)
        return pb.UpdatePromotionSettingsResponse(promotion_settings=promotion_to_proto(changed))

    @translated
    async def ListTransitions(
        self, request: pb.ListTransitionsRequest, context: Context
    ) -> pb.ListTransitionsResponse:
        """Lists what has been done with a router's policies."""
        router = self._router(parse_router("parent", request.parent)).router
        size = page_size(request.page_size)
        rows = await self._transitions(router.uid, _after(request.page_token), size + 1)
        last = rows[size - 1] if len(rows) > size else None
        return pb.ListTransitionsResponse(
            transitions=[transition_to_proto(each) for each in rows[:size]],
            next_page_token=f"{last.seq}:{last.policy}" if last else "",
        )

    @translated
    async def ListSnapshots(self, request: pb.ListSnapshotsRequest, context: Context) -> pb.ListSnapshotsResponse:
        """Lists the learner's saved states."""
        router_id = self._router(parse_router("parent", request.parent)).router.id
        found = await self._snapshots.list(router_id)
        # Of one length, so that they are in order as texts, too.
        keys = [f"{each.time_us:019}{each.id}" for each in found]
        page, token = page_of(found, keys, request.page_size, request.page_token)
        shown = [_snapshot_to_proto(router_id, each) for each in page]
        return pb.ListSnapshotsResponse(snapshots=shown, next_page_token=token)

    @streamed
    async def ExportSnapshot(
        self, request: pb.ExportSnapshotRequest, context: Context
    ) -> AsyncIterator[pb.ExportSnapshotResponse]:
        """Gives a snapshot as a file."""
        router_id, snapshot_id = parse_snapshot_name("name", request.name)
        data = await self._snapshots.export(router_id, snapshot_id, request.name)
        for start in range(0, len(data), _CHUNK_BYTES):
            yield pb.ExportSnapshotResponse(chunk=data[start : start + _CHUNK_BYTES])

    @translated
    async def ImportSnapshot(
        self, request: AsyncIterator[pb.ImportSnapshotRequest], context: Context
    ) -> pb.ImportSnapshotResponse:
        """Adds a file that was exported."""
        router_id, chunks, size = "", [], 0
        async for part in request:
            router_id = router_id or parse_router("parent", part.parent)
            size += len(part.chunk)
            if size > FILE_BYTES_MAX:
                raise InvalidFieldError("chunk", f"must be at most {FILE_BYTES_MAX:,} bytes in all")
            chunks.append(part.chunk)
        taken = await self._snapshots.take(router_id or parse_router("parent", ""), b"".join(chunks))
        return pb.ImportSnapshotResponse(snapshot=_snapshot_to_proto(router_id, taken))

    @translated
    async def RestoreSnapshot(
        self, request: pb.RestoreSnapshotRequest, context: Context
    ) -> pb.RestoreSnapshotResponse:
        """Goes back to a snapshot."""
        router_id, snapshot_id = parse_snapshot_name("name", request.name)
        entry = self._router(router_id)
        if request.etag and request.etag != str(entry.stamp.revision):
            raise StaleEtagError(f"routers/{router_id}")
        cause = Cause(_actor(request.actor, context), request.reason)
        revision = entry.stamp.revision if request.etag else None
        now = await self._snapshots.restore(router_id, snapshot_id, revision, cause)
        return pb.RestoreSnapshotResponse(known_models=now.known, new_models=now.new)

    @translated
    async def GetEvaluation(self, request: pb.GetEvaluationRequest, context: Context) -> pb.GetEvaluationResponse:
        """Says what is known of a router's candidates."""
        router_id = self._router(parse_router("router", request.router)).router.id
        # It may have to wait for a page of the log, for a second at most.
        found = await asyncio.to_thread(self._find, router_id)
        if found is None:
            raise EvaluationUnavailableError(router_id)
        return pb.GetEvaluationResponse(evaluation=evaluation_to_proto(router_id, found))

    def _router(self, router_id: str) -> RouterEntry:
        entry = self._registry.entry(router_id)
        if entry is None:
            raise RouterNotFoundError(router_id)
        return entry

    def _member(self, name: str) -> tuple[str, str, PolicyEntry]:
        router_id, policy_id = parse_policy_name("name", name)
        entry = self._router(router_id).policies.get(policy_id)
        if entry is None:
            raise PolicyNotFoundError(router_id, policy_id)
        return router_id, policy_id, entry


def _snapshot_to_proto(router_id: str, info: SnapshotInfo) -> pb.Snapshot:
    return pb.Snapshot(
        name=snapshot_name(router_id, info.id),
        create_time=timestamp(info.time_us),
        size_bytes=info.size,
        source=info.source,
    )


def _revision(name: str, etag: str, entry: PolicyEntry) -> int | None:
    """The revision that the policy must still have when it is changed, None if any will do."""
    if etag and etag != str(entry.stamp.revision):
        raise StaleEtagError(name)
    return entry.stamp.revision if etag else None


def _actor(given: str, context: Context) -> str:
    return given or caller_address(context)


def _target(value: pb.PolicyState.ValueType) -> PolicyState:
    found = {number: state for state, number in STATES.items() if state is not PolicyState.RETIRED}
    if value not in found:
        raise InvalidFieldError("state", "must be POLICY_STATE_CANARY, POLICY_STATE_LIVE or POLICY_STATE_SHADOW")
    return found[value]


def _after(token: str) -> tuple[int, str]:
    """The position and the policy of the transition before the page; of the first page before all."""
    if not token:
        return 0, ""
    found = _TRANSITION.match(token)
    if found is None:
        raise InvalidFieldError("page_token", "must be the next_page_token of the page before")
    return int(found[1]), found[2]
