"""What a caller sees over gRPC: each field of a request does what its comment in the proto says."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from engines import BOTH_ENGINES
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from pointsman.v1 import registry_service_pb2 as registry_pb
from pointsman.v1 import router_service_pb2 as pb
from servers import Running, refusal, running_app

from policy.exploration import unit_draw
from policy.features import Featuriser
from policy.layout import FEATURE_VERSION

pytestmark = BOTH_ENGINES


@pytest.fixture
async def server(server: Running) -> Running:
    """A server whose default router has three models: cheap, middling and dear."""
    await server.create_models(
        cheap={"prices": (0.0, 0.0, 0.001), "context_window_tokens": 1000},
        middling={"prices": (0.0, 0.0, 0.01), "capabilities": ["tools"]},
        dear={"prices": (0.0, 0.0, 0.1), "capabilities": ["tools", "vision"]},
    )
    return server


def exclusions(answer: Any) -> dict[str, str]:
    return {
        each.model: pb.Exclusion.Name(each.exclusion).removeprefix("EXCLUSION_")
        for each in answer.candidates
        if each.exclusion
    }


async def test_the_books_of_exploration_are_what_the_decisions_gave_up(server: Running) -> None:
    await server.update_router(policy="uniform")
    cost, count = Counter[str](), Counter[str]()
    for turn in range(40):
        decision = await server.route(prompt=f"question {turn}")
        best = max(decision.candidates, key=lambda each: each.score)
        drawn = next(each for each in decision.candidates if each.model == decision.model)
        if drawn.score < best.score:
            cost[drawn.model] += drawn.predicted_cost_usd - best.predicted_cost_usd
            count[drawn.model] += 1
        await server.report(decision, reward=0.5)
    books = (await server.settled()).statistics.exploration
    assert books.decision_count == sum(count.values()) > 0
    assert books.cost_usd == pytest.approx(sum(cost.values()))
    for name in ("cheap", "middling", "dear"):
        of_model = (await server.get_model(name)).statistics.exploration
        assert (of_model.decision_count, of_model.cost_usd) == (count[name], pytest.approx(cost[name]))


async def test_an_answer_holds_together(server: Running) -> None:
    answer = await server.route(prompt="hello")
    by_model = {each.model: each for each in answer.candidates}
    assert set(by_model) == {"cheap", "middling", "dear"}
    assert sum(each.probability for each in answer.candidates) == pytest.approx(1.0)
    assert answer.probability == by_model[answer.model].probability
    assert 0 < answer.probability <= 1
    assert {answer.model, *answer.fallback_models} == set(by_model)
    assert len(answer.fallback_models) == 2
    assert (answer.policy, answer.proposed_model) == ("learned", "")
    assert answer.expire_time.seconds - answer.create_time.seconds == 86_400
    assert by_model["dear"].predicted_cost_usd == pytest.approx(0.1)


async def test_the_draw_follows_from_the_decision_id_and_the_probabilities(server: Running) -> None:
    await server.update_router(policy="uniform")
    for _ in range(30):
        answer = await server.route(prompt="hello")
        index = [each.model for each in answer.candidates].index(answer.model)
        below = sum(each.probability for each in answer.candidates[:index])
        assert below <= unit_draw(answer.decision_id) < below + answer.probability


async def test_fallbacks_are_the_other_eligible_models_best_first(server: Running) -> None:
    answer = await server.route(prompt="hello", constraints={"denied_models": ["cheap"]})
    scores = {each.model: each.score for each in answer.candidates}
    rest = [each for each in ("middling", "dear") if each != answer.model]
    assert list(answer.fallback_models) == sorted(rest, key=lambda model: -scores[model])


@pytest.mark.parametrize(
    ("request_fields", "expected"),
    [
        ({"constraints": {"allowed_models": ["dear"]}}, {"cheap": "NOT_ALLOWED", "middling": "NOT_ALLOWED"}),
        ({"constraints": {"allowed_models": ["routers/default/models/dear", "cheap"]}},
         {"middling": "NOT_ALLOWED"}),
        ({"constraints": {"denied_models": ["routers/default/models/cheap"]}}, {"cheap": "DENIED"}),
        ({"constraints": {"required_capabilities": ["tools"]}}, {"cheap": "MISSING_CAPABILITY"}),
        (
            {"constraints": {"required_capabilities": ["vision", "tools"]}},
            {"cheap": "MISSING_CAPABILITY", "middling": "MISSING_CAPABILITY"},
        ),
        ({"constraints": {"max_cost_usd": 0.05}}, {"dear": "COST_LIMIT"}),
        ({"input_tokens": 900, "max_output_tokens": 101}, {"cheap": "CONTEXT_WINDOW"}),
        ({"input_tokens": 900, "max_output_tokens": 100}, {}),
        ({"constraints": {"allowed_models": ["cheap", "dear"], "denied_models": ["cheap"]}},
         {"cheap": "DENIED", "middling": "NOT_ALLOWED"}),
    ],
    ids=str,
)  # fmt: skip
async def test_constraints_exclude_with_their_reason(
    server: Running, request_fields: dict[str, Any], expected: dict[str, str]
) -> None:
    for _ in range(5):
        answer = await server.route(prompt="hello", **request_fields)
        assert exclusions(answer) == expected
        assert answer.model not in expected
        assert not set(answer.fallback_models) & set(expected)
        for each in answer.candidates:
            assert bool(each.exclusion_detail) == (each.model in expected)
            assert each.probability == 0 or each.model not in expected


async def test_a_latency_limit_excludes_once_a_latency_is_known(server: Running) -> None:
    limits = {"max_latency": {"seconds": 1}}
    slow = await server.route(prompt="hello", constraints={"allowed_models": ["dear"], **limits})
    await server.report(slow, latency={"seconds": 3})
    await server.settled()
    answer = await server.route(prompt="hello", constraints=limits)
    assert exclusions(answer) == {"dear": "LATENCY_LIMIT"}
    predicted = {each.model: each.predicted_latency_seconds for each in answer.candidates}
    assert predicted == {"cheap": 0, "middling": 0, "dear": 3.0}


async def test_a_model_whose_calls_fail_is_left_out_unless_nothing_else_is_left(server: Running) -> None:
    for _ in range(5):
        answer = await server.route(constraints={"allowed_models": ["cheap"]})
        await server.report(answer, error="MODEL_ERROR_UNAVAILABLE")
    await server.settled()
    statistics = (await server.get_model("cheap")).statistics
    assert (statistics.error_count, statistics.healthy, statistics.reward_count) == (5, False, 0)
    assert exclusions(await server.route(prompt="hello")) == {"cheap": "UNHEALTHY"}
    assert (await server.route(constraints={"allowed_models": ["cheap"]})).model == "cheap"


async def test_a_disabled_model_is_excluded(server: Running) -> None:
    model = registry_pb.Model(name="routers/default/models/dear", state=registry_pb.MODEL_STATE_DISABLED)
    await server.registry.UpdateModel(registry_pb.UpdateModelRequest(model=model))
    assert exclusions(await server.route(prompt="hello")) == {"dear": "DISABLED"}


async def test_a_preference_changes_what_money_is_worth_on_this_request_alone(server: Running) -> None:
    async def money(**preference: float) -> float:
        answer = await server.route(prompt="hello", preference=preference)
        return (await server.decision(answer)).price_of_money

    assert await money() == pytest.approx(20.0)
    assert await money(quality_value_usd=0.5) == pytest.approx(2.0)
    assert await money() == pytest.approx(20.0)
    rich = await server.route(prompt="hello", preference={"quality_value_usd": 1e9, "exploit_only": True})
    scores = {each.model: each.score for each in rich.candidates}
    assert scores["dear"] == pytest.approx(scores["cheap"], abs=1e-6)


async def test_a_price_of_latency_lowers_the_score_of_the_slow(server: Running) -> None:
    slow = await server.route(constraints={"allowed_models": ["dear"]})
    await server.report(slow, latency={"seconds": 10})
    await server.settled()
    scores = []
    for price in (0.0, 0.001):
        preference = {"quality_value_usd": 1.0, "latency_usd_per_second": price}
        answer = await server.route(prompt="hello", preference=preference)
        scores.append({each.model: each.score for each in answer.candidates}["dear"])
    assert scores[0] - scores[1] == pytest.approx(0.01)


async def test_exploit_only_takes_the_best_with_certainty(server: Running) -> None:
    for _ in range(20):
        answer = await server.route(prompt="hello", preference={"exploit_only": True})
        best = max(answer.candidates, key=lambda each: each.score)
        assert (answer.model, answer.probability, answer.policy) == (best.model, 1.0, "exploit_only")


@pytest.mark.parametrize(
    ("policy", "model"), [("cheapest", "cheap"), ("fixed:dear", "dear"), ("fixed:middling", "middling")]
)
async def test_a_baseline_policy_decides_as_it_says(server: Running, policy: str, model: str) -> None:
    await server.update_router(policy=policy)
    answer = await server.route(prompt="hello")
    assert (answer.model, answer.probability, answer.policy) == (model, 1.0, policy)


async def test_the_same_request_id_gets_the_same_answer_again(server: Running) -> None:
    first = await server.route(request_id="r", prompt="one thing")
    again = await server.route(
        request_id="r", prompt="quite another", constraints={"denied_models": [first.model]}
    )
    assert again == first
    assert (await server.decision(first)).request_id == "r"


@pytest.mark.parametrize("field", ["request_id", "session_id"])
async def test_an_id_that_not_every_database_can_keep_is_refused(server: Running, field: str) -> None:
    told = await refusal(server.route(prompt="hello", **{field: "a\0b"}))
    assert (told.code.name, told.fields) == ("INVALID_ARGUMENT", [field])
    told = await refusal(server.report(await server.route(), report_id="\0", reward=1.0))
    assert (told.code.name, told.fields) == ("INVALID_ARGUMENT", ["report_id"])


async def test_a_prompt_may_have_any_character(server: Running) -> None:
    await server.update_router(store_prompts=True)
    answer = await server.route(prompt="a\0b \ue000 ☃", categorical_features={"tenant": "acme\0"})
    assert (await server.decision(answer)).prompt in ("a\0b \ue000 ☃", "a\ufffdb \ue000 ☃")


async def test_fifty_at_once_with_the_same_request_id_get_one_decision(server: Running) -> None:
    await server.update_router(policy="uniform")
    answers = await asyncio.gather(*(server.route(request_id="r", prompt=str(i)) for i in range(50)))
    assert len({each.SerializeToString(deterministic=True) for each in answers}) == 1
    assert (await server.settled()).statistics.decision_count == 1


async def test_the_same_request_id_after_a_restart_gets_the_same_answer(url: str, featuriser: Featuriser) -> None:
    async with running_app(url, featuriser) as server:
        await server.create_models(a={}, b={})
        first = await server.route(request_id="r")
    async with running_app(url, featuriser) as server:
        assert await server.route(request_id="r") == first


async def qualities(server: Running, **request: Any) -> list[float]:
    return [each.predicted_quality for each in (await server.route(**request)).candidates]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"prompt": "What is 2 + 2?"}, {"prompt": "Write a poem about the sea"}),
        ({"embedding": [1.0] + [0.0] * 255}, {"embedding": [0.0] * 255 + [1.0]}),
        ({"numeric_features": {"difficulty": 1.0}}, {"numeric_features": {"difficulty": -1.0}}),
        ({"categorical_features": {"tenant": "acme"}}, {"categorical_features": {"tenant": "other"}}),
    ],
    ids=["prompt", "embedding", "numeric", "categorical"],
)
async def test_what_the_query_is_makes_a_difference_once_learned(
    server: Running, one: dict[str, Any], other: dict[str, Any]
) -> None:
    for _ in range(30):
        for query, reward in ((one, 1.0), (other, 0.0)):
            decision = await server.route(constraints={"allowed_models": ["cheap"]}, **query)
            await server.report(decision, reward=reward)
    await server.settled()
    good, bad = await qualities(server, **one), await qualities(server, **other)
    assert good[0] - bad[0] > 0.2


async def test_an_embedding_stands_for_that_of_the_text(server: Running) -> None:
    embedding = [0.5] * 256
    first = await qualities(server, prompt="x", embedding=embedding)
    assert await qualities(server, prompt="x", embedding=[each * 1e30 for each in embedding]) == first


async def test_input_tokens_make_the_cost(server: Running) -> None:
    await server.create_models(metered={"prices": (1.0, 0.0, 0.0)})
    for tokens in (1_000, 500_000):
        answer = await server.route(prompt="x", input_tokens=tokens)
        costs = {each.model: each.predicted_cost_usd for each in answer.candidates}
        assert costs["metered"] == pytest.approx(tokens * 1e-6)


async def test_a_deferred_decision_counts_once_it_is_activated(server: Running) -> None:
    answer = await server.route(defer_activation=True)
    assert not (await server.decision(answer)).active
    assert (await server.settled()).statistics.decision_count == 0
    request = pb.ActivateDecisionRequest(decision_id=answer.decision_id)
    assert (await server.router.ActivateDecision(request)).disposition == pb.DISPOSITION_RECORDED
    assert (await server.router.ActivateDecision(request)).disposition == pb.DISPOSITION_DUPLICATE
    decision = await server.decision(answer)
    assert (decision.active, list(decision.reports)) == (True, [])
    assert (await server.settled()).statistics.decision_count == 1


async def test_a_report_activates_a_deferred_decision(server: Running) -> None:
    answer = await server.route(defer_activation=True)
    await server.report(answer, reward=0.5)
    assert (await server.decision(answer)).active
    statistics = (await server.settled()).statistics
    assert (statistics.decision_count, statistics.reward_count) == (1, 1)


async def test_a_decision_that_is_not_deferred_is_active_already(server: Running) -> None:
    answer = await server.route()
    request = pb.ActivateDecisionRequest(decision_id=answer.decision_id)
    assert (await server.router.ActivateDecision(request)).disposition == pb.DISPOSITION_DUPLICATE


async def test_shadow_mode_obeys_the_incumbent_and_says_what_it_would_have_done(server: Running) -> None:
    await server.update_router(mode=registry_pb.ROUTER_MODE_SHADOW, policy="cheapest")
    answer = await server.route(prompt="hello", incumbent_model="routers/default/models/dear")
    assert (answer.model, answer.probability, answer.proposed_model) == ("dear", 1.0, "cheap")
    decision = await server.decision(answer)
    assert (decision.incumbent_model, decision.proposed_model) == ("dear", "cheap")
    refused = await refusal(server.route(prompt="hello"))
    assert refused.fields == ["incumbent_model"]


async def test_a_live_router_logs_the_incumbent_and_decides_itself(server: Running) -> None:
    await server.update_router(policy="cheapest")
    answer = await server.route(prompt="hello", incumbent_model="dear")
    assert (answer.model, answer.proposed_model) == ("cheap", "")
    assert (await server.decision(answer)).incumbent_model == "dear"


async def test_the_prompt_is_stored_only_where_the_router_says_so(server: Running) -> None:
    secret = await server.route(prompt="a secret")
    assert (await server.decision(secret)).prompt == ""
    await server.update_router(store_prompts=True)
    stored = await server.route(prompt="no secret ☃")
    assert (await server.decision(stored)).prompt == "no secret ☃"


async def test_a_secret_prompt_is_nowhere_on_the_disk(server: Running, tmp_path: Any) -> None:
    await server.route(prompt="xyzzy-plugh-secret")
    for path in tmp_path.iterdir():
        assert b"xyzzy-plugh" not in path.read_bytes()


async def test_get_decision_gives_the_decision_as_it_was_answered(server: Running) -> None:
    answer = await server.route(prompt="hello", session_id="s", request_id="r")
    read = await server.decision(answer)
    for name in (
        *("decision_id", "model", "probability", "policy", "snapshot", "create_time", "expire_time"),
        *("candidates", "fallback_models"),
    ):
        assert getattr(read, name) == getattr(answer, name), name
    assert (read.router, read.session_id, read.request_id) == ("routers/default", "s", "r")
    assert read.feature_version == FEATURE_VERSION
    assert not read.HasField("reward")
    assert not read.HasField("cost_usd")


async def test_health_and_reflection_are_on(server: Running) -> None:
    await server.health_is(health_pb2.HealthCheckResponse.SERVING)
    stub = reflection_pb2_grpc.ServerReflectionStub(server.channel)
    asked = reflection_pb2.ServerReflectionRequest(list_services="")
    answers = [each async for each in stub.ServerReflectionInfo(iter([asked]))]
    names = {each.name for each in answers[0].list_services_response.service}
    assert {"pointsman.v1.RouterService", "pointsman.v1.RegistryService", "grpc.health.v1.Health"} <= names
