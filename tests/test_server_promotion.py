"""From shadow to canary to live, over a real channel: the gate, the traffic, the record, the learner."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2
from pointsman.v1 import policy_service_pb2 as pb
from pointsman.v1 import registry_service_pb2 as registry_pb
from servers import Disk, Running, eventually, refusal, running_app, seeded
from test_server_evaluation_loop import create, evaluated, traffic
from test_server_learner_fold import busy_log, fingerprints, folded, restarted

from policy.domain import LearnerKind
from policy.features import Featuriser
from policy.promotion import PolicyState
from server.audit import audit
from server.storage import policy_store
from server.storage.policy_store import Cause

NAME = "routers/default/policies/{}"
# By utility alone, which a few hundred events can decide.
UTILITY_ONLY = {"unsupported_max": 0.05, "effective_sample_size_min": 30.0}


async def promote(server: Running, policy_id: str, state: int, **fields: Any) -> pb.Policy:
    request = pb.PromotePolicyRequest(name=NAME.format(policy_id), state=state, **fields)
    return (await server.policies.PromotePolicy(request)).policy


async def forced(server: Running, policy_id: str, state: int, **fields: Any) -> pb.Policy:
    return await promote(server, policy_id, state, force=True, reason="because", actor="ann", **fields)


async def states(server: Running) -> dict[str, int]:
    listed = (await server.policies.ListPolicies(pb.ListPoliciesRequest())).policies
    return {each.name.rpartition("/")[2]: each.state for each in listed}


async def transitions(server: Running) -> list[pb.Transition]:
    return list((await server.policies.ListTransitions(pb.ListTransitionsRequest())).transitions)


async def test_a_candidate_that_is_better_passes_the_gate_and_one_that_is_not_does_not(server: Running) -> None:
    await server.create_models(a={}, b={})
    await server.update_router(policy="uniform")
    await create(server, "good", policy="fixed:b")
    await create(server, "bad", policy="fixed:a")
    await evaluated(server)
    nothing = await refusal(promote(server, "good", pb.POLICY_STATE_CANARY, canary_share=0.1))
    assert (nothing.code, nothing.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NOT_PROMOTABLE")
    assert nothing.metadata["outcome"] == "refused"
    await traffic(server, seeded("gate"), 250, a=0.1, b=0.9)
    await evaluated(server)
    refused = await refusal(
        promote(server, "bad", pb.POLICY_STATE_CANARY, canary_share=0.1, requirements=UTILITY_ONLY)
    )
    assert (refused.reason, refused.metadata["outcome"]) == ("NOT_PROMOTABLE", "failed")
    assert refused.metadata["reason_1"].startswith("utility: ")
    strict = await refusal(promote(server, "good", pb.POLICY_STATE_CANARY, canary_share=0.1))
    assert strict.metadata["outcome"] == "undecided"
    margin = {**UTILITY_ONLY, "utility_margin": 0.9}
    far = await refusal(promote(server, "good", pb.POLICY_STATE_LIVE, requirements=margin))
    assert far.reason == "NOT_PROMOTABLE"
    assert await states(server) == {"good": pb.POLICY_STATE_SHADOW, "bad": pb.POLICY_STATE_SHADOW}
    canary = await promote(
        server, "good", pb.POLICY_STATE_CANARY, canary_share=0.1, requirements=UTILITY_ONLY, actor="ann"
    )
    assert (canary.state, canary.canary_share) == (pb.POLICY_STATE_CANARY, 0.1)
    record = (await transitions(server))[-1]
    assert (record.from_state, record.to_state) == (pb.POLICY_STATE_SHADOW, pb.POLICY_STATE_CANARY)
    assert (record.actor, record.forced, record.automatic) == ("ann", False, False)
    known = json.loads(record.evidence_json)
    assert (known["outcome"], known["events"]) == ("passed", 250)
    assert known["utility_gain"][0] > 0.0


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"state": pb.POLICY_STATE_CANARY}, "canary_share"),
        ({"state": pb.POLICY_STATE_CANARY, "canary_share": 1.5}, "canary_share"),
        ({"state": pb.POLICY_STATE_LIVE, "canary_share": 0.5}, "canary_share"),
        ({"state": pb.POLICY_STATE_CANARY, "canary_share": 0.5, "holdback_share": 0.1}, "holdback_share"),
        ({"state": pb.POLICY_STATE_LIVE, "holdback_share": 1.0}, "holdback_share"),
        ({"state": pb.POLICY_STATE_RETIRED}, "state"),
        ({"state": pb.POLICY_STATE_UNSPECIFIED}, "state"),
        ({"state": pb.POLICY_STATE_LIVE, "force": True}, "reason"),
        ({"state": pb.POLICY_STATE_LIVE, "requirements": {"utility_margin": -1.0}}, "requirements.utility_margin"),
    ],
)
async def test_a_bad_field_is_refused_by_its_name(server: Running, fields: dict[str, Any], field: str) -> None:
    await create(server, "x", policy="uniform")
    refused = await refusal(promote(server, "x", **fields))
    assert (refused.code, refused.fields) == (grpc.StatusCode.INVALID_ARGUMENT, [field])


async def test_what_cannot_be_is_refused(server: Running) -> None:
    await server.create_models(a={}, b={})
    missing = await refusal(forced(server, "none", pb.POLICY_STATE_LIVE))
    assert (missing.code, missing.reason) == (grpc.StatusCode.NOT_FOUND, "POLICY_NOT_FOUND")
    first = await create(server, "first", policy="uniform")
    await create(server, "second", rules=[{"feature": "x", "equals": "y", "model": "a"}])
    stale = await refusal(forced(server, "first", pb.POLICY_STATE_LIVE, etag="1"))
    assert stale.code is grpc.StatusCode.ABORTED
    await forced(server, "first", pb.POLICY_STATE_CANARY, canary_share=0.5, etag=first.etag)
    another = await refusal(forced(server, "second", pb.POLICY_STATE_CANARY, canary_share=0.5))
    assert (another.code, "first" in another.message) == (grpc.StatusCode.FAILED_PRECONDITION, True)
    own = await refusal(forced(server, "second", pb.POLICY_STATE_LIVE))
    assert (own.code, "rules" in own.message) == (grpc.StatusCode.FAILED_PRECONDITION, True)
    live = await forced(server, "first", pb.POLICY_STATE_LIVE)
    assert live.state == pb.POLICY_STATE_LIVE
    for again in (
        forced(server, "first", pb.POLICY_STATE_CANARY, canary_share=0.5),
        server.policies.RetirePolicy(pb.RetirePolicyRequest(name=first.name)),
    ):
        assert (await refusal(again)).code is grpc.StatusCode.FAILED_PRECONDITION
    assert (await refusal(create(server, "previous-1"))).fields == ["policy_id"]


async def test_a_canary_serves_its_share_by_logged_probabilities_and_stops_when_told(
    server: Running, disk: Disk
) -> None:
    await server.create_models(a={}, b={})
    await server.update_router(policy="fixed:a")
    await create(server, "canary", policy="fixed:b")
    await forced(server, "canary", pb.POLICY_STATE_CANARY, canary_share=0.25)
    made = [await server.route(prompt="hello") for _ in range(200)]
    assert {each.model: each.probability for each in made} == {"a": 0.75, "b": 0.25}
    # Five standard deviations.
    assert Counter(each.model for each in made)["b"] == pytest.approx(50, abs=31)
    assert audit(disk.reader, lambda _: None).draws_wrong == 0
    found = await evaluated(server)
    assert next(each for each in found.candidates if each.candidate == "canary").support.unsupported_mean == 0.0
    back = await promote(server, "canary", pb.POLICY_STATE_SHADOW)
    assert (back.state, back.canary_share) == (pb.POLICY_STATE_SHADOW, 0.0)
    assert {(await server.route(prompt="hello")).model for _ in range(20)} == {"a"}


async def test_a_candidate_that_comes_late_begins_with_what_the_log_has_taught(server: Running) -> None:
    await server.create_models(a={}, b={})
    await server.update_router(policy="uniform")
    await traffic(server, seeded("late"), 60, a=0.0, b=1.0)
    await server.settled()
    await create(server, "late", policy="greedy", objective={"quality_value_usd": 0.25})
    await create(server, "other", policy="greedy", learner=registry_pb.LEARNER_VOWPAL_WABBIT)
    await traffic(server, seeded("later"), 20, a=0.0, b=1.0)
    found = {each.candidate: each for each in (await evaluated(server)).candidates}
    for name in ("late", "other"):
        quality = next(each for each in found[name].estimates if each.metric == pb.METRIC_QUALITY)
        assert quality.snips.candidate.value == 1.0, f"{name} would have called a"


async def test_a_canary_that_learns_serves_with_what_it_has_learned_also_after_a_restart(
    url: str, featuriser: Featuriser
) -> None:
    async def serves_b(server: Running) -> bool:
        return (await server.route(prompt="hello")).model == "b"

    async with running_app(url, featuriser) as server:
        await server.create_models(a={}, b={})
        await server.update_router(policy="uniform")
        await create(server, "own", policy="greedy", learner=registry_pb.LEARNER_VOWPAL_WABBIT)
        await traffic(server, seeded("own"), 60, a=0.0, b=1.0)
        await evaluated(server)
        await server.update_router(policy="fixed:a")
        await forced(server, "own", pb.POLICY_STATE_CANARY, canary_share=1.0)
        await eventually(lambda: serves_b(server))
    async with running_app(url, featuriser) as server:
        await eventually(lambda: serves_b(server))


async def test_a_policy_that_goes_live_is_the_routers_own_and_the_former_one_stays_a_candidate(
    server: Running,
) -> None:
    await server.create_models(a={}, b={})
    before = await server.update_router(policy="uniform", objective=registry_pb.Objective(quality_value_usd=0.5))
    await create(
        server, "better", policy="greedy", exploration={"strength": 0.5}, objective={"quality_value_usd": 0.25}
    )
    await forced(server, "better", pb.POLICY_STATE_LIVE)
    router = await server.get_router()
    assert (router.policy, router.objective.quality_value_usd) == ("greedy", 0.25)
    assert router.exploration.strength == 0.5
    assert router.etag != before.etag
    known = await states(server)
    (former,) = [name for name in known if name.startswith("previous-")]
    assert known == {"better": pb.POLICY_STATE_LIVE, former: pb.POLICY_STATE_SHADOW}
    kept = (await server.policies.GetPolicy(pb.GetPolicyRequest(name=NAME.format(former)))).policy
    assert kept.policy == "uniform"
    done = [each for each in await transitions(server) if each.position == former.removeprefix("previous-")]
    moves = {each.policy.rpartition("/")[2]: (each.to_state, each.forced, each.actor) for each in done}
    assert moves == {
        "better": (pb.POLICY_STATE_LIVE, True, "ann"),
        former: (pb.POLICY_STATE_SHADOW, False, "ann"),
    }
    await server.route(prompt="hello")
    found = await evaluated(server)
    assert former in {each.candidate for each in found.candidates}
    assert "better" not in {each.candidate for each in found.candidates}
    assert found.decision_count == 1


async def test_pages_of_transitions_give_each_once_in_its_order(server: Running) -> None:
    await server.create_models(a={}, b={})
    await create(server, "x", policy="uniform")
    await forced(server, "x", pb.POLICY_STATE_CANARY, canary_share=0.5)
    await forced(server, "x", pb.POLICY_STATE_LIVE)
    whole, paged, token = await transitions(server), [], ""
    while True:
        request = pb.ListTransitionsRequest(page_size=1, page_token=token)
        page = await server.policies.ListTransitions(request)
        paged += page.transitions
        token = page.next_page_token
        if not token:
            break
    assert paged == whole
    assert [each.to_state for each in whole][:2] == [pb.POLICY_STATE_SHADOW, pb.POLICY_STATE_CANARY]
    for bad in ("x", ":", "1" * 200):
        request = pb.ListTransitionsRequest(page_token=bad)
        assert (await refusal(server.policies.ListTransitions(request))).fields == ["page_token"]


async def test_another_kind_of_learner_begins_with_all_that_was_ever_reported(server: Running) -> None:
    await server.create_models(a={}, b={})
    await traffic(server, seeded("kind"), 40, a=0.0, b=1.0)
    await create(server, "vw", policy="greedy", learner=registry_pb.LEARNER_VOWPAL_WABBIT)
    await forced(server, "vw", pb.POLICY_STATE_LIVE)
    statistics = (await server.settled()).statistics
    assert statistics.reward_count == 40
    answer = await server.route(prompt="question 1")
    quality = {each.model: each.predicted_quality for each in answer.candidates}
    assert answer.model == "b"
    assert quality["b"] > quality["a"]


@pytest.mark.parametrize("kind", list(LearnerKind))
def test_what_a_promoted_learner_knows_is_rebuilt_from_the_log_to_the_same_bits(
    disk: Disk, kind: LearnerKind
) -> None:
    random = seeded("promoted")
    busy_log(disk, random, kind, 80)
    other = next(each for each in LearnerKind if each is not kind)
    spec = policy_store.CandidateSpec("new", learner=other)
    disk.change("default", policy_store.create_policy("default", spec, Cause()))
    disk.change("default", policy_store.go_live("default", "new", None, Cause()))
    former = next(
        each.spec.id
        for each in disk.registry.entry("default").policies.values()
        if each.state is PolicyState.SHADOW
    )
    assert disk.registry.router("default").spec.learner is other
    assert folded(disk, 1000).view("default").router.rewards > 0
    disk.change("default", policy_store.go_live("default", former, None, Cause()))
    whole = fingerprints(folded(disk, 1000))
    assert fingerprints(folded(disk, 7)) == whole
    assert fingerprints(restarted(disk, random)) == whole


async def test_without_an_evaluation_only_force_promotes(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_: object) -> None:
        raise ZeroDivisionError("a fault in the evaluation")

    await server.create_models(a={})
    await create(server, "x", policy="uniform")
    await evaluated(server)
    monkeypatch.setattr("policy.evaluation.Evaluation.on_decision", die)
    await server.route(prompt="hello")
    await server.health_is(health_pb2.HealthCheckResponse.NOT_SERVING, "pointsman.v1.evaluation")
    refused = await refusal(promote(server, "x", pb.POLICY_STATE_LIVE))
    assert (refused.code, refused.reason) == (grpc.StatusCode.UNAVAILABLE, "EVALUATION_UNAVAILABLE")
    assert (await forced(server, "x", pb.POLICY_STATE_LIVE)).state == pb.POLICY_STATE_LIVE
