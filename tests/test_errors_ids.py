"""No id, name or token is taken for storage that is away, or for a fault of ours: whatever characters it is of."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import pytest
from engines import BOTH_ENGINES
from pointsman.v1 import policy_service_pb2 as policy_pb
from pointsman.v1 import registry_service_pb2 as registry_pb
from pointsman.v1 import router_service_pb2 as pb
from servers import Disk, Running, eventually, refusal

from server.storage.archive import list_snapshots, read_snapshot
from server.storage.snapshot_file import dump_snapshot

pytestmark = BOTH_ENGINES

INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND

Call = Callable[[Running], Awaitable[Any]]


@pytest.fixture
async def ready(server: Running) -> AsyncIterator[Running]:
    """A server with a model that must still answer when the test is over."""
    await server.create_models(a={})
    yield server
    assert (await server.route(prompt="and now?")).model == "a"


def listing(server: Running, token: str) -> list[Awaitable[Any]]:
    """Each list, from after this token."""
    registry, policies = server.registry, server.policies
    return [
        policies.ListTransitions(policy_pb.ListTransitionsRequest(page_token=token)),
        policies.ListSnapshots(policy_pb.ListSnapshotsRequest(page_token=token)),
        policies.ListPolicies(policy_pb.ListPoliciesRequest(page_token=token)),
        registry.ListModels(registry_pb.ListModelsRequest(page_token=token)),
        registry.ListRouters(registry_pb.ListRoutersRequest(page_token=token)),
    ]


@pytest.mark.parametrize("token", ["9" * 30, "9" * 30 + ":", "1:\0", "1", ":x", "x:1", "1:" + "x" * 64, "²:x"])
async def test_a_token_that_no_page_has_given_is_refused_or_gives_a_page(ready: Running, token: str) -> None:
    transitions, *others = listing(ready, token)
    refused = await refusal(transitions)
    assert (refused.code, refused.fields) == (INVALID, ["page_token"])
    for each in others:
        await each


async def export(server: Running, name: str) -> bytes:
    request = policy_pb.ExportSnapshotRequest(name=name)
    return b"".join([part.chunk async for part in server.policies.ExportSnapshot(request)])


async def import_file(server: Running, data: bytes, parent: str = "routers/default") -> Any:
    async def parts() -> AsyncIterator[policy_pb.ImportSnapshotRequest]:
        yield policy_pb.ImportSnapshotRequest(parent=parent, chunk=data)

    return await server.policies.ImportSnapshot(parts())


BY_NAME: dict[str, tuple[str, Call]] = {
    "Route": ("router", lambda s: s.route(router="routers/\0")),
    "ImportDecisions": (
        "router",
        lambda s: s.router.ImportDecisions(pb.ImportDecisionsRequest(router="routers/\0")),
    ),
    "GetRouter": ("name", lambda s: s.get_router("routers/\0")),
    "UpdateRouter": ("router.name", lambda s: s.update_router("routers/\0")),
    "DeleteRouter": (
        "name",
        lambda s: s.registry.DeleteRouter(registry_pb.DeleteRouterRequest(name="routers/\0")),
    ),
    "GetHistory": ("name", lambda s: s.registry.GetHistory(registry_pb.GetHistoryRequest(name="routers/\0"))),
    "CreateModel": ("parent", lambda s: s.create_models("routers/\0", b={})),
    "GetModel": ("name", lambda s: s.get_model("\0")),
    "CreatePolicy": (
        "parent",
        lambda s: s.policies.CreatePolicy(
            policy_pb.CreatePolicyRequest(parent="routers/\0", policy_id="p", policy={"policy": "uniform"})
        ),
    ),
    "GetPolicy": (
        "name",
        lambda s: s.policies.GetPolicy(policy_pb.GetPolicyRequest(name="routers/default/policies/\0")),
    ),
    "GetPromotionSettings": (
        "name",
        lambda s: s.policies.GetPromotionSettings(
            policy_pb.GetPromotionSettingsRequest(name="routers/\0/promotionSettings")
        ),
    ),
    "ImportSnapshot": ("parent", lambda s: import_file(s, b"x", "routers/\0")),
    "ExportSnapshot": ("name", lambda s: export(s, "routers/default/snapshots/\0")),
    "RestoreSnapshot": (
        "name",
        lambda s: s.policies.RestoreSnapshot(
            policy_pb.RestoreSnapshotRequest(name="routers/default/snapshots/\0")
        ),
    ),
}


@pytest.mark.parametrize("method", BY_NAME)
async def test_a_name_with_a_nul_in_it_is_a_bad_field(ready: Running, method: str) -> None:
    field, call = BY_NAME[method]
    refused = await refusal(call(ready))
    assert (refused.code, refused.fields) == (INVALID, [field])


@pytest.mark.parametrize(
    ("field", "call"),
    [
        ("request_id", lambda s: s.route(request_id="\0")),
        ("session_id", lambda s: s.route(session_id="\0")),
        ("report_id", lambda s: s.report("0" * 32, report_id="\0", reward=1.0)),
        ("served_model", lambda s: s.report("0" * 32, served_model="\0", reward=1.0)),
        ("router_id", lambda s: s.create_router("\0")),
        ("model_id", lambda s: s.create_models(**{"\0": {}})),
        ("policy_id", lambda s: s.policies.CreatePolicy(policy_pb.CreatePolicyRequest(policy_id="\0"))),
    ],
)
async def test_an_id_with_a_nul_in_it_is_a_bad_field(ready: Running, field: str, call: Call) -> None:
    refused = await refusal(call(ready))
    assert (refused.code, refused.fields) == (INVALID, [field])


@pytest.mark.parametrize(
    "decision_id",
    ["0" * 32, "nonsense", "x" * 100_000, "'; drop table decisions; --", "\0", "0" * 31 + "\0", "9" * 40],
)
async def test_an_unknown_decision_is_not_found(ready: Running, decision_id: str) -> None:
    for call in (
        ready.report(decision_id, reward=0.5),
        ready.router.GetDecision(pb.GetDecisionRequest(decision_id=decision_id)),
        ready.router.ActivateDecision(pb.ActivateDecisionRequest(decision_id=decision_id)),
    ):
        refused = await refusal(call)
        assert (refused.code, refused.reason) == (NOT_FOUND, "DECISION_NOT_FOUND")
        assert refused.metadata["decision_id"] == decision_id[:64]


@pytest.mark.parametrize("snapshot", ["9" * 21, "9" * 18, "-1", "x" * 1000])
async def test_what_can_be_no_snapshots_id_is_that_of_none(ready: Running, snapshot: str) -> None:
    name = f"routers/default/snapshots/{snapshot}"
    for call in (
        export(ready, name),
        ready.policies.RestoreSnapshot(policy_pb.RestoreSnapshotRequest(name=name)),
    ):
        refused = await refusal(call)
        assert (refused.code, refused.reason) == (NOT_FOUND, "SNAPSHOT_NOT_FOUND")


async def test_a_file_whose_source_has_a_nul_in_it_is_refused(ready: Running, disk: Disk) -> None:
    router = (await ready.get_router()).name.removeprefix("routers/")

    async def saved() -> list[Any]:
        await ready.route(prompt="hello")
        return list_snapshots(disk.engine, router, 1)

    (first, *_) = await eventually(saved)
    data = dump_snapshot("a\0b", read_snapshot(disk.engine, router, 1, first.id))
    refused = await refusal(import_file(ready, data))
    assert (refused.code, refused.fields) == (INVALID, ["chunk"])
