"""RegistryService over gRPC: create, read, change, delete; what a change does to who is routed; pages."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from pointsman.v1 import registry_service_pb2 as pb
from pointsman.v1 import router_service_pb2 as router_pb
from servers import Refusal, Running, prices, refusal, refused, running_app, seeded
from sqlalchemy import event

from policy.domain import Router, RouterSpec
from policy.features import Featuriser
from policy.log import DecisionRecord, LogRecord, RegistryRecord
from server.storage.engine import open_engine
from server.storage.reader import LogReader

DEFAULT = "routers/default"


def model(name: str = "a", **fields: object) -> pb.Model:
    return pb.Model(name=f"{DEFAULT}/models/{name}", **fields)  # type: ignore[arg-type]


async def update(server: Running, message: pb.Model, *paths: str) -> pb.Model:
    request = pb.UpdateModelRequest(model=message, update_mask=FieldMask(paths=paths))
    return (await server.registry.UpdateModel(request)).model


async def test_the_default_router_is_always_there_and_cannot_be_deleted(server: Running) -> None:
    assert (await server.get_router()).name == DEFAULT
    refused = await refusal(server.registry.DeleteRouter(pb.DeleteRouterRequest(name=DEFAULT)))
    assert refused.code is grpc.StatusCode.FAILED_PRECONDITION


async def test_a_router_reads_back_as_it_was_created_with_the_defaults_spelled_out(server: Running) -> None:
    given = pb.Router(
        display_name="Support",
        objective=pb.Objective(budget_usd_per_request=0.001),
        reward_rule=pb.RewardRule(
            signal_weights={"thumbs": 2.0}, missing_reward=0.0, join=pb.REWARD_JOIN_WEIGHTED
        ),
        exploration=pb.Exploration(strength=0.0),
        policy="greedy",
        store_prompts=True,
        mode=pb.ROUTER_MODE_SHADOW,
        shadow_explore_share=0.25,
        learner=pb.LEARNER_VOWPAL_WABBIT,
    )
    created = (await server.registry.CreateRouter(pb.CreateRouterRequest(router_id="s", router=given))).router
    read = await server.get_router("routers/s")
    for each in (created, read):
        each.ClearField("statistics")  # They follow the learner, who may hear of the router in between.
    assert created == read
    assert created.objective.budget_usd_per_request == 0.001
    assert not created.objective.HasField("quality_value_usd")
    assert created.reward_rule.HasField("missing_reward")
    assert created.reward_rule.join_window.seconds == 86_400
    assert created.reward_rule.join == pb.REWARD_JOIN_WEIGHTED
    assert (created.exploration.strength, created.exploration.burn_in_rewards) == (
        0.0,
        RouterSpec().exploration.burn_in_rewards,
    )
    assert created.features.embedding_dimensions == 256
    assert (created.policy, created.mode, created.store_prompts) == ("greedy", pb.ROUTER_MODE_SHADOW, True)
    assert created.shadow_explore_share == 0.25
    assert created.session_ttl.seconds == 3600
    assert created.create_time == created.update_time
    assert created.create_time.seconds > 0


async def test_a_deleted_router_is_gone_with_its_models(server: Running) -> None:
    name = await server.create_router("r")
    await server.create_models(name, a={})
    await server.registry.DeleteRouter(pb.DeleteRouterRequest(name=name))
    for call in (
        server.registry.GetRouter(pb.GetRouterRequest(name=name)),
        server.registry.GetModel(pb.GetModelRequest(name=f"{name}/models/a")),
        server.route(router=name),
        server.registry.DeleteRouter(pb.DeleteRouterRequest(name=name)),
    ):
        refused = await refusal(call)
        assert (refused.code, refused.reason) == (grpc.StatusCode.NOT_FOUND, "ROUTER_NOT_FOUND")


async def test_a_model_reads_back_as_it_was_created(server: Running) -> None:
    given = {"display_name": "A", "context_window_tokens": 8000, "capabilities": ["tools", "json"]}
    await server.create_models(**{"openai/gpt-4o:2024@x": {"prices": (1.5, 2.5, 0.01), **given}})
    read = await server.get_model("openai/gpt-4o:2024@x")
    assert read.prices == prices(1.5, 2.5, 0.01)
    assert (read.display_name, read.context_window_tokens, list(read.capabilities)) == tuple(given.values())
    assert (read.state, read.statistics.healthy) == (pb.MODEL_STATE_ACTIVE, True)


async def test_a_second_creation_of_the_same_name_is_refused(server: Running) -> None:
    await server.create_models(a={})
    again = await refusal(server.registry.CreateModel(pb.CreateModelRequest(model_id="a")))
    router = await refusal(server.registry.CreateRouter(pb.CreateRouterRequest(router_id="default")))
    assert again.code is router.code is grpc.StatusCode.ALREADY_EXISTS


async def test_statistics_tell_how_the_budget_of_a_month_stands_also_after_a_restart(
    url: str, featuriser: Featuriser
) -> None:
    async with running_app(url, featuriser) as server:
        await server.create_models(a={"prices": (0.0, 0.0, 0.25)}, b={"prices": (0.0, 0.0, 0.5)})
        await server.update_router(objective=pb.Objective(budget_usd_per_month=1e6))
        assert not (await server.settled()).statistics.HasField("period_start_time")
        for _ in range(3):
            made = await server.route(constraints={"allowed_models": ["a"]})
        await server.report(made, usage={"cost_usd": 0.25})
        found = (await server.settled()).statistics
        assert found.period_spent_usd == pytest.approx(0.75)
        assert 0.0 < found.period_budget_usd <= 1e6
        assert found.utilization == pytest.approx(0.75 / found.period_budget_usd)
        assert 0.0 < found.period_budget_per_request_usd < found.period_budget_usd
        start = found.period_start_time.ToDatetime()
        assert (start.day, start.hour, start.minute, start.second) == (1, 0, 0, 0)
    async with running_app(url, featuriser) as server:
        assert (await server.settled()).statistics == found
        await server.update_router(objective=pb.Objective(budget_usd_per_month=0.01))
        await server.settled()
        answers = [await server.route(prompt="hello") for _ in range(10)]
        assert {each.model for each in answers} == {"a"}
        assert (await server.settled()).statistics.period_budget_per_request_usd == 0.0


async def test_a_learners_etag_does_not_change_with_what_it_learns(server: Running) -> None:
    await server.create_models(a={})
    before = (await server.get_router()).etag
    await server.report(await server.route(prompt="hello"), reward=1.0)
    assert (await server.settled()).etag == before


@pytest.mark.parametrize("size", [1, 2, 3, 5, 6, 0])
async def test_pages_give_every_model_once_and_by_name(server: Running, size: int) -> None:
    await server.create_models(**{name: {} for name in ("d", "B", "a/x", "a", "c")})
    names, token = [], ""
    while True:
        page = await server.registry.ListModels(pb.ListModelsRequest(page_size=size, page_token=token))
        assert len(page.models) <= (size or 100)
        names += [each.name.removeprefix(f"{DEFAULT}/models/") for each in page.models]
        token = page.next_page_token
        if not token:
            break
    assert names == ["B", "a", "a/x", "c", "d"]


async def test_pages_of_routers_and_what_no_page_can_be(server: Running) -> None:
    for name in ("x", "y"):
        await server.create_router(name)
    first = await server.registry.ListRouters(pb.ListRoutersRequest(page_size=2))
    rest = await server.registry.ListRouters(pb.ListRoutersRequest(page_token=first.next_page_token))
    assert [each.name for each in (*first.routers, *rest.routers)] == [DEFAULT, "routers/x", "routers/y"]
    for size in (-1, 1001):
        refused = await refusal(server.registry.ListRouters(pb.ListRoutersRequest(page_size=size)))
        assert refused.fields == ["page_size"]


async def test_a_price_change_acts_on_the_next_request(server: Running) -> None:
    await server.create_models(a={"prices": (0.0, 0.0, 0.5)}, b={"prices": (0.0, 0.0, 0.5)})
    for _ in range(3):
        await server.report(await server.route(prompt="hello"), reward=0.5, usage={"output_tokens": 10})
    await server.settled()
    for price in (0.125, 4.0, 0.25):
        await update(server, model(prices=prices(request_usd=price)))
        answer = await server.route(prompt="hello")
        costs = {each.model: each.predicted_cost_usd for each in answer.candidates}
        assert costs == pytest.approx({"a": price, "b": 0.5})


async def test_a_disabled_model_is_not_chosen_and_keeps_what_was_learned_of_it(server: Running) -> None:
    await server.create_models(a={})
    await server.report(await server.route(prompt="hello"), reward=0.5)
    await server.settled()
    await server.create_models(b={})
    await update(server, model(state=pb.MODEL_STATE_DISABLED))
    assert {(await server.route(prompt="hello")).model for _ in range(10)} == {"b"}
    await update(server, model(state=pb.MODEL_STATE_ACTIVE))
    await server.settled()
    assert (await server.get_model("a")).statistics.reward_count == 1


async def test_what_was_learned_of_the_others_stays_when_a_model_is_removed(server: Running) -> None:
    await server.create_models(a={}, b={})
    chosen = set()
    while chosen != {"a", "b"}:
        answer = await server.route(prompt="hello")
        await server.report(answer, reward=0.5)
        chosen.add(answer.model)
    await server.settled()
    before = (await server.get_model("b")).statistics
    await server.registry.DeleteModel(pb.DeleteModelRequest(name=f"{DEFAULT}/models/a"))
    await server.settled()
    assert (await server.get_model("b")).statistics == before
    await server.create_models(a={})
    await server.settled()
    assert (await server.get_model("a")).statistics.reward_count == 0


async def test_changes_at_once_without_an_etag_are_all_made(server: Running) -> None:
    await server.create_models(a={})
    names = [f"name-{number}" for number in range(8)]
    limits = [pb.Model(name="routers/default/models/a", display_name=each) for each in names]
    requests = [pb.UpdateModelRequest(model=each) for each in limits]
    await asyncio.gather(*(server.registry.UpdateModel(each) for each in requests))
    assert (await server.get_model("a")).display_name in names


async def test_a_change_that_is_stored_is_in_force_also_if_its_caller_has_gone(server: Running) -> None:
    assert server.app is not None
    committing, go_on = threading.Event(), threading.Event()

    def wait(_connection: object) -> None:
        committing.set()
        assert go_on.wait(30)

    await server.create_models(a={}, b={})
    event.listen(server.app._engine, "commit", wait)
    call = server.registry.DeleteModel(pb.DeleteModelRequest(name="routers/default/models/a"))
    assert await asyncio.to_thread(committing.wait, 30)
    call.cancel()
    await server.get_router()  # The server has heard of it once it answers on the same connection.
    go_on.set()
    assert (await server.route()).model == "b"
    told = await refusal(server.get_model("a"))
    assert told.code is grpc.StatusCode.NOT_FOUND


async def test_every_answer_names_a_model_that_was_there_at_its_position_in_the_log(server: Running) -> None:
    random = seeded("coming and going")
    await server.create_models(stays={})
    answers: list[router_pb.RouteResponse] = []
    refusals: list[Refusal] = []
    over = asyncio.Event()

    async def ask(number: int) -> None:
        name = random.choice([DEFAULT, DEFAULT, "routers/passing"])
        request_id = random.choice(["", f"{number % 100}"])
        try:
            answers.append(await server.route(router=name, prompt=f"{number}", request_id=request_id))
        except grpc.aio.AioRpcError as error:
            refusals.append(refused(error))

    async def models_come_and_go(model_id: str) -> None:
        while not over.is_set():
            await server.create_models(**{model_id: {}})
            await server.registry.DeleteModel(pb.DeleteModelRequest(name=f"{DEFAULT}/models/{model_id}"))

    async def a_router_comes_and_goes() -> None:
        while not over.is_set():
            name = await server.create_router("passing")
            await server.create_models(name, x={}, y={})
            await server.registry.DeleteRouter(pb.DeleteRouterRequest(name=name))

    coming = [asyncio.ensure_future(each) for each in (*map(models_come_and_go, "abc"), a_router_comes_and_goes())]
    for turn in range(12):
        await asyncio.gather(*(ask(each) for each in range(50 * turn, 50 * (turn + 1))))
    over.set()
    await asyncio.gather(*coming)

    # What there was to answer with is what there was when it was asked for, or decided.
    assert {each.reason for each in refusals} <= {"ROUTER_NOT_FOUND", "NO_ELIGIBLE_MODEL"}
    assert len(answers) > 100
    logged: dict[str, DecisionRecord] = {}
    present: dict[str, Router | None] = {}
    records = await asyncio.to_thread(records_of, server.url)
    assert [each.seq for each in records] == sorted({each.seq for each in records})
    for record in records:
        if isinstance(record, RegistryRecord):
            present[record.router_id] = record.router
        elif isinstance(record, DecisionRecord):
            router = present[record.router]
            assert router is not None
            assert router.uid == record.router_uid
            assert {each.model for each in record.choice.candidates} == {each.id for each in router.models}
            logged[record.decision_id] = record
    for answer in answers:
        choice = logged[answer.decision_id].choice
        assert (answer.model, answer.probability) == (choice.model, choice.probability)
        assert [each.model for each in answer.candidates] == [each.model for each in choice.candidates]
    of_requests = Counter((each.router_uid, each.request_id) for each in logged.values() if each.request_id)
    assert set(of_requests.values()) == {1}


def records_of(url: str) -> list[LogRecord]:
    """All that is in the log."""
    engine = open_engine(url)
    try:
        page = LogReader(engine).page(0, 100_000)
        return list(page.records)
    finally:
        engine.dispose()


async def test_a_router_created_again_knows_nothing_of_the_one_before(server: Running) -> None:
    name = await server.create_router("again")
    await server.create_models(name, a={}, b={})
    before = await server.route(router=name, request_id="once", session_id="s")
    await server.report(before, reward=1.0)
    await server.registry.DeleteRouter(pb.DeleteRouterRequest(name=name))
    await server.create_router("again", features={"embedding_dimensions": 3})
    await server.create_models(name, c={})
    after = await server.route(router=name, request_id="once", session_id="s", embedding=[1.0, 0.0, 0.0])
    assert (after.model, after.decision_id == before.decision_id) == ("c", False)
    statistics = (await server.settled(name)).statistics
    assert (statistics.decision_count, statistics.reward_count) == (1, 0)
