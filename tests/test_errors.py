"""Every mistake gets its canonical code, its reason and its field, and the server answers the next request."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator

import grpc
import pytest
from pointsman.v1 import policy_service_pb2 as policy_pb
from pointsman.v1 import registry_service_pb2 as registry_pb
from pointsman.v1 import router_service_pb2 as pb
from servers import NOT_STORED, Running, refusal, running_app
from sqlalchemy.exc import OperationalError

from policy.domain import MODELS_PER_ROUTER_MAX
from policy.features import Featuriser

INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND
FAILED = grpc.StatusCode.FAILED_PRECONDITION


@pytest.fixture
async def ready(server: Running) -> AsyncIterator[Running]:
    """A server with two models that must still answer when the test is over."""
    await server.create_models(a={"capabilities": ["tools"]}, b={"context_window_tokens": 1000})
    yield server
    answer = await server.route(prompt="and now?")
    assert answer.model in ("a", "b")
    assert await server.report(answer, reward=0.5) == pb.DISPOSITION_RECORDED


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"prompt": "x" * 5_000_000}, "prompt"),
        ({"embedding": [1.0] * 255}, "embedding"),
        ({"embedding": [math.nan] * 256}, "embedding"),
        ({"embedding": [math.inf] + [0.0] * 255}, "embedding"),
        ({"request_id": "x" * 129}, "request_id"),
        ({"session_id": "x" * 129}, "session_id"),
        ({"input_tokens": -1}, "input_tokens"),
        ({"max_output_tokens": 1 << 62}, "max_output_tokens"),
        ({"numeric_features": {"n": math.nan}}, "numeric_features[n]"),
        ({"numeric_features": {str(i): 1.0 for i in range(300)}}, "numeric_features"),
        ({"categorical_features": {"c": "x" * 300}}, "categorical_features[c]"),
        ({"categorical_features": {"c" * 300: "x"}}, "categorical_features"),
        ({"constraints": {"allowed_models": ["a"] * 10_000}}, "constraints.allowed_models"),
        ({"constraints": {"denied_models": ["a"] * 10_000}}, "constraints.denied_models"),
        ({"constraints": {"required_capabilities": ["a"] * 65}}, "constraints.required_capabilities"),
        ({"constraints": {"required_capabilities": ["a" * 65]}}, "constraints.required_capabilities"),
        ({"constraints": {"required_capabilities": [""]}}, "constraints.required_capabilities"),
        ({"constraints": {"max_cost_usd": -0.1}}, "constraints.max_cost_usd"),
        ({"constraints": {"max_cost_usd": math.nan}}, "constraints.max_cost_usd"),
        ({"constraints": {"max_latency": {"seconds": -1}}}, "constraints.max_latency"),
        ({"preference": {"quality_value_usd": 0.0}}, "preference.quality_value_usd"),
        ({"preference": {"latency_usd_per_second": math.inf}}, "preference.latency_usd_per_second"),
        ({"router": "default"}, "router"),
        ({"router": "routers/"}, "router"),
        ({"router": "routers/a/models/b"}, "router"),
    ],
    ids=str,
)
async def test_a_bad_field_of_a_request_to_route_is_named(ready: Running, fields: dict, field: str) -> None:
    refused = await refusal(ready.route(**fields))
    assert (refused.code, refused.reason, refused.fields) == (INVALID, "INVALID_FIELD", [field])
    assert field in refused.message


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"reward": math.nan}, "reward"),
        ({"reward": 1.5}, "reward"),
        ({"reward": -0.1}, "reward"),
        ({"reward": math.inf}, "reward"),
        ({}, "reward"),
        ({"report_id": "only an id"}, "reward"),
        ({"served_model": "a"}, "reward"),
        ({"reward": 0.5, "report_id": "x" * 129}, "report_id"),
        ({"signals": {"s": math.nan}}, "signals[s]"),
        ({"signals": {str(i): 0.5 for i in range(65)}}, "signals"),
        ({"usage": {"input_tokens": -1}}, "usage.input_tokens"),
        ({"usage": {"output_tokens": -1}}, "usage.output_tokens"),
        ({"usage": {"input_tokens": 5, "cached_input_tokens": 6}}, "usage.cached_input_tokens"),
        ({"usage": {"cached_input_tokens": -1}}, "usage.cached_input_tokens"),
        ({"usage": {"cost_usd": -1e-9}}, "usage.cost_usd"),
        ({"usage": {"cost_usd": math.nan}}, "usage.cost_usd"),
        ({"latency": {"seconds": -5}}, "latency"),
        ({"latency": {"seconds": 10**11}}, "latency"),
        ({"error": 77}, "error"),
        ({"reward": 0.5, "event_time": {"seconds": -5}}, "event_time"),
    ],
    ids=str,
)
async def test_a_bad_field_of_a_report_is_named_and_nothing_is_stored(
    ready: Running, fields: dict, field: str
) -> None:
    decision = await ready.route(prompt="hello")
    refused = await refusal(ready.report(decision, **fields))
    assert (refused.code, refused.reason, refused.fields) == (INVALID, "INVALID_FIELD", [field])
    assert list((await ready.decision(decision)).reports) == []


async def test_a_weighted_signal_out_of_range_is_refused(ready: Running) -> None:
    name = await ready.create_router("r", reward_rule={"signal_weights": {"thumbs": 1.0}})
    await ready.create_models(name, a={})
    decision = await ready.route(router=name)
    refused = await refusal(ready.report(decision, signals={"thumbs": 2.0}))
    assert (refused.code, refused.fields) == (INVALID, ["signals[thumbs]"])


async def test_a_missing_decision_id_is_a_bad_field(ready: Running) -> None:
    for call in (
        ready.report("", reward=0.5),
        ready.router.GetDecision(pb.GetDecisionRequest()),
        ready.router.ActivateDecision(pb.ActivateDecisionRequest()),
    ):
        assert (await refusal(call)).fields == ["decision_id"]


async def test_a_router_that_is_not_there_is_not_found(ready: Running) -> None:
    for call in (
        ready.route(router="routers/none"),
        ready.get_router("routers/none"),
        ready.update_router("routers/none", display_name="x"),
        ready.create_models("routers/none", a={}),
        ready.registry.ListModels(registry_pb.ListModelsRequest(parent="routers/none")),
    ):
        refused = await refusal(call)
        assert (refused.code, refused.reason) == (NOT_FOUND, "ROUTER_NOT_FOUND")
        assert refused.metadata == {"router": "none"}


@pytest.mark.parametrize("field", ["allowed_models", "denied_models", "incumbent_model"])
async def test_a_named_model_that_the_router_never_had_is_not_found(ready: Running, field: str) -> None:
    given = {field: "never"} if field == "incumbent_model" else {"constraints": {field: ["a", "never"]}}
    refused = await refusal(ready.route(**given))
    assert (refused.code, refused.reason, refused.metadata["model"]) == (NOT_FOUND, "MODEL_NOT_FOUND", "never")
    assert refused.metadata["field"].endswith(field)


async def test_a_served_model_that_the_router_never_had_is_not_found(ready: Running) -> None:
    decision = await ready.route(prompt="hello")
    refused = await refusal(ready.report(decision, reward=0.5, served_model="never"))
    assert (refused.code, refused.metadata["field"]) == (NOT_FOUND, "served_model")


async def test_no_eligible_model_gives_each_models_reason(ready: Running) -> None:
    limits = {"denied_models": ["a"]}
    refused = await refusal(ready.route(constraints=limits, input_tokens=600, max_output_tokens=500))
    assert (refused.code, refused.reason) == (FAILED, "NO_ELIGIBLE_MODEL")
    assert set(refused.metadata) == {"a", "b"}
    assert refused.metadata["a"].startswith("DENIED")
    assert refused.metadata["b"].startswith("CONTEXT_WINDOW")
    assert "1100" in refused.metadata["b"]


async def test_a_router_without_models_says_so(ready: Running) -> None:
    name = await ready.create_router("empty")
    refused = await refusal(ready.route(router=name, prompt="hello"))
    assert (refused.code, refused.reason, refused.metadata) == (FAILED, "NO_ELIGIBLE_MODEL", {})


@pytest.mark.parametrize("length", [3, 127])
async def test_a_router_has_a_most_of_models_and_says_the_reason_of_each(ready: Running, length: int) -> None:
    name = await ready.create_router("full")
    ids = [f"{i:0{length}d}" for i in range(MODELS_PER_ROUTER_MAX)]
    await ready.create_models(name, **{each: {"state": "MODEL_STATE_DISABLED"} for each in ids})
    refused = await refusal(ready.create_models(name, more={}))
    assert (refused.code, refused.reason) == (FAILED, "FAILED_PRECONDITION")
    nothing = await refusal(ready.route(router=name, prompt="hello"))
    assert (nothing.code, nothing.reason) == (FAILED, "NO_ELIGIBLE_MODEL")
    named = set(nothing.metadata) - {"omitted"}
    assert named
    assert named <= set(ids)
    assert len(named) + int(nothing.metadata.get("omitted", 0)) == len(ids)


@pytest.mark.parametrize("bad", ["", "a b", "-a", "ä", "a\n", "x" * 128, "../a"])
async def test_bad_names_are_refused(ready: Running, bad: str) -> None:
    router = await refusal(ready.registry.CreateRouter(registry_pb.CreateRouterRequest(router_id=bad)))
    assert (router.code, router.fields) == (INVALID, ["router_id"])
    model = await refusal(ready.registry.CreateModel(registry_pb.CreateModelRequest(model_id=bad)))
    assert (model.code, model.fields) == (INVALID, ["model_id"])


@pytest.mark.parametrize(
    "name", ["", "a", "routers/default", "routers/default/models/", "models/a", "routers//models/a"]
)
async def test_bad_full_names_are_refused(ready: Running, name: str) -> None:
    refused = await refusal(ready.registry.GetModel(registry_pb.GetModelRequest(name=name)))
    assert (refused.code, refused.fields) == (INVALID, ["name"])


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"policy": "best"}, "policy"),
        ({"policy": "fixed:"}, "policy"),
        ({"mode": 9}, "mode"),
        ({"learner": 9}, "learner"),
        ({"objective": {"budget_usd_per_request": 0.0}}, "objective.budget_usd_per_request"),
        ({"objective": {"budget_usd_per_day": 0.0}}, "objective.budget_usd_per_day"),
        ({"objective": {"budget_usd_per_month": math.nan}}, "objective.budget_usd_per_month"),
        (
            {"objective": {"budget_usd_per_request": 0.1, "budget_usd_per_month": 9.0}},
            "objective.budget_usd_per_month",
        ),
        (
            {"objective": {"budget_usd_per_day": 1.0, "budget_usd_per_month": 9.0}},
            "objective.budget_usd_per_month",
        ),
        ({"reward_rule": {"join_window": {"seconds": 91 * 86_400}}}, "reward_rule.join_window"),
        ({"reward_rule": {"join_window": {}}}, "reward_rule.join_window"),
        ({"reward_rule": {"signal_weights": {"s": -1.0}}}, "reward_rule.signal_weights[s]"),
        ({"reward_rule": {"missing_reward": 1.5}}, "reward_rule.missing_reward"),
        ({"exploration": {"strength": -1.0}}, "exploration.strength"),
        ({"exploration": {"burn_in_rewards": -1}}, "exploration.burn_in_rewards"),
        ({"exploration": {"max_utility_loss": math.nan}}, "exploration.max_utility_loss"),
        ({"features": {"embedding_dimensions": 5000}}, "features.embedding_dimensions"),
        ({"features": {"embedding_dimensions": -1}}, "features.embedding_dimensions"),
        ({"session_ttl": {"seconds": -1}}, "session_ttl"),
        ({"session_switch_gain": -0.1}, "session_switch_gain"),
        ({"session_switch_gain": math.nan}, "session_switch_gain"),
        ({"display_name": "x" * 257}, "display_name"),
    ],
    ids=str,
)
async def test_a_bad_field_of_a_router_is_named(ready: Running, fields: dict, field: str) -> None:
    refused = await refusal(ready.create_router("r", **fields))
    assert (refused.code, refused.fields) == (INVALID, [field])
    refused = await refusal(ready.update_router(**fields))
    assert (refused.code, refused.fields) == (INVALID, [field])


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"prices": (-1.0, 0.0, 0.0)}, "prices.input_usd_per_million_tokens"),
        ({"prices": (0.0, math.nan, 0.0)}, "prices.output_usd_per_million_tokens"),
        ({"context_window_tokens": -1}, "context_window_tokens"),
        ({"capabilities": ["x"] * 65}, "capabilities"),
        ({"capabilities": [""]}, "capabilities"),
        ({"state": 9}, "state"),
    ],
    ids=str,
)
async def test_a_bad_field_of_a_model_is_named(ready: Running, fields: dict, field: str) -> None:
    refused = await refusal(ready.create_models(c=fields))
    assert (refused.code, refused.fields) == (INVALID, [field])


async def test_too_many_reports_at_once_are_refused(ready: Running) -> None:
    request = pb.BatchReportRewardsRequest(requests=[pb.ReportRewardRequest()] * 1001)
    assert (await refusal(ready.router.BatchReportRewards(request))).fields == ["requests"]
    request.requests[0].error = 77  # One that is bad by itself counts, too.
    assert (await refusal(ready.router.BatchReportRewards(request))).fields == ["requests"]
    rows = pb.ImportDecisionsRequest(decisions=[pb.ImportedDecision(error=77)] * 1001)
    assert (await refusal(ready.router.ImportDecisions(rows))).fields == ["decisions"]


async def test_a_message_that_is_too_large_is_refused_before_it_is_read(url: str, featuriser: Featuriser) -> None:
    async with running_app(url, featuriser, message_bytes_max=1 << 16) as server:
        await server.create_models(a={})
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await server.route(prompt="x" * (1 << 16))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert (await server.route(prompt="x" * 60_000)).model == "a"


async def test_a_mask_of_endless_paths_is_refused(ready: Running) -> None:
    request = registry_pb.UpdateRouterRequest(router=registry_pb.Router(name="routers/default"))
    request.update_mask.paths.extend(["display_name"] * 101)
    assert (await refusal(ready.registry.UpdateRouter(request))).fields == ["update_mask"]


async def test_a_name_of_a_signal_has_a_length(ready: Running) -> None:
    rule = {"signal_weights": {"s" * 129: 1.0}}
    assert (await refusal(ready.create_router("r", reward_rule=rule))).fields == ["reward_rule.signal_weights"]


async def test_a_candidate_policy_is_bounded_too(ready: Running) -> None:
    rule = policy_pb.Rule(feature="f", model="a", equals="x" * 257)
    for policy, field in (
        (policy_pb.Policy(policy="uniform", rules=[rule]), "policy.rules[0].equals"),
        (policy_pb.Policy(feature_parts=[policy_pb.FEATURE_PART_CALLER] * 4), "policy.feature_parts"),
    ):
        request = policy_pb.CreatePolicyRequest(policy_id="p", policy=policy)
        assert (await refusal(ready.policies.CreatePolicy(request))).fields == [field]


async def test_a_model_removed_between_route_and_report_is_no_error(ready: Running) -> None:
    await ready.create_models(c={"prices": (0.0, 0.0, 0.5)})
    decision = await ready.route(prompt="hello", constraints={"allowed_models": ["c"]})
    await ready.registry.DeleteModel(registry_pb.DeleteModelRequest(name="routers/default/models/c"))
    disposition = await ready.report(decision, reward=0.5, usage={"cost_usd": 0.25}, served_model="c")
    assert disposition == pb.DISPOSITION_RECORDED
    router = await ready.settled()
    assert (router.statistics.reward_count, router.statistics.spent_usd) == (0, 0.25)
    assert (await ready.decision(decision)).reward == 0.5
    refused = await refusal(ready.route(constraints={"allowed_models": ["c"]}))
    assert refused.code is FAILED


async def test_a_session_whose_model_was_removed_gets_another(ready: Running) -> None:
    first = (await ready.route(session_id="s")).model
    await ready.registry.DeleteModel(registry_pb.DeleteModelRequest(name=f"routers/default/models/{first}"))
    assert (await ready.route(session_id="s")).model != first


async def test_a_database_that_cannot_be_read_is_unavailable(
    ready: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object) -> None:
        raise OperationalError("SELECT", {}, ConnectionError("the server closed the connection"))

    assert ready.app is not None
    monkeypatch.setattr(ready.app._reader, "session_decision", gone)
    said = await refusal(ready.route(session_id="s", prompt="question"))
    assert (said.code, said.reason) == (grpc.StatusCode.UNAVAILABLE, NOT_STORED)
    monkeypatch.undo()
    assert (await ready.route(session_id="s", prompt="question")).model


async def test_embeddings_follow_the_routers_length(ready: Running) -> None:
    name = await ready.create_router("short", features={"embedding_dimensions": 3})
    await ready.create_models(name, a={})
    assert (await ready.route(router=name, embedding=[1.0, 0.0, 0.0])).model == "a"
    for embedding in ([], [1.0] * 256):
        refused = await refusal(ready.route(router=name, prompt="text", embedding=embedding))
        assert (refused.code, refused.fields) == (INVALID, ["embedding"])
    refused = await refusal(ready.update_router(name, features={"embedding_dimensions": 4}))
    assert refused.code is FAILED
