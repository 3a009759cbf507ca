"""The gateway between the official SDKs, a real server and stand-ins for the providers."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest
from pointsman.v1 import router_service_pb2 as pb
from servers import Running, eventually
from standins import Gate, running_gateway, running_standin

from server.gateway.app import listen
from server.gateway.conversation import read_conversation
from server.gateway.plan import Answer
from server.gateway.settings import ChecksConfig, GatewaySettings
from server.gateway.signals import results

# LiteLLM silences these when it is first imported, which pytest undoes for each test.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*ReadOnly:UserWarning"),
    pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

QUESTION: Any = [{"role": "user", "content": "What is the capital of France?"}]
TOOLS: Any = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
]


@pytest.fixture
async def gate(server: Running, tmp_path: Path) -> AsyncIterator[Gate]:
    """A gateway before two models that can do everything."""
    await two_models(server)
    async with running_standin() as provider, running_gateway(server, provider, tmp_path) as found:
        yield found


async def two_models(running: Running) -> None:
    able = {"capabilities": ["tools", "vision", "json"]}
    await running.create_models(small=able, large={**able, "prices": (10.0, 20.0, 0.0)})


@pytest.fixture
async def client(gate: Gate) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{gate.url}/v1", api_key="unused", max_retries=0) as found:
        yield found


async def test_an_answer_says_by_which_decision_it_came_and_its_usage_is_reported_once(
    gate: Gate, client: openai.AsyncOpenAI
) -> None:
    raw = await client.chat.completions.with_raw_response.create(model="pointsman", messages=QUESTION, user="ann")
    answer = raw.parse()

    assert answer.choices[0].message.content == "All is well."
    decision = await gate.decision(raw.headers["x-pointsman-decision-id"], reports=1)
    assert raw.headers["x-pointsman-model"] == answer.model == decision.model
    assert float(raw.headers["x-pointsman-propensity"]) == decision.probability
    assert answer.metadata["pointsman_decision_id"] == decision.decision_id
    assert decision.session_id == "ann"
    assert decision.active
    (report,) = decision.reports
    assert (report.report.usage.input_tokens, report.report.usage.output_tokens) == (11, 7)
    assert report.report.HasField("latency")


async def test_a_stream_comes_in_parts_and_its_first_token_is_timed(
    gate: Gate, client: openai.AsyncOpenAI
) -> None:
    raw = await client.chat.completions.with_raw_response.create(
        model="pointsman", messages=QUESTION, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in raw.parse()]

    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "All is well."
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 7
    decision = await gate.decision(raw.headers["x-pointsman-decision-id"], reports=1)
    (report,) = decision.reports
    assert report.report.usage.output_tokens == 7
    assert report.report.signals["time_to_first_token_seconds"] > 0


async def test_usage_is_not_shown_in_a_stream_that_did_not_ask_for_it(client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(model="pointsman", messages=QUESTION, stream=True)
    chunks = [chunk async for chunk in stream]

    assert all(chunk.usage is None and chunk.choices for chunk in chunks)


@pytest.mark.parametrize("stream", [False, True])
async def test_tools_are_called(gate: Gate, client: openai.AsyncOpenAI, stream: bool) -> None:
    if stream:
        async with client.chat.completions.stream(model="pointsman", messages=QUESTION, tools=TOOLS) as events:
            answer: Any = await events.get_final_completion()
    else:
        answer = await client.chat.completions.create(model="pointsman", messages=QUESTION, tools=TOOLS)

    (call,) = answer.choices[0].message.tool_calls
    assert call.function.name == "weather"
    assert call.function.arguments == '{"city": "Paris"}'


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("mode", "error"), [("500", "UNAVAILABLE"), ("429", "RATE_LIMITED"), ("401", "UNAVAILABLE")]
)
async def test_a_fallback_answers_and_the_failure_is_the_failing_models(
    gate: Gate, client: openai.AsyncOpenAI, mode: str, error: str, stream: bool
) -> None:
    gate.provider.modes["small"] = mode
    allowed = {"x-pointsman-allowed-models": "small,large"}
    headers = await chosen(gate, client, "small", stream, allowed)

    assert headers["x-pointsman-model"] == "large"
    assert headers["x-pointsman-attempts"] == "2"
    decision = await gate.decision(headers["x-pointsman-decision-id"], reports=2)
    first, second = decision.reports
    assert (first.model, pb.ModelError.Name(first.report.error)) == ("small", f"MODEL_ERROR_{error}")
    assert not first.report.HasField("usage")
    assert (second.model, second.report.error, second.report.usage.output_tokens) == ("large", 0, 7)


async def chosen(
    gate: Gate, client: openai.AsyncOpenAI, model: str, stream: bool, extra: dict[str, str]
) -> dict[str, str]:
    """Asks until the model is the chosen one; gives the headers of that answer."""
    for _ in range(200):
        raw = await client.chat.completions.with_raw_response.create(
            model="pointsman", messages=QUESTION, stream=stream, extra_headers=extra
        )
        if stream:
            [chunk async for chunk in raw.parse()]
        if raw.headers["x-pointsman-chosen-model"] == model:
            return dict(raw.headers)
    raise AssertionError(f"{model} is never chosen")


async def test_a_model_that_does_not_answer_in_time_is_left_for_the_next(
    gate: Gate, client: openai.AsyncOpenAI
) -> None:
    gate.provider.modes["small"] = "stall"
    headers = await chosen(gate, client, "small", False, {"x-pointsman-max-latency": "3s"})

    assert headers["x-pointsman-model"] == "large"
    decision = await gate.decision(headers["x-pointsman-decision-id"], reports=2)
    assert decision.reports[0].report.error == pb.MODEL_ERROR_TIMEOUT
    assert gate.provider.hung_up >= 1


async def test_past_the_deadline_the_client_is_told_so(gate: Gate, client: openai.AsyncOpenAI) -> None:
    gate.provider.modes.update(small="stall", large="stall")
    with pytest.raises(openai.InternalServerError, match=r"no answer within|deadline") as caught:
        await client.chat.completions.create(
            model="pointsman", messages=QUESTION, extra_headers={"x-pointsman-max-latency": "0.2"}
        )
    assert caught.value.status_code == 504
    decision = await gate.decision(caught.value.response.headers["x-pointsman-decision-id"])
    assert not decision.reports, "so short a time says nothing of the models"


async def test_a_stream_that_breaks_before_it_has_said_anything_goes_on_with_another_model(
    gate: Gate, client: openai.AsyncOpenAI
) -> None:
    gate.provider.modes["small"] = "break_begin"
    headers = await chosen(gate, client, "small", True, {})

    assert headers["x-pointsman-model"] == "large"


async def test_a_stream_that_breaks_in_the_middle_ends_with_an_error_and_what_it_used(
    gate: Gate, client: openai.AsyncOpenAI
) -> None:
    gate.provider.modes["small"] = "break_middle"
    raw = await client.chat.completions.with_raw_response.create(
        model="pointsman", messages=QUESTION, stream=True, extra_headers={"x-pointsman-allowed-models": "small"}
    )
    stream = raw.parse()
    said = [(await anext(stream)).choices[0].delta.content for _ in range(3)]
    assert said == ["", "All ", "is "]
    with pytest.raises(openai.APIError, match="small: the answer broke off"):
        await anext(stream)

    decision = await gate.decision(raw.headers["x-pointsman-decision-id"], reports=1)
    (report,) = decision.reports
    assert report.report.error == pb.MODEL_ERROR_UNAVAILABLE
    assert report.report.usage.output_tokens == 2


async def test_a_client_that_hangs_up_has_the_call_ended_and_the_tokens_so_far_reported(
    gate: Gate, client: openai.AsyncOpenAI
) -> None:
    gate.provider.modes.update(small="stall_middle", large="stall_middle")
    raw = await client.chat.completions.with_raw_response.create(model="pointsman", messages=QUESTION, stream=True)
    stream = raw.parse()
    async for chunk in stream:
        if chunk.choices[0].delta.content == "is ":
            break
    await stream.close()

    decision = await gate.decision(raw.headers["x-pointsman-decision-id"], reports=1)
    (report,) = decision.reports
    assert report.report.error == pb.MODEL_ERROR_UNSPECIFIED
    assert report.report.usage.output_tokens == 2
    assert not report.report.HasField("latency")

    async def ended() -> bool:
        return gate.provider.hung_up == 1 and gate.gateway._door.inside == 0

    await eventually(ended)
    assert gate.gateway._door.bytes_held == 0


async def test_a_named_model_passes_through_and_is_logged_as_the_only_one(
    gate: Gate, client: openai.AsyncOpenAI
) -> None:
    raw = await client.chat.completions.with_raw_response.create(model="large", messages=QUESTION)

    assert raw.parse().model == "large"
    decision = await gate.decision(raw.headers["x-pointsman-decision-id"], reports=1)
    assert (decision.model, decision.probability, list(decision.fallback_models)) == ("large", 1.0, [])


async def test_a_name_that_nobody_knows_is_not_found(client: openai.AsyncOpenAI) -> None:
    for name in ("nothing", "pointsman/nothing"):
        with pytest.raises(openai.NotFoundError):
            await client.chat.completions.create(model=name, messages=QUESTION)


async def test_what_can_be_asked_for_is_listed(gate: Gate, client: openai.AsyncOpenAI) -> None:
    assert [each.id async for each in client.models.list()] == [
        *("pointsman", "pointsman/default"),
        *("large", "small"),
    ]
    assert (await client.models.retrieve("pointsman/default")).id == "pointsman/default"
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("nothing")


@pytest.mark.parametrize("stream", [False, True])
async def test_the_responses_api_answers_and_goes_on_with_the_model_that_began(
    gate: Gate, client: openai.AsyncOpenAI, stream: bool
) -> None:
    if stream:
        async with client.responses.stream(model="pointsman", input="Is all well?") as events:
            [event async for event in events]
            answer: Any = await events.get_final_response()
    else:
        answer = await client.responses.create(model="pointsman", input="Is all well?")

    assert answer.output_text == "All is well."
    decision = await gate.decision(answer.metadata["pointsman_decision_id"], reports=1)
    assert decision.reports[0].report.usage.cached_input_tokens == 4
    more = await client.responses.create(model="pointsman", input="Sure?", previous_response_id=answer.id)
    assert more.model == answer.model
    assert gate.provider.calls[-1]["previous_response_id"] == "resp_1"


async def test_another_providers_api_is_spoken_too(gate: Gate, client: openai.AsyncOpenAI) -> None:
    await gate.pointsman.create_models(claude={})
    answer = await client.chat.completions.create(model="claude", messages=QUESTION)

    assert answer.choices[0].message.content == "All is well."
    assert gate.provider.keys == ["sk-provider-secret"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("quality_value_usd", "-1"),
        ("max_cost_usd", "cheap"),
        ("max_latency", "soon"),
        ("allowed_models", ","),
        ("exploit_only", "maybe"),
    ],
)
async def test_a_preference_that_is_none_is_refused_by_name(
    client: openai.AsyncOpenAI, name: str, value: str
) -> None:
    header = "x-pointsman-" + name.replace("_", "-")
    with pytest.raises(openai.BadRequestError) as caught:
        await client.chat.completions.create(model="pointsman", messages=QUESTION, extra_headers={header: value})
    assert caught.value.param == header
    with pytest.raises(openai.BadRequestError) as caught:
        await client.chat.completions.create(model="pointsman", messages=QUESTION, metadata={name: value})
    assert caught.value.param == f"metadata.{name}"


async def test_preferences_reach_pointsman_and_unknown_models_are_refused(
    gate: Gate, client: openai.AsyncOpenAI
) -> None:
    raw = await client.chat.completions.with_raw_response.create(
        model="pointsman", messages=QUESTION, metadata={"denied_models": "small", "mine": "x"}
    )
    answer = raw.parse()
    assert (answer.model, answer.metadata["mine"]) == ("large", "x")
    with pytest.raises(openai.NotFoundError, match="nothing"):
        await client.chat.completions.create(
            model="pointsman", messages=QUESTION, metadata={"allowed_models": "nothing"}
        )
    with pytest.raises(openai.BadRequestError, match="small: "):
        await client.chat.completions.create(
            model="pointsman", messages=QUESTION, metadata={"max_cost_usd": "0.000000001"}
        )


async def test_words_that_litellm_would_take_are_no_parameters(client: openai.AsyncOpenAI) -> None:
    for word in ("api_base", "api_key", "mock_response", "custom_llm_provider"):
        with pytest.raises(openai.BadRequestError, match=word):
            await client.chat.completions.create(model="pointsman", messages=QUESTION, extra_body={word: "x"})


async def test_a_bad_request_is_the_clients_and_not_the_models(gate: Gate, client: openai.AsyncOpenAI) -> None:
    gate.provider.modes.update(small="400", large="400")
    with pytest.raises(openai.BadRequestError, match="the provider says 400") as caught:
        await client.chat.completions.create(model="pointsman", messages=QUESTION)

    decision = await gate.decision(caught.value.response.headers["x-pointsman-decision-id"])
    assert not decision.reports
    assert len(gate.provider.calls) == 1


async def test_feedback_is_the_reward_of_the_model_that_served(gate: Gate, client: openai.AsyncOpenAI) -> None:
    gate.provider.modes["small"] = "500"
    headers = await chosen(gate, client, "small", False, {})
    given = {
        "decision_id": headers["x-pointsman-decision-id"],
        "thumb": "up",
        "feedback_id": "1",
        "comment": "fine",
    }
    answer: Any = await client.post("/feedback", body=given, cast_to=object)

    assert (answer["model"], answer["disposition"], answer["comment_kept"]) == ("large", "recorded", False)
    again: Any = await client.post("/feedback", body=given, cast_to=object)
    assert again["disposition"] == "duplicate"
    decision = await gate.decision(headers["x-pointsman-decision-id"], reports=3)
    assert decision.reward == 1.0
    rewarded = [each.model for each in decision.reports if each.report.HasField("reward")]
    assert rewarded == ["large"]


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"score": 1}, "decision_id"),
        ({"decision_id": "x", "score": 2}, "score"),
        ({"decision_id": "x"}, "score"),
        ({"decision_id": "x", "thumb": "sideways"}, "thumb"),
        ({"decision_id": "x", "score": 1, "comment": 7}, "comment"),
    ],
)
async def test_feedback_that_is_none_is_refused_by_name(
    client: openai.AsyncOpenAI, given: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await client.post("/feedback", body=given, cast_to=object)
    assert caught.value.param == param


async def test_without_pointsman_the_default_model_serves_and_says_so(server: Running, tmp_path: Path) -> None:
    async with (
        running_standin() as provider,
        running_gateway(server, provider, tmp_path, target="127.0.0.1:1") as gate,
        openai.AsyncOpenAI(base_url=f"{gate.url}/v1", api_key="unused", max_retries=0) as client,
    ):
        raw = await client.chat.completions.with_raw_response.create(model="pointsman", messages=QUESTION)
        assert (raw.parse().model, raw.headers["x-pointsman-away"]) == ("large", "UNAVAILABLE")
        with pytest.raises(openai.InternalServerError) as caught:
            await client.chat.completions.create(
                model="pointsman", messages=QUESTION, metadata={"denied_models": "large"}
            )
        assert caught.value.code == "pointsman_away"


async def test_the_door_asks_for_the_key_and_bounds_what_comes_in(server: Running, tmp_path: Path) -> None:
    await two_models(server)
    settings = {"api_key": "sesame", "body_bytes_max": 4096, "streams_max": 1}
    async with (
        running_standin() as provider,
        running_gateway(server, provider, tmp_path, settings=settings) as gate,
        openai.AsyncOpenAI(base_url=f"{gate.url}/v1", api_key="wrong", max_retries=0) as stranger,
        openai.AsyncOpenAI(base_url=f"{gate.url}/v1", api_key="sesame", max_retries=0) as client,
    ):
        with pytest.raises(openai.AuthenticationError):
            await stranger.chat.completions.create(model="pointsman", messages=QUESTION)
        with pytest.raises(openai.AuthenticationError):
            await stranger.models.list()
        long: Any = [{"role": "user", "content": "x" * 5000}]
        with pytest.raises(openai.APIStatusError) as caught:
            await client.chat.completions.create(model="pointsman", messages=long)
        assert caught.value.status_code == 413
        provider.modes.update(small="stall", large="stall")
        waiting = asyncio.create_task(client.chat.completions.create(model="pointsman", messages=QUESTION))

        async def inside() -> bool:
            return bool(provider.calls)

        await eventually(inside)
        with pytest.raises(openai.InternalServerError, match="1 requests are served already"):
            await client.chat.completions.create(model="pointsman", messages=QUESTION)
        waiting.cancel()


async def test_neither_keys_nor_prompts_are_in_the_log(
    gate: Gate, client: openai.AsyncOpenAI, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    for mode in ("ok", "400", "500"):
        gate.provider.modes.update(small=mode, large=mode)
        with contextlib.suppress(openai.APIError):
            await client.chat.completions.create(
                model="pointsman", messages=[{"role": "user", "content": "a secret of mine"}]
            )

    said = [each.getMessage() for each in caplog.records if not each.name.startswith(("openai", "httpx2"))]
    assert not any("secret" in line for line in said)


async def test_checks_of_an_answer_are_signals_and_a_question_asked_again_is_one_too(
    server: Running, tmp_path: Path
) -> None:
    await two_models(server)
    checks = {**dict.fromkeys(("non_empty", "valid_json", "tool_calls"), True), "pattern": "well"}
    checks["no_retry_seconds"] = 600
    async with (
        running_standin() as provider,
        running_gateway(server, provider, tmp_path, routers={"default": {"checks": checks}}) as gate,
        openai.AsyncOpenAI(base_url=f"{gate.url}/v1", api_key="unused", max_retries=0) as client,
    ):
        ids = []
        for words in ("Is all well with you?", "So is all well with you?", "Thank you, goodbye."):
            raw = await client.chat.completions.with_raw_response.create(
                model="pointsman", messages=[{"role": "user", "content": words}], user="ann"
            )
            ids.append(raw.headers["x-pointsman-decision-id"])
        called = await client.chat.completions.with_raw_response.create(
            model="pointsman", messages=QUESTION, tools=TOOLS, stream=True
        )
        [chunk async for chunk in called.parse()]

        decisions = [await gate.decision(each, reports=2) for each in ids[:2]]
        told = [dict(each.reports[0].report.signals) for each in decisions]
        assert told == [{"check_non_empty": 1.0, "check_valid_json": 0.0, "check_pattern": 1.0}] * 2
        assert [each.reports[1].report.signals["check_no_retry"] for each in decisions] == [0.0, 1.0]
        decision = await gate.decision(called.headers["x-pointsman-decision-id"], reports=1)
        assert decision.reports[0].report.signals["check_tool_calls"] == 1.0


_SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


@pytest.mark.parametrize(
    ("schema", "arguments", "fits"),
    [
        (_SCHEMA, '{"city": "Paris"}', True),
        (_SCHEMA, '{"town": "Paris"}', False),
        (_SCHEMA, '{"city": 7}', False),
        (_SCHEMA, '{"city": "Par', False),
        ({**_SCHEMA, "additionalProperties": False}, '{"city": "Paris", "zip": 1}', False),
        ({"properties": {"n": {"type": ["integer", "null"]}}}, '{"n": true}', False),
        ({"properties": {"n": {"type": ["integer", "null"]}}}, '{"n": null}', True),
        ({"properties": {"n": {"enum": ["a", "b"]}}}, '{"n": "c"}', False),
        # Whatever a client sends for a schema, it costs no more than a look.
        ({"$ref": "http://127.0.0.1:9/schema.json"}, "{}", True),
        ({"properties": {"n": {"pattern": "(a+)+$"}}}, '{"n": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!"}', True),
        ({"properties": 7, "required": "city", "type": {}}, "{}", True),
    ],
)
def test_the_arguments_of_a_tool_call_are_held_against_its_schema(
    schema: dict[str, Any], arguments: str, fits: bool
) -> None:
    tools = [{"type": "function", "function": {"name": "weather", "parameters": schema}}]
    talk = read_conversation("chat", {"model": "x", "messages": QUESTION, "tools": tools})
    checks = ChecksConfig(tool_calls=True)
    assert results(checks, talk, Answer("", (("weather", arguments),))) == {"tool_calls": fits}
    assert results(checks, talk, Answer("", (("nothing", "{}"),))) == {"tool_calls": False}


@pytest.mark.parametrize(
    ("api", "asked", "answers"),
    [
        ("chat", {"response_format": {"type": "json_object"}}, {"[1]": True, "well": False}),
        (
            "chat",
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": _SCHEMA}}},
            {'{"city": "Paris"}': True, '{"town": 1}': False, "well": False},
        ),
        ("responses", {"text": {"format": {"type": "json_schema", "schema": _SCHEMA}}}, {'{"city": 1}': False}),
        ("chat", {}, {"well": None}),
    ],
)
def test_an_answer_is_held_against_the_format_that_was_asked_for(
    api: Any, asked: dict[str, Any], answers: dict[str, bool | None]
) -> None:
    question = {"messages": QUESTION} if api == "chat" else {"input": "Is all well?"}
    talk = read_conversation(api, {"model": "x", **question, **asked})
    for text, passed in answers.items():
        expected = {} if passed is None else {"asked_format": passed}
        assert results(ChecksConfig(asked_format=True), talk, Answer(text)) == expected


async def test_a_connection_sends_an_answers_body_without_waiting_for_the_clients_word() -> None:
    settings = GatewaySettings(host="127.0.0.1", port=0)
    with listen(settings) as listening, socket.create_connection(listening.getsockname()[:2]):
        taken, _ = listening.accept()
        with taken:
            assert taken.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0


async def test_litellm_keeps_no_books_of_the_gateways_calls_and_those_of_others_as_always(
    client: openai.AsyncOpenAI, gate: Gate
) -> None:
    # Only now: the gateway has set LiteLLM up, which asks the network for prices otherwise.
    import litellm  # noqa: PLC0415
    from litellm.integrations.custom_logger import CustomLogger  # noqa: PLC0415

    costs: asyncio.Queue[float | None] = asyncio.Queue()

    class Books(CustomLogger):  # type: ignore[misc]
        async def async_log_success_event(self, kwargs: Any, **_: Any) -> None:
            costs.put_nowait(kwargs.get("response_cost"))

    books = Books()
    litellm.callbacks.append(books)
    try:
        await client.chat.completions.create(model="small", messages=QUESTION)
        async for _ in await client.chat.completions.create(model="small", messages=QUESTION, stream=True):
            pass
        base = f"{gate.provider.url}/v1"
        await litellm.acompletion(model="openai/gpt-4o-mini", messages=QUESTION, api_base=base, api_key="other")
        assert (await asyncio.wait_for(costs.get(), 30) or 0) > 0
        # Records are made in the order of the calls.
        assert costs.empty()
    finally:
        litellm.logging_callback_manager.remove_callback_from_list_by_object(litellm.callbacks, books)
