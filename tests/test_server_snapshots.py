"""Snapshots on disk: saved, exported, imported, gone back to, and rebuilt to the same bits."""

from __future__ import annotations

import json
from dataclasses import replace
from random import Random

import pytest
from servers import DAY_US, Disk, draft_decision, draft_report, hex_id, seeded
from sqlalchemy import delete, select, update
from test_server_learner_fold import busy_log, fingerprints, folded, restarted

import policy.learner
from policy.domain import LearnerKind, Model, ModelSpec, RewardJoin
from policy.learner import RouterLearner
from policy.log import Usage
from server.audit import Audit, audit
from server.errors import SnapshotMisfitError
from server.learner_loop import _store
from server.storage import registry_store
from server.storage.archive import Imported
from server.storage.policy_store import Cause
from server.storage.reader import StoredSnapshot
from server.storage.schema import snapshot_archive, snapshots
from server.storage.snapshot_file import dump_snapshot, load_snapshot
from server.storage.snapshot_store import import_snapshot, restore_snapshot
from server.storage.writes import DecisionWrite, ReportWrite, Transact


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
    assert fingerprints(restarted(disk, random)) == whole
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
