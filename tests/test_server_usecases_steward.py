"""What a server does with its policies by itself: goes back to the former one, and promotes a better one."""

from __future__ import annotations

import json
from typing import Any

import grpc
import pytest
from pointsman.v1 import policy_service_pb2 as pb
from pointsman.v1 import registry_service_pb2 as registry_pb
from servers import Running, eventually, refusal, seeded
from test_server_evaluation_loop import create, evaluated, traffic
from test_server_promotion import NAME, UTILITY_ONLY, forced, states, transitions


async def test_a_router_goes_back_by_itself_once_the_former_policy_is_known_to_be_better(
    server: Running, caplog: pytest.LogCaptureFixture
) -> None:
    await server.create_models(good={}, bad={})
    await server.update_router(policy="uniform")
    await create(server, "mistake", rules=[], policy="uniform")
    before = await server.get_router()
    await server.update_router(policy="fixed:good")
    await create(server, "worse", policy="learned", objective={"quality_value_usd": 0.5})
    await forced(server, "worse", pb.POLICY_STATE_LIVE)
    assert (await server.get_router()).objective.quality_value_usd == 0.5
    await server.update_router(policy="uniform", mode=registry_pb.ROUTER_MODE_LIVE)
    random = seeded("back")

    async def went_back() -> bool:
        await traffic(server, random, 20, good=1.0, bad=0.0)
        return (await server.get_router()).policy == "fixed:good"

    await eventually(went_back)
    router = await server.get_router()
    assert router.objective == before.objective
    known = await states(server)
    live = [name for name, state in known.items() if state == pb.POLICY_STATE_LIVE]
    assert live[0].startswith("previous-")
    assert known["worse"] == pb.POLICY_STATE_RETIRED
    assert known["mistake"] == pb.POLICY_STATE_SHADOW
    record = next(
        each for each in await transitions(server) if each.automatic and each.to_state == pb.POLICY_STATE_LIVE
    )
    assert (record.policy, record.actor, record.forced) == (NAME.format(live[0]), "pointsman", False)
    assert "higher by at least" in record.reason
    # Quality may be known to be lost before utility is, whose bounds are wider.
    low, high = json.loads(record.evidence_json)["utility_gain"]
    assert low > 0.0 or (high > 0.0 and "quality" in record.reason)
    assert f"{live[0]} is live: {record.reason}" in caplog.text
    for _ in range(3):
        await traffic(server, random, 20, good=1.0, bad=0.0)
        await evaluated(server)
    assert (await server.get_router()).policy == "fixed:good"


async def settings(server: Running, **fields: Any) -> pb.PromotionSettings:
    given = pb.PromotionSettings(name="routers/default/promotionSettings", **fields)
    request = pb.UpdatePromotionSettingsRequest(promotion_settings=given)
    return (await server.policies.UpdatePromotionSettings(request)).promotion_settings


async def test_a_former_policy_that_keeps_a_share_can_be_compared_and_gone_back_to(server: Running) -> None:
    await server.create_models(good={}, bad={})
    await server.update_router(policy="fixed:good")
    await create(server, "worse", policy="fixed:bad")
    await forced(server, "worse", pb.POLICY_STATE_LIVE, holdback_share=0.25)
    known = await states(server)
    (former,) = [name for name in known if name.startswith("previous-")]
    assert known[former] == pb.POLICY_STATE_CANARY
    assert (await server.route(prompt="hello")).probability in {0.75, 0.25}
    random = seeded("holdback")

    async def went_back() -> bool:
        await traffic(server, random, 20, good=1.0, bad=0.0)
        return (await server.get_router()).policy == "fixed:good"

    await eventually(went_back)
    assert (await states(server))[former] == pb.POLICY_STATE_LIVE


async def test_promotion_settings_read_back_and_a_bad_one_is_refused_by_its_name(server: Running) -> None:
    read = pb.GetPromotionSettingsRequest(name="routers/default/promotionSettings")
    default = (await server.policies.GetPromotionSettings(read)).promotion_settings
    assert (default.automatic_canary_share, default.canary_time.seconds) == (0.0, 3600)
    assert default.requirements.quality_loss_max == 0.01
    changed = await settings(server, requirements={"utility_margin": 0.25}, etag=default.etag)
    assert changed.requirements == pb.Requirements(utility_margin=0.25)
    assert (await server.policies.GetPromotionSettings(read)).promotion_settings == changed
    assert (await refusal(settings(server, etag=default.etag))).code is grpc.StatusCode.ABORTED
    for fields, field in (
        ({"automatic_canary_share": 1.0}, "automatic_canary_share"),
        ({"canary_time": {"seconds": -1}}, "canary_time"),
        ({"requirements": {"utility_margin": -1.0}}, "requirements.utility_margin"),
        ({"requirements": {"cost_factor_max": 1.0}}, "requirements.cost_factor_max"),
        ({"requirements": {"latency_factor_max": 0.5}}, "requirements.latency_factor_max"),
    ):
        refused = await refusal(settings(server, **fields))
        assert (refused.code, refused.fields) == (
            grpc.StatusCode.INVALID_ARGUMENT,
            [f"promotion_settings.{field}"],
        )
    none = await refusal(
        server.policies.GetPromotionSettings(pb.GetPromotionSettingsRequest(name="routers/none/promotionSettings"))
    )
    assert none.code is grpc.StatusCode.NOT_FOUND
    await server.create_models(a={})
    found = await evaluated(server)
    assert found.requirements.utility_margin == 0.25


async def test_a_router_on_automatic_walks_the_better_candidate_to_the_traffic_by_the_same_gate(
    server: Running,
) -> None:
    await server.create_models(good={}, bad={})
    await server.update_router(policy="uniform")
    await create(server, "best", policy="fixed:good")
    await create(server, "worst", policy="fixed:bad")
    await settings(server, requirements=UTILITY_ONLY, automatic_canary_share=0.25, canary_time={})
    random = seeded("automatic")

    async def arrived() -> bool:
        await traffic(server, random, 20, good=1.0, bad=0.0)
        return (await server.get_router()).policy == "fixed:good"

    await eventually(arrived)
    known = await states(server)
    assert (known["best"], known["worst"]) == (pb.POLICY_STATE_LIVE, pb.POLICY_STATE_SHADOW)
    walked = [each for each in await transitions(server) if each.policy == NAME.format("best")]
    assert [each.to_state for each in walked] == [
        *(pb.POLICY_STATE_SHADOW, pb.POLICY_STATE_CANARY, pb.POLICY_STATE_LIVE),
    ]
    for each in walked[1:]:
        assert (each.automatic, each.actor) == (True, "pointsman")
        assert json.loads(each.evidence_json)["outcome"] == "passed"
