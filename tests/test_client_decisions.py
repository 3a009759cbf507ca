"""The Python client's few words, and what they become in the log of a real server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest
from callers import PATIENCE_SECONDS, Answer, RateLimitError, in_thread, reports_of
from pointsman.client import AsyncClient, Client, Decision, RouteError
from pointsman.v1 import router_service_pb2 as pb
from servers import Running


@pytest.fixture
async def server(server: Running) -> Running:
    """A server whose default router has three models, of which it takes `small`."""
    await server.create_models(small={}, medium={}, large={})
    await server.update_router(policy="fixed:small")
    return server


@pytest.fixture
def client(server: Running) -> Iterator[Client]:
    with Client(server.target, linger_seconds=0.0, timeout_seconds=PATIENCE_SECONDS) as made:
        yield made


@pytest.fixture
async def aclient(server: Running) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(server.target, linger_seconds=0.0, timeout_seconds=PATIENCE_SECONDS) as made:
        yield made


async def test_a_block_reports_latency_usage_and_reward_in_one_report(server: Running, client: Client) -> None:
    def ask() -> Decision:
        with client.route("What is the capital of France?", session_id="s") as decision:
            decision.record(Answer())
            decision.record(reward=0.75, signals={"thumb": 1.0})
        return decision

    decision = await in_thread(ask)
    assert (decision.model, decision.is_default) == ("small", False)
    assert decision.probability > 0
    assert set(decision.models) == {"small", "medium", "large"}
    (report,) = await reports_of(server, client, decision)
    assert report.usage == pb.Usage(input_tokens=30, output_tokens=12, cached_input_tokens=20)
    assert (report.reward, dict(report.signals), report.error, report.served_model) == (0.75, {"thumb": 1}, 0, "")
    assert 0 < report.latency.ToNanoseconds() < 10e9
    assert report.report_id
    logged = await server.decision(decision)
    assert logged.session_id == "s"
    assert logged.request_id


@pytest.mark.parametrize(
    ("error", "value"),
    [
        (TimeoutError(), pb.MODEL_ERROR_TIMEOUT),
        (RateLimitError(), pb.MODEL_ERROR_RATE_LIMITED),
        (ConnectionResetError(), pb.MODEL_ERROR_UNAVAILABLE),
        (json.JSONDecodeError("no JSON", "Paris", 0), pb.MODEL_ERROR_INVALID_OUTPUT),
    ],
    ids=lambda given: type(given).__name__,
)
async def test_an_exception_in_a_block_is_reported_and_goes_on(
    server: Running, client: Client, error: Exception, value: int
) -> None:
    def ask() -> Decision:
        with pytest.raises(type(error)) as caught, client.route("question") as decision:
            raise error
        assert caught.value is error
        return decision

    (report,) = await reports_of(server, client, await in_thread(ask))
    assert (report.error, report.HasField("latency"), report.HasField("usage")) == (value, False, False)


@pytest.mark.parametrize("error", [KeyError("a bug"), KeyboardInterrupt()], ids=lambda given: type(given).__name__)
async def test_what_is_no_failure_of_the_model_is_not_reported(
    server: Running, client: Client, error: BaseException
) -> None:
    def ask() -> Decision:
        with pytest.raises(type(error)), client.route("question") as decision:
            raise error
        return decision

    assert await reports_of(server, client, await in_thread(ask)) == []


@pytest.mark.parametrize(
    ("error", "value"),
    [(TimeoutError("of a database"), 0), (json.JSONDecodeError("no", "", 0), pb.MODEL_ERROR_INVALID_OUTPUT)],
    ids=lambda given: type(given).__name__,
)
async def test_after_the_answer_only_what_is_wrong_with_it_is_the_models(
    server: Running, client: Client, error: Exception, value: int
) -> None:
    def answered_then_failed(decision: Decision) -> None:
        with decision:
            decision.record(Answer())
            raise error

    def ask() -> Decision:
        decision = client.route("question")
        with pytest.raises(type(error)):
            answered_then_failed(decision)
        return decision

    (report,) = await reports_of(server, client, await in_thread(ask))
    assert (report.error, report.usage.output_tokens) == (value, 12)


@pytest.mark.parametrize("in_block", [True, False])
async def test_call_walks_the_fallbacks_and_reports_each_failure_of_its_model(
    server: Running, client: Client, in_block: bool
) -> None:
    called = []

    def call(model: str) -> Answer:
        called.append(model)
        if len(called) < 3:
            raise (TimeoutError, ConnectionRefusedError)[len(called) - 1]
        return Answer()

    def ask() -> Decision:
        decision = client.route("question")
        if not in_block:
            decision.call(call)
            return decision
        with decision:
            decision.record(decision.call(call), reward=1.0)
        return decision

    decision = await in_thread(ask)
    assert called == list(decision.models)
    assert decision.model == called[2]
    first, second, third = await reports_of(server, client, decision)
    assert (first.error, first.served_model) == (pb.MODEL_ERROR_TIMEOUT, "")
    assert (second.error, second.served_model) == (pb.MODEL_ERROR_UNAVAILABLE, called[1])
    assert (third.error, third.served_model, third.usage.output_tokens) == (0, called[2], 12)
    assert third.HasField("reward") == in_block


async def test_when_all_models_fail_the_last_failure_is_raised_and_each_is_reported_once(
    server: Running, client: Client
) -> None:
    def call(model: str) -> Answer:
        raise TimeoutError(model)

    def ask() -> Decision:
        with pytest.raises(TimeoutError, match=r"medium|large"), client.route("question") as decision:
            decision.call(call)
        return decision

    decision = await in_thread(ask)
    reports = await reports_of(server, client, decision)
    assert [each.served_model for each in reports] == ["", *decision.models[1:]]


async def test_a_bug_in_the_function_is_raised_at_once(server: Running, client: Client) -> None:
    called = []

    def call(model: str) -> Answer:
        called.append(model)
        raise TypeError("a bug")

    decision = await in_thread(client.route, "question")
    with pytest.raises(TypeError):
        decision.call(call)
    assert called == ["small"]
    assert await reports_of(server, client, decision) == []


async def test_rewards_come_later_by_the_decision_or_its_id(server: Running, client: Client) -> None:
    decision = await in_thread(client.route, "question")
    decision.call(lambda _: Answer())
    decision.report(reward=0.5)
    for _ in range(2):
        client.report(decision.decision_id, signals={"thumb": 1.0}, report_id="thumb", served_model="large")
    _, judged, thumb = await reports_of(server, client, decision)
    assert (judged.reward, judged.HasField("usage")) == (0.5, False)
    assert (thumb.report_id, thumb.served_model) == ("thumb", "large")
    assert client.counts.recorded == 4  # the duplicate among them


async def test_all_that_a_request_may_say_arrives(server: Running, client: Client) -> None:
    decision = await in_thread(
        client.route,
        "question",
        request_id="r-1",
        router="default",
        allowed_models=["medium", "large"],
        denied_models=["large"],
        max_cost_usd=1.0,
        max_latency_seconds=30.0,
        quality_value_usd=0.5,
        exploit_only=True,
        numeric_features={"turn": 3.0},
        categorical_features={"tenant": "acme"},
        incumbent_model="large",
        input_tokens=100,
    )
    assert decision.models == ("medium",)
    again = await in_thread(client.route, "question", request_id="r-1")
    assert again.decision_id == decision.decision_id
    logged = await server.decision(decision)
    assert (logged.request_id, logged.incumbent_model) == ("r-1", "large")
    assert (logged.numeric_features, logged.categorical_features) == ({"turn": 3.0}, {"tenant": "acme"})


async def test_a_text_longer_than_the_server_takes_is_cut_and_costs_what_the_whole_does(client: Client) -> None:
    costs = []
    for length in (400, 4_000_000):
        decision = await in_thread(client.route, "à" * length)
        costs.append(decision.response.candidates[0].predicted_cost_usd)
    assert costs[1] > 100 * costs[0]


async def test_a_request_that_is_at_fault_raises_though_there_is_a_default(server: Running) -> None:
    with Client(server.target, default_model="small", timeout_seconds=PATIENCE_SECONDS) as client:
        with pytest.raises(RouteError) as bad:
            await in_thread(client.route, "question", embedding=[1.0, 2.0])
        with pytest.raises(RouteError) as none:
            await in_thread(client.route, "question", required_capabilities=["vision"])
        with pytest.raises(TypeError, match="there is no argument 'promt'"):
            await in_thread(client.route, promt="question")
    assert (bad.value.code, bad.value.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    assert list(bad.value.fields) == ["embedding"]
    assert none.value.reason == "NO_ELIGIBLE_MODEL"
    assert set(none.value.metadata) == {"small", "medium", "large"}


async def test_an_odd_answer_and_a_broken_classifier_never_reach_the_callers_call(server: Running) -> None:
    def classify(error: BaseException) -> None:
        raise RuntimeError("broken")

    class Odd:
        @property
        def usage(self) -> Any:
            raise RuntimeError("no usage")

    def fail(decision: Decision) -> None:
        with decision:
            decision.record(Odd())
            raise KeyError("the caller's own")

    def ask() -> Any:
        with Client(server.target, classify=classify, timeout_seconds=PATIENCE_SECONDS) as client:
            decision = client.route("question")
            with pytest.raises(KeyError):
                fail(decision)
            return decision.call(lambda _: Odd())

    assert isinstance(await in_thread(ask), Odd)


async def test_a_classifier_of_the_callers_own_goes_first(server: Running) -> None:
    class OverloadedError(Exception):
        pass

    def ask() -> Decision:
        with Client(
            server.target,
            classify=lambda error: "RATE_LIMITED" if isinstance(error, OverloadedError) else None,
            timeout_seconds=PATIENCE_SECONDS,
        ) as client:
            with pytest.raises(OverloadedError), client.route("one") as decision:
                raise OverloadedError
            return decision

    (report,) = (await server.decision(await in_thread(ask))).reports
    assert report.report.error == pb.MODEL_ERROR_RATE_LIMITED


async def test_the_asynchronous_client_has_the_same_words(server: Running, aclient: AsyncClient) -> None:
    called = []

    async def call(model: str) -> Answer:
        called.append(model)
        if len(called) == 1:
            raise TimeoutError
        return Answer()

    async with aclient.route("question") as decision:
        answer = await decision.call(call)
        decision.record(answer, reward=0.5)
    first, second = await reports_of(server, aclient, decision)
    assert (first.error, first.served_model) == (pb.MODEL_ERROR_TIMEOUT, "")
    assert (second.reward, second.usage.output_tokens, second.served_model) == (0.5, 12, called[1])

    awaited = await aclient.route("question")
    awaited.report(reward=1.0)
    (report,) = await reports_of(server, aclient, awaited)
    assert report.reward == 1.0

    with pytest.raises(ConnectionError):
        async with aclient.route("question") as failed:
            raise ConnectionError
    (report,) = await reports_of(server, aclient, failed)
    assert report.error == pb.MODEL_ERROR_UNAVAILABLE


async def test_a_cancelled_call_says_nothing_of_the_model(server: Running, aclient: AsyncClient) -> None:
    entered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def ask() -> None:
        async with aclient.route("question") as decision:
            entered.set_result(decision)
            await asyncio.Event().wait()

    task = asyncio.create_task(ask())
    decision = await entered
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await reports_of(server, aclient, decision) == []
