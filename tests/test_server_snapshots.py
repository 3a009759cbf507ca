"""Snapshots over the wire and on disk: exported, imported, gone back to, and rebuilt to the same bits."""

from __future__ import annotations

import json
from dataclasses import replace
from random import Random
from typing import Any

import grpc
import pytest
from pointsman.v1 import policy_service_pb2 as pb
from pointsman.v1 import registry_service_pb2 as registry_pb
from servers import Disk, Running, draft_decision, draft_report, eventually, hex_id, refusal, running_app, seeded
from sqlalchemy import delete, select, update
from test_server_evaluation_loop import create, traffic
from test_server_learner_fold import busy_log, fingerprints, folded
from test_server_promotion import forced, states, transitions

import policy.learner
from policy.domain import LearnerKind, Model, ModelSpec, RewardJoin
from policy.features import Featuriser
from policy.learner import RouterLearner
from policy.log import Usage
from server.audit import Audit, audit
from server.errors import SnapshotMisfitError
from server.learner_fold import LearnerFold
from server.learner_loop import _store
from server.storage import registry_store
from server.storage.archive import Imported
from server.storage.policy_store import Cause
from server.storage.reader import StoredSnapshot
from server.storage.schema import snapshot_archive, snapshots
from server.storage.snapshot_ages import kept
from server.storage.snapshot_file import dump_snapshot, load_snapshot
from server.storage.snapshot_store import import_snapshot, restore_snapshot
from server.storage.writes import DecisionWrite, ReportWrite, Transact

DAY_US = 86_400_000_000


def more(disk: Disk, random: Random, first: int, count: int) -> None:
    """Further decisions of two routers, with rewards on them and on older ones."""
    for i in range(first, first + count):
        disk.now_us += random.randrange(5000)
        draft = draft_decision(hex_id(i), random.choice(("default", "other")), seed=i)
        old = draft_report(hex_id(max(0, i - random.randrange(90))), report_id=f"late-{i}", reward=random.random())
        disk.write(DecisionWrite(draft, DAY_US), ReportWrite(draft_report(hex_id(i), reward=random.random())))
        disk.write(ReportWrite(old))


def save(disk: Disk, router: str = "default") -> str:
    """Saves a snapshot of what the log gives now; gives its id."""
    stored = folded(disk, 1000).snapshot(router)
    assert stored is not None
    disk.one(Transact(_store(router, stored.seq, stored)))
    return str(stored.seq)


def restore(disk: Disk, snapshot: str, router: str = "default") -> None:
    disk.change(router, restore_snapshot(router, snapshot, None, Cause("ann", "it was better")))


def audited(disk: Disk) -> Audit:
    """The audit, in which every snapshot is what the log gives. The draws of these logs are made up."""
    result = audit(disk.reader, lambda _: None)
    assert result.snapshots_wrong + result.revisions_wrong + result.unreadable == 0, result.examples
    return result


def rebuilt_in_every_way(disk: Disk, random: Random) -> dict[str, str]:
    """The learners as the log gives them, the same with pages of any size and restarts anywhere."""
    whole = fingerprints(folded(disk, 1000))
    assert fingerprints(folded(disk, 23)) == whole
    fold = LearnerFold(disk.reader, [])
    while fold.advance(random.randrange(1, 40)):
        if random.random() < 0.3:
            saved = [fold.snapshot(each) for each in fold.routers]
            fold = LearnerFold(disk.reader, [each for each in saved if each])
    assert fingerprints(fold) == whole
    return whole


@pytest.mark.parametrize("kind", list(LearnerKind))
def test_a_return_is_rebuilt_from_the_log_to_the_same_bits(disk: Disk, kind: LearnerKind) -> None:
    random = seeded("restore")
    busy_log(disk, random, kind, 40, join=RewardJoin.LAST)
    first = save(disk)
    more(disk, random, 100, 20)
    second = save(disk)
    more(disk, random, 140, 20)
    restore(disk, first)
    more(disk, random, 160, 15)
    restore(disk, second)
    more(disk, random, 190, 20)
    save(disk)
    rebuilt_in_every_way(disk, random)
    result = audited(disk)
    # The three that were saved, and the two that were gone back to.
    assert result.snapshots == 5


def test_just_after_a_return_the_learner_knows_what_it_knew(disk: Disk) -> None:
    random = seeded("knows")
    busy_log(disk, random, LearnerKind.RIDGE, 40)
    then = folded(disk, 1000).view("default")
    snapshot = save(disk)
    more(disk, random, 100, 30)
    paid = draft_decision(hex_id(200), "default", seed=200)
    disk.write(DecisionWrite(paid, DAY_US), ReportWrite(draft_report(hex_id(200), usage=Usage(cost_usd=0.01))))
    before = folded(disk, 1000).view("default")
    restore(disk, snapshot)
    after = folded(disk, 1000).view("default")
    assert after.router.rewards == then.router.rewards < before.router.rewards
    assert after.router.spent_usd == before.router.spent_usd > then.router.spent_usd


def test_another_kind_of_learner_and_other_settings_come_back_with_the_snapshot(disk: Disk) -> None:
    random = seeded("kind")
    busy_log(disk, random, LearnerKind.RIDGE, 40)
    before = disk.registry.router("default").spec
    snapshot = save(disk)
    other = replace(before, learner=LearnerKind.VOWPAL_WABBIT, policy="greedy")
    disk.change("default", registry_store.put_router("default", other, create=False))
    more(disk, random, 100, 20)
    save(disk)
    restore(disk, snapshot)
    more(disk, random, 120, 20)
    assert disk.registry.router("default").spec == before
    save(disk)
    rebuilt_in_every_way(disk, random)
    audited(disk)


def test_what_a_record_refers_to_is_never_removed_and_a_changed_one_is_found(disk: Disk) -> None:
    random = seeded("kept")
    busy_log(disk, random, LearnerKind.RIDGE, 40)
    snapshot = save(disk)
    restore(disk, snapshot)
    for _ in range(6):
        disk.now_us += 40 * DAY_US
        more(disk, random, 100 + _, 1)
        save(disk)
    with disk.engine.begin() as connection:
        left = connection.execute(select(snapshots.c.seq).where(snapshots.c.router == "default")).scalars().all()
        assert int(snapshot) not in left
    audited(disk)
    assert fingerprints(folded(disk, 1000))
    with disk.engine.begin() as connection:
        connection.execute(update(snapshot_archive).values(state=b"another"))
    result = audit(disk.reader, lambda _: None)
    assert result.unreadable
    with disk.engine.begin() as connection:
        connection.execute(delete(snapshot_archive))
    assert audit(disk.reader, lambda _: None).unreadable


@pytest.mark.parametrize("kind", list(LearnerKind))
def test_a_snapshot_of_another_version_is_learned_from_the_log_again(
    disk: Disk, kind: LearnerKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = seeded("version")
    busy_log(disk, random, kind, 40)
    snapshot = save(disk)
    more(disk, random, 100, 20)
    restore(disk, snapshot)
    more(disk, random, 120, 10)
    views = [folded(disk, 1000).view("default") for _ in range(1)]
    monkeypatch.setattr(policy.learner, "STATE_VERSION", policy.learner.STATE_VERSION + 1)
    views.append(folded(disk, 1000).view("default"))
    assert views[0].router == views[1].router
    assert views[0].models == views[1].models
    audited(disk)


def exported(disk: Disk, router: str = "default") -> bytes:
    stored = folded(disk, 1000).snapshot(router)
    assert stored is not None
    return dump_snapshot(f"routers/{router}/snapshots/{stored.seq}", stored)


def test_a_file_says_what_it_is_and_has_no_query_no_books_and_no_price(disk: Disk) -> None:
    random = seeded("file")
    busy_log(disk, random, LearnerKind.RIDGE, 40)
    data = exported(disk)
    first, header, _ = data.split(b"\n", 2)
    assert first.startswith(b"pointsman-snapshot 1 ")
    said = json.loads(header)
    assert said["learner"] == "ridge"
    assert said["embedding_dimensions"] == 8
    assert [name for name, _ in said["models"]] == ["a", "b"]
    assert set(said) == {
        *("source", "state_version", "feature_version", "learner", "embedding_dimensions", "models"),
        *("rewards", "state_bytes"),
    }
    imported = load_snapshot(data)
    view = RouterLearner.restore(imported.stored.router, imported.stored.state).view(0)
    was = folded(disk, 1000).view("default")
    assert view.router.rewards == was.router.rewards > 0
    assert (view.router.spent_usd, view.router.decisions) == (0.0, 0)
    assert not view.typical_features[:-1].any()
    assert all(each.cost_sum_usd == 0.0 for each in view.models.values())


@pytest.mark.parametrize("kind", list(LearnerKind))
def test_an_imported_snapshot_is_rebuilt_from_the_log_to_the_same_bits(disk: Disk, kind: LearnerKind) -> None:
    random = seeded("import")
    busy_log(disk, random, kind, 40)
    imported = load_snapshot(exported(disk, "other"))
    more(disk, random, 100, 20)
    info = disk.one(Transact(import_snapshot("default", imported)))
    assert disk.one(Transact(import_snapshot("default", imported))).id == info.id
    before = fingerprints(folded(disk, 1000))
    restore(disk, info.id)
    rewards = RouterLearner.restore(imported.stored.router, imported.stored.state).view(0).router.rewards
    assert folded(disk, 1000).view("default").router.rewards == rewards
    assert fingerprints(folded(disk, 1000))["other"] == before["other"]
    more(disk, random, 120, 20)
    save(disk)
    rebuilt_in_every_way(disk, random)
    audited(disk)


def test_of_imports_that_are_not_restored_the_last_three_stay(disk: Disk) -> None:
    busy_log(disk, seeded("imports"), LearnerKind.RIDGE, 20)
    router = disk.registry.router("default")
    ids = []
    for uid in range(5):
        disk.now_us += 1_000_000
        models = tuple(Model(each.id, 500 + uid, ModelSpec()) for each in router.models)
        other = replace(router, models=models)
        stored = StoredSnapshot(other, 0, 0, RouterLearner(other).state())
        imported = Imported(stored, "elsewhere")
        ids.append(disk.one(Transact(import_snapshot("default", imported))).id)
        if uid == 0:
            restore(disk, ids[0])
    with disk.engine.connect() as connection:
        left = set(connection.execute(select(snapshot_archive.c.id)).scalars())
    assert left == {ids[0], *ids[2:]}


def test_one_that_does_not_fit_is_refused_and_says_what_differs(disk: Disk) -> None:
    busy_log(disk, seeded("misfit"), LearnerKind.RIDGE, 20)
    router = disk.registry.router("default")
    for spec, models, differs in (
        (replace(router.spec, learner=LearnerKind.VOWPAL_WABBIT), router.models, {"learner"}),
        (replace(router.spec, embedding_dimensions=9), router.models, {"embedding_dimensions"}),
        (router.spec, (Model("x", 1, ModelSpec()),), {"models"}),
    ):
        other = replace(router, spec=spec, models=models)
        imported = Imported(StoredSnapshot(other, 0, 0, RouterLearner(other).state()), "elsewhere")
        with pytest.raises(SnapshotMisfitError) as caught:
            disk.one(Transact(import_snapshot("default", imported)))
        assert set(caught.value.metadata) == differs


@pytest.mark.parametrize("count", [1, 3, 20, 400])
def test_older_snapshots_are_kept_ever_further_apart(count: int) -> None:
    """Saved every five seconds, thinned out each time."""
    saved: list[tuple[int, int]] = []
    for number in range(count):
        saved.append((number, number * 5_000_000))
        left = kept(saved, number * 5_000_000)
        saved = [each for each in saved if each[0] in left]
    ages = [(count - 1 - seq) * 5 for seq, _ in saved]
    assert ages[-min(3, count) :] == [10, 5, 0][-min(3, count) :]
    assert len(ages) <= 13
    if count == 400:
        assert max(ages) > 400
    assert kept([(1, 0)], 40 * DAY_US) == {1}
    daily = [(day, day * DAY_US) for day in range(41)]
    assert 8 not in kept(daily, 40 * DAY_US)


def test_a_clock_that_jumps_by_years_leaves_the_snapshots_before_it() -> None:
    saved = [(seq, 4**seq * 15_000_000) for seq in range(1, 6)]
    years_us = 10 * 365 * DAY_US
    after = [(seq, years_us + seq * 5_000_000) for seq in (10, 11, 12)]
    left = kept(saved + after, years_us + 60_000_000)
    assert left & {1, 2, 3, 4, 5}, "one can go back to what was known before the jump"


def test_saved_a_hundred_times_a_second_there_is_still_one_of_seconds_ago() -> None:
    saved: list[tuple[int, int]] = []
    for number in range(5000):
        saved.append((number, number * 10_000))
        left = kept(saved, number * 10_000)
        saved = [each for each in saved if each[0] in left]
    assert any(1_000_000 < 49_990_000 - time_us < 15_000_000 for _, time_us in saved)


async def parts(data: bytes, parent: str = "routers/default") -> Any:
    yield pb.ImportSnapshotRequest(parent=parent, chunk=data[:1000])
    yield pb.ImportSnapshotRequest(chunk=data[1000:])


async def listed(server: Running, parent: str = "routers/default") -> list[pb.Snapshot]:
    return list((await server.policies.ListSnapshots(pb.ListSnapshotsRequest(parent=parent))).snapshots)


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
        await server.settled()
        name = (await eventually(lambda: listed(server)))[-1].name
        await server.create_router("second")
        await server.create_models("routers/second", b={}, c={})
        data = await file_of(server, (await listed(server))[-1].name)
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
