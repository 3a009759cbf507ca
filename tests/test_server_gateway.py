"""The gateway between OpenAI's SDK, a real server and stand-ins for the providers."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai_calls import QUESTION, TOOLS, speaking, standing_gateway, two_models
from servers import Running, eventually
from standins import LITELLM_SILENCED, Gate, running_gateway, running_standin

from server.gateway.app import listen
from server.gateway.settings import GatewaySettings

pytestmark = LITELLM_SILENCED


@pytest.fixture
async def gate(server: Running, tmp_path: Path) -> AsyncIterator[Gate]:
    async with standing_gateway(server, tmp_path) as found:
        yield found


@pytest.fixture
async def client(gate: Gate) -> AsyncIterator[openai.AsyncOpenAI]:
    async with speaking(gate) as found:
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
