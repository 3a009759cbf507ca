"""PolicyService over a real channel: candidates of a router, how they read back, and what is refused."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from pointsman.v1 import policy_service_pb2 as pb
from pointsman.v1 import registry_service_pb2 as registry_pb
from servers import Disk, Running, eventually, refusal, running_app
from sqlalchemy import select

from policy.candidates import CandidateSpec, FeaturePart, Rule, Threshold
from policy.domain import Exploration, LearnerKind, Objective, RouterSpec
from policy.features import Featuriser
from policy.promotion import PolicyRecord
from server.learner_fold import LearnerFold
from server.storage import policy_store
from server.storage.policy_store import Cause
from server.storage.schema import transitions

WHOLE = {
    "rules": [
        {"feature": "tier", "equals": "gold", "model": "a"},
        {"feature": "risk", "at_least": 0.5, "model": "b"},
    ],
    "learner": registry_pb.LEARNER_VOWPAL_WABBIT,
    "exploration": {"strength": 0.0, "burn_in_rewards": 3, "max_utility_loss": 0.02},
    "objective": {"quality_value_usd": 0.25},
    "feature_parts": [pb.FEATURE_PART_EMBEDDING, pb.FEATURE_PART_CALLER],
}


async def create(server: Running, policy_id: str, parent: str = "", **policy: Any) -> pb.Policy:
    request = pb.CreatePolicyRequest(parent=parent, policy_id=policy_id, policy=pb.Policy(**policy))
    return (await server.policies.CreatePolicy(request)).policy


async def get(server: Running, name: str) -> pb.Policy:
    return (await server.policies.GetPolicy(pb.GetPolicyRequest(name=name))).policy


async def test_a_policy_reads_back_as_created_also_after_a_restart(url: str, featuriser: Featuriser) -> None:
    async with running_app(url, featuriser) as server:
        created = await create(server, "mine", **WHOLE)
        assert created.name == "routers/default/policies/mine"
        assert (created.state, created.policy) == (pb.POLICY_STATE_SHADOW, "learned")
        assert created.create_position == created.etag
        assert created.create_time == created.update_time
        given = pb.Policy(**WHOLE)
        for field in ("rules", "learner", "feature_parts"):
            assert getattr(created, field) == getattr(given, field)
        assert created.exploration.burn_in_rewards == 3
        assert created.objective.quality_value_usd == 0.25
        assert await get(server, created.name) == created
    async with running_app(url, featuriser) as server:
        assert await get(server, created.name) == created


async def test_a_threshold_reads_back_and_models_may_be_named_in_full(server: Running) -> None:
    threshold = {"strong": "routers/default/models/a", "weak": "b", "gap": 0.1}
    created = await create(server, "cut", threshold=threshold)
    assert created.threshold == pb.Threshold(strong="a", weak="b", gap=0.1)
    assert not created.HasField("exploration")


@pytest.mark.parametrize(
    ("policy", "field"),
    [
        ({"policy": "clever"}, "policy.policy"),
        ({"policy": "fixed:"}, "policy.policy"),
        ({"policy": "cheapest", "learner": registry_pb.LEARNER_RIDGE}, "policy.learner"),
        ({"learner": 77}, "policy.learner"),
        ({"feature_parts": [9]}, "policy.feature_parts"),
        ({"rules": [{"feature": "x", "model": "a"}]}, "policy.rules[0]"),
        ({"rules": [{"feature": "", "model": "a", "equals": "y"}]}, "policy.rules[0].feature"),
        ({"threshold": {"strong": "a", "weak": "a", "gap": 0.1}}, "policy.threshold.weak"),
        ({"exploration": {"strength": -1.0}}, "policy.exploration.strength"),
        ({"objective": {"quality_value_usd": 0.0}}, "policy.objective.quality_value_usd"),
    ],
)
async def test_a_bad_field_is_refused_by_its_name(server: Running, policy: dict[str, Any], field: str) -> None:
    refused = await refusal(create(server, "bad", **policy))
    assert (refused.code, refused.fields) == (grpc.StatusCode.INVALID_ARGUMENT, [field])


@pytest.mark.parametrize("name", ["", "with space", "cheapest", "incumbent", "x" * 64])
async def test_an_id_that_cannot_be_a_policys_is_refused(server: Running, name: str) -> None:
    refused = await refusal(create(server, name))
    assert (refused.code, refused.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["policy_id"])


async def test_what_is_not_there_is_not_found(server: Running) -> None:
    calls = {
        "ROUTER_NOT_FOUND": (
            create(server, "x", "routers/none"),
            server.policies.ListPolicies(pb.ListPoliciesRequest(parent="routers/none")),
            get(server, "routers/none/policies/x"),
        ),
        "POLICY_NOT_FOUND": (
            get(server, "routers/default/policies/none"),
            server.policies.RetirePolicy(pb.RetirePolicyRequest(name="routers/default/policies/none")),
        ),
    }
    for reason, asked in calls.items():
        for call in asked:
            refused = await refusal(call)
            assert (refused.code, refused.reason) == (grpc.StatusCode.NOT_FOUND, reason)
    bad = await refusal(get(server, "policies/x"))
    assert (bad.code, bad.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["name"])


async def test_a_name_is_one_policys_for_ever(server: Running) -> None:
    created = await create(server, "once", policy="uniform")
    again = await refusal(create(server, "once", policy="uniform"))
    await server.policies.RetirePolicy(pb.RetirePolicyRequest(name=created.name, reason="done"))
    after = await refusal(create(server, "once", policy="cheapest"))
    assert again.code is after.code is grpc.StatusCode.ALREADY_EXISTS


async def test_a_retired_policy_is_kept_and_cannot_be_retired_twice(server: Running) -> None:
    created = await create(server, "old", policy="uniform")
    stale = await refusal(server.policies.RetirePolicy(pb.RetirePolicyRequest(name=created.name, etag="1")))
    assert (stale.code, stale.reason) == (grpc.StatusCode.ABORTED, "STALE_ETAG")
    request = pb.RetirePolicyRequest(name=created.name, etag=created.etag, reason="no longer needed", actor="ann")
    retired = (await server.policies.RetirePolicy(request)).policy
    assert (retired.state, retired.etag == created.etag) == (pb.POLICY_STATE_RETIRED, False)
    assert await get(server, created.name) == retired
    again = await refusal(server.policies.RetirePolicy(pb.RetirePolicyRequest(name=created.name)))
    assert again.code is grpc.StatusCode.FAILED_PRECONDITION
    long = pb.RetirePolicyRequest(name=created.name, reason="x" * 1001)
    assert (await refusal(server.policies.RetirePolicy(long))).fields == ["reason"]


async def test_pages_give_every_policy_once_and_by_name(server: Running) -> None:
    for name in ("c", "a", "b"):
        await create(server, name, policy="uniform")
    first = await server.policies.ListPolicies(pb.ListPoliciesRequest(page_size=2))
    rest = await server.policies.ListPolicies(pb.ListPoliciesRequest(page_token=first.next_page_token))
    names = [each.name.rpartition("/")[2] for each in (*first.policies, *rest.policies)]
    assert (names, rest.next_page_token) == (["a", "b", "c"], "")
    assert (await refusal(server.policies.ListPolicies(pb.ListPoliciesRequest(page_size=-1)))).fields == [
        "page_size"
    ]


async def test_a_router_created_again_has_none_of_the_policies_before(server: Running) -> None:
    name = await server.create_router("again")
    await create(server, "x", name, policy="uniform")
    await server.registry.DeleteRouter(registry_pb.DeleteRouterRequest(name=name))
    await server.create_router("again")
    assert not (await server.policies.ListPolicies(pb.ListPoliciesRequest(parent=name))).policies
    await create(server, "x", name, policy="cheapest")


async def test_a_policy_does_not_change_what_its_router_does_or_learns(server: Running) -> None:
    await server.create_models(a={}, b={})
    before = await server.settled()
    await create(server, "x", policy="uniform")
    after = await server.settled()
    assert int(after.statistics.snapshot) > int(before.statistics.snapshot)
    assert after.etag == before.etag


SPECS = (
    CandidateSpec("plain", policy="fixed:a"),
    CandidateSpec(
        "whole",
        rules=(Rule("tier", "a", equals="gold"), Rule("risk", "b", at_least=0.5)),
        learner=LearnerKind.VOWPAL_WABBIT,
        exploration=Exploration(strength=0.0),
        objective=Objective(budget_usd_per_day=3.0),
        features=(FeaturePart.STRUCTURE,),
    ),
    CandidateSpec("cut", threshold=Threshold("a", "b", -0.25)),
)


def test_the_log_has_every_change_with_its_position_and_the_candidates_from_there(disk: Disk) -> None:
    disk.put_router("default", RouterSpec(embedding_dimensions=8), "a", "b")
    for spec in SPECS:
        disk.change("default", policy_store.create_policy("default", spec, Cause("ann")))
    disk.change("default", policy_store.retire_policy("default", "whole", None, Cause("bob", "too dear")))
    records = [each for each in disk.reader.page(0, 100).records if isinstance(each, PolicyRecord)]
    assert [[spec.id for spec in each.candidates] for each in records] == [
        ["plain"],
        ["plain", "whole"],
        ["plain", "whole", "cut"],
        ["plain", "cut"],
    ]
    assert records[2].candidates == SPECS
    assert records[0].router == disk.registry.router("default")
    assert [each.seq for each in records] == [4, 5, 6, 7]
    with disk.engine.connect() as connection:
        rows = connection.execute(select(transitions).order_by(transitions.c.seq)).all()
    assert [(each.policy, each.from_state, each.to_state) for each in rows] == [
        *((spec.id, "", "shadow") for spec in SPECS),
        ("whole", "shadow", "retired"),
    ]
    assert (rows[-1].actor, rows[-1].reason, rows[-1].seq) == ("bob", "too dear", 7)


def test_a_policy_leaves_the_learner_as_it_is(disk: Disk) -> None:
    disk.put_router("default", RouterSpec(embedding_dimensions=8), "a", "b")
    fold = LearnerFold(disk.reader, [])
    while fold.advance(100):
        pass
    before = fold.learner("default").fingerprint()
    disk.change("default", policy_store.create_policy("default", SPECS[0], Cause()))
    assert fold.advance(100) == 1
    assert fold.learner("default").fingerprint() == before


async def test_snapshots_are_listed_by_position_with_their_size(
    url: str, featuriser: Featuriser, disk: Disk
) -> None:
    async with running_app(url, featuriser, snapshot_seconds=0.01) as server:
        await server.create_models(a={})

        async def several() -> bool:
            await server.route(prompt="hello")
            return len(list(disk.reader.all_snapshots())) >= 3

        await eventually(several)
    async with running_app(url, featuriser, snapshot_seconds=3600) as server:
        first = await server.policies.ListSnapshots(pb.ListSnapshotsRequest(page_size=2))
        rest = await server.policies.ListSnapshots(pb.ListSnapshotsRequest(page_token=first.next_page_token))
        kept = list(disk.reader.all_snapshots())
        assert [each.name for each in (*first.snapshots, *rest.snapshots)] == [
            f"routers/default/snapshots/{each.seq}" for each in kept
        ]
        assert [each.size_bytes for each in first.snapshots] == [len(each.state) for each in kept[:2]]
        assert first.snapshots[0].create_time.seconds > 0
        none = await refusal(server.policies.ListSnapshots(pb.ListSnapshotsRequest(parent="routers/none")))
        assert none.reason == "ROUTER_NOT_FOUND"
