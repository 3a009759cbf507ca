"""Snapshots over the wire: exported, imported on another server, and gone back to."""

from __future__ import annotations

import json
from typing import Any

import grpc
import pytest
from pointsman.v1 import policy_service_pb2 as pb
from pointsman.v1 import registry_service_pb2 as registry_pb
from servers import Disk, Running, eventually, refusal, running_app, seeded
from test_server_evaluation_loop import create, traffic
from test_server_promotion import forced, states, transitions
from test_server_snapshots import exported

from policy.features import Featuriser
from server.audit import audit


async def parts(data: bytes, parent: str = "routers/default") -> Any:
    yield pb.ImportSnapshotRequest(parent=parent, chunk=data[:1000])
    yield pb.ImportSnapshotRequest(chunk=data[1000:])


async def listed(server: Running, parent: str = "routers/default") -> list[pb.Snapshot]:
    return list((await server.policies.ListSnapshots(pb.ListSnapshotsRequest(parent=parent))).snapshots)


async def saved_at(server: Running, position: int) -> str:
    """The name of a snapshot in which all up to there is learned; empty until one is saved."""
    names = [each.name for each in await listed(server)]
    return next((each for each in names if int(each.rpartition("/")[2]) >= position), "")


async def file_of(server: Running, name: str) -> bytes:
    request = pb.ExportSnapshotRequest(name=name)
    return b"".join([each.chunk async for each in server.policies.ExportSnapshot(request)])


async def test_what_one_server_has_learned_another_takes_over_and_goes_back(
    url: str, featuriser: Featuriser
) -> None:
    random = seeded("wire")
    async with running_app(url, featuriser, snapshot_seconds=0.05) as server:
        await server.create_models(a={}, b={})
        await traffic(server, random, 40, a=0.0, b=1.0)
        settled = await server.settled()
        learned = int(settled.statistics.snapshot)
        name = await eventually(lambda: saved_at(server, learned))
        await server.create_router("second")
        await server.create_models("routers/second", b={}, c={})
        data = await file_of(server, name)
        taken = (await server.policies.ImportSnapshot(parts(data, "routers/second"))).snapshot
        assert taken.name.startswith("routers/second/snapshots/import-")
        assert taken.source.startswith("routers/default/snapshots/")
        assert taken.name in {each.name for each in await listed(server, "routers/second")}
        request = pb.RestoreSnapshotRequest(name=taken.name, reason="a head start", actor="ann")
        answer = await server.policies.RestoreSnapshot(request)
        assert (list(answer.known_models), list(answer.new_models)) == (["b"], ["c"])
        assert (await server.settled("routers/second")).statistics.reward_count > 0
        page = await server.policies.ListTransitions(pb.ListTransitionsRequest(parent="routers/second"))
        (done,) = page.transitions
        assert (done.kind, done.snapshot, done.actor) == (pb.TRANSITION_KIND_SNAPSHOT, taken.name, "ann")
        assert (done.policy, done.reason) == ("", "a head start")
        assert len(json.loads(done.evidence_json)["digest"]) == 64
        assert (await file_of(server, taken.name)).startswith(b"pointsman-snapshot 1 ")
        assert name.startswith("routers/default/snapshots/")
    result = audit_of(url)
    assert result.passed, result.examples


def audit_of(url: str) -> Any:
    disk = Disk(url)
    try:
        return audit(disk.reader, lambda _: None)
    finally:
        disk.close()


async def test_a_bad_file_and_a_name_that_is_none_are_refused(server: Running) -> None:
    await server.create_models(a={})
    await server.route(prompt="hello")
    for data in (b"", b"not a file", b"pointsman-snapshot 2 x\n{}", b"pointsman-snapshot 1 00\n{}\n"):
        refused = await refusal(server.policies.ImportSnapshot(parts(data)))
        assert (refused.code, refused.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["chunk"])
    none = await refusal(server.policies.ImportSnapshot(parts(b"x", "routers/none")))
    assert none.code is grpc.StatusCode.NOT_FOUND
    for missing in ("routers/default/snapshots/7", "routers/default/snapshots/import-x"):
        refused = await refusal(server.policies.RestoreSnapshot(pb.RestoreSnapshotRequest(name=missing)))
        assert (refused.code, refused.reason) == (grpc.StatusCode.NOT_FOUND, "SNAPSHOT_NOT_FOUND")
        assert (await refusal(file_of(server, missing))).reason == "SNAPSHOT_NOT_FOUND"
    bad = await refusal(server.policies.RestoreSnapshot(pb.RestoreSnapshotRequest(name="snapshots/7")))
    assert bad.fields == ["name"]
    stale = pb.RestoreSnapshotRequest(name="routers/default/snapshots/7", etag="999")
    assert (await refusal(server.policies.RestoreSnapshot(stale))).code is grpc.StatusCode.ABORTED


async def test_a_file_of_another_version_or_kind_is_refused_with_what_differs(
    server: Running, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    await server.create_models(a={})
    await server.create_router("vw", learner=registry_pb.LEARNER_VOWPAL_WABBIT)
    await server.create_models("routers/vw", a={})
    await server.settled("routers/vw")
    data = exported(disk, "vw")
    refused = await refusal(server.policies.ImportSnapshot(parts(data)))
    assert (refused.code, refused.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "SNAPSHOT_MISFIT")
    assert refused.metadata["learner"] == "vowpal_wabbit in the snapshot, ridge in the router"
    monkeypatch.setattr("server.storage.snapshot_file.STATE_VERSION", 1)
    other = await refusal(server.policies.ImportSnapshot(parts(data, "routers/vw")))
    assert (other.reason, "state_version" in other.metadata) == ("SNAPSHOT_MISFIT", True)
    torn = await refusal(server.policies.ImportSnapshot(parts(data[:-1])))
    assert torn.fields == ["chunk"]


async def test_a_guardrail_that_is_crossed_takes_the_router_back_with_what_it_knew(
    url: str, featuriser: Featuriser
) -> None:
    random = seeded("guardrail")
    async with running_app(url, featuriser, snapshot_seconds=0.05) as server:
        await server.create_models(good={}, bad={})
        await server.update_router(policy="fixed:good")
        await traffic(server, random, 150, good=0.9, bad=0.9)
        await create(server, "turns", policy="fixed:bad")
        await forced(server, "turns", pb.POLICY_STATE_LIVE)
        await traffic(server, random, 60, good=0.9, bad=0.9)
        assert (await server.get_router()).policy == "fixed:bad"
        count = 0

        async def went_back() -> bool:
            nonlocal count
            count += 10
            await traffic(server, random, 10, good=0.9, bad=0.1)
            return (await server.get_router()).policy == "fixed:good"

        await eventually(went_back)
        known = await states(server)
        assert known["turns"] == pb.POLICY_STATE_RETIRED
        done = await transitions(server)
        live = next(each for each in done if each.automatic and each.to_state == pb.POLICY_STATE_LIVE)
        assert "where the guardrail lies" in live.reason
        returned = next(each for each in done if each.kind == pb.TRANSITION_KIND_SNAPSHOT)
        assert (returned.position, returned.actor) == (live.position, "pointsman")
        assert returned.snapshot.startswith("routers/default/snapshots/")
        await server.settled()
    result = audit_of(url)
    assert result.passed, result.examples


async def test_settings_that_change_leave_a_record_of_who_and_what(server: Running) -> None:
    given = pb.PromotionSettings(name="routers/default/promotionSettings")
    given.requirements.CopyFrom(pb.Requirements(utility_margin=0.5, cost_factor_max=2.0))
    request = pb.UpdatePromotionSettingsRequest(promotion_settings=given, actor="ann", reason="be strict")
    await server.policies.UpdatePromotionSettings(request)
    (done,) = await transitions(server)
    assert (done.kind, done.actor, done.reason) == (pb.TRANSITION_KIND_SETTINGS, "ann", "be strict")
    said = json.loads(done.evidence_json)
    assert said["before"]["requirements"]["utility_margin"] == 0.0
    assert said["after"]["requirements"] == {
        "utility_margin": 0.5,
        "quality_loss_max": None,
        "cost_factor_max": 2.0,
        "latency_factor_max": None,
        "error_increase_max": None,
        "unsupported_max": 0.0,
        "effective_sample_size_min": 0.0,
    }
    long = pb.UpdatePromotionSettingsRequest(promotion_settings=given, reason="x" * 1001)
    assert (await refusal(server.policies.UpdatePromotionSettings(long))).fields == ["reason"]
