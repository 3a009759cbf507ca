"""The registry on disk: revisions, tombstones, limits."""

from __future__ import annotations

import pytest
from engines import BOTH_ENGINES
from servers import Disk, draft_decision, hex_id

from policy.domain import MODELS_PER_ROUTER_MAX, ModelSpec, Prices, RouterSpec
from server.errors import (
    AlreadyExistsError,
    ModelNotFoundError,
    NotAllowedNowError,
    RouterNotFoundError,
    StaleEtagError,
)
from server.registry import RouterEntry
from server.storage import registry_store as store

pytestmark = BOTH_ENGINES


@pytest.fixture
def log(disk: Disk) -> Disk:
    disk.put_router("default", RouterSpec(embedding_dimensions=8), "a", "b")
    return disk


def loaded(log: Disk, router: str = "default") -> RouterEntry:
    return next(each for each in store.load_entries(log.engine) if each.router.id == router)


def test_what_is_loaded_from_disk_is_what_the_change_gave(log: Disk) -> None:
    changed = log.change("default", store.put_model("default", "c", ModelSpec(display_name="C"), create=True))
    assert loaded(log) == changed


def test_each_change_gives_a_new_revision_and_the_old_one_is_stale(log: Disk) -> None:
    old = loaded(log).stamp.revision
    log.change("default", store.put_router("default", RouterSpec(), create=False, revision=old))
    with pytest.raises(StaleEtagError):
        log.change("default", store.put_router("default", RouterSpec(), create=False, revision=old))
    with pytest.raises(StaleEtagError):
        log.change("default", store.delete_router("default", old))


def test_a_change_of_a_model_leaves_the_revision_of_the_others_alone(log: Disk) -> None:
    before = loaded(log)
    after = log.change("default", store.put_model("default", "a", ModelSpec(display_name="A"), create=False))
    assert after.model_stamps["b"] == before.model_stamps["b"]
    assert after.stamp == before.stamp
    assert after.model_stamps["a"].revision > before.model_stamps["a"].revision
    assert after.model_stamps["a"].create_us == before.model_stamps["a"].create_us


def test_a_changed_model_keeps_its_uid_and_one_created_again_has_a_new_one(log: Disk) -> None:
    uid = loaded(log).by_id["a"].uid
    changed = log.change("default", store.put_model("default", "a", ModelSpec(display_name="A"), create=False))
    assert changed.by_id["a"].uid == uid
    log.change("default", store.delete_model("default", "a", None))
    again = log.change("default", store.put_model("default", "a", ModelSpec(), create=True))
    assert again.by_id["a"].uid > uid


def test_a_removed_model_leaves_a_tombstone_that_a_new_one_of_its_name_lifts(log: Disk) -> None:
    gone = log.change("default", store.delete_model("default", "a", None))
    assert (gone.removed_models, "a" in gone.by_id) == (frozenset({"a"}), False)
    assert loaded(log).removed_models == {"a"}
    again = log.change("default", store.put_model("default", "a", ModelSpec(), create=True))
    assert again.removed_models == frozenset()


def test_a_deleted_router_is_gone_with_its_models_and_a_new_one_of_its_name_is_empty(log: Disk) -> None:
    log.change("default", store.delete_router("default", None))
    assert store.load_entries(log.engine) == []
    again = log.change("default", store.put_router("default", RouterSpec(), create=True))
    assert again.router.models == ()


def test_what_is_not_there_cannot_be_changed_and_what_is_cannot_be_created(log: Disk) -> None:
    for change, error in (
        (store.put_router("none", RouterSpec(), create=False), RouterNotFoundError),
        (store.delete_router("none", None), RouterNotFoundError),
        (store.put_model("none", "a", ModelSpec(), create=True), RouterNotFoundError),
        (store.put_model("default", "none", ModelSpec(), create=False), ModelNotFoundError),
        (store.delete_model("default", "none", None), ModelNotFoundError),
        (store.put_router("default", RouterSpec(), create=True), AlreadyExistsError),
        (store.put_model("default", "a", ModelSpec(), create=True), AlreadyExistsError),
    ):
        head = loaded(log)
        with pytest.raises(error):
            log.change("default", change)
        assert loaded(log) == head


def test_a_router_has_at_most_so_many_models_and_room_again_after_a_removal(disk: Disk) -> None:
    disk.put_router("default", RouterSpec(), *(f"m{i}" for i in range(MODELS_PER_ROUTER_MAX)))
    with pytest.raises(NotAllowedNowError, match="as many as a router may have"):
        disk.change("default", store.put_model("default", "more", ModelSpec(), create=True))
    disk.change("default", store.delete_model("default", "m0", None))
    entry = disk.change("default", store.put_model("default", "more", ModelSpec(), create=True))
    assert len(entry.router.models) == MODELS_PER_ROUTER_MAX


def test_features_cannot_change_once_the_router_has_decided(log: Disk) -> None:
    free = store.put_router("default", RouterSpec(embedding_dimensions=9), create=False)
    log.change("default", free)
    log.decide(draft_decision(hex_id(1), dimensions=9))
    with pytest.raises(NotAllowedNowError, match="embedding_dimensions"):
        log.change("default", store.put_router("default", RouterSpec(embedding_dimensions=8), create=False))
    log.change("default", store.put_router("default", RouterSpec("x", embedding_dimensions=9), create=False))


def test_what_a_file_declared_is_kept_through_changes_and_removal(log: Disk) -> None:
    spec = ModelSpec(prices=Prices(1.0))
    log.change("default", store.put_model("default", "a", spec, create=False, declared="text"))
    log.change("default", store.put_model("default", "a", ModelSpec(), create=False))
    assert store.declared_model(log.engine, "default", "a") == "text"
    log.change("default", store.delete_model("default", "a", None))
    assert store.declared_model(log.engine, "default", "a") == "text", "else the file would bring it back"
    assert store.declared_router(log.engine, "default") is None


def test_models_stand_in_the_order_they_were_added(disk: Disk) -> None:
    disk.put_router("default", RouterSpec(), "z", "m", "a")
    assert [each.id for each in loaded(disk).router.models] == ["z", "m", "a"]
