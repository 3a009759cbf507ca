"""The gateway as Anthropic's SDK meets it: the Messages API, whichever API the provider behind it speaks."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anthropic
import pydantic
import pytest
from anthropic_calls import ASKED, MODELS, QUESTION, SCHEMA, TOOLS, only, speaking, standing_gateway
from pointsman.v1 import router_service_pb2 as pb
from servers import Running, eventually
from standins import LITELLM_SILENCED, WORDS, Gate, running_gateway, running_standin

from server.gateway.conversation import read_conversation
from server.gateway.plan import Answer
from server.gateway.rubric import transcript_of
from server.gateway.settings import ChecksConfig
from server.gateway.signals import results

pytestmark = LITELLM_SILENCED


@pytest.fixture
async def gate(server: Running, tmp_path: Path) -> AsyncIterator[Gate]:
    async with standing_gateway(server, tmp_path) as found:
        yield found


@pytest.fixture
async def client(gate: Gate) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with speaking(gate) as found:
        yield found


@pytest.mark.parametrize(("model", "cached"), [("small", 0), ("claude", 4)])
async def test_an_answer_says_by_which_decision_it_came_and_its_usage_is_reported_once(
    gate: Gate, client: anthropic.AsyncAnthropic, model: str, cached: int
) -> None:
    raw = await client.messages.with_raw_response.create(
        **ASKED, system="Be brief.", metadata={"user_id": "ann"}, extra_headers=only(model)
    )
    answer: Any = await raw.parse()

    assert [(block.type, block.text) for block in answer.content] == [("text", "All is well.")]
    assert (answer.model, answer.stop_reason, answer.usage.output_tokens) == (model, "end_turn", 7)
    assert answer.usage.input_tokens == 11 - cached
    decision = await gate.decision(raw.headers["x-pointsman-decision-id"], reports=1)
    assert answer.metadata["pointsman_decision_id"] == decision.decision_id
    assert float(raw.headers["x-pointsman-propensity"]) == decision.probability
    assert decision.session_id == "ann"
    assert decision.active
    (report,) = decision.reports
    usage = report.report.usage
    assert (usage.input_tokens, usage.cached_input_tokens, usage.output_tokens) == (11, cached, 7)
    assert report.report.HasField("latency")
    system = gate.provider.calls[-1]["messages"][0] if model == "small" else gate.provider.calls[-1]["system"][0]
    assert "Be brief." in system.values()


@pytest.mark.parametrize("model", MODELS)
async def test_a_stream_has_the_events_that_anthropic_has(
    gate: Gate, client: anthropic.AsyncAnthropic, model: str
) -> None:
    raw = await client.messages.with_raw_response.create(**ASKED, stream=True, extra_headers=only(model))
    events: list[Any] = [event async for event in await raw.parse()]

    assert [event.type for event in events] == [
        *("message_start", "content_block_start"),
        *["content_block_delta"] * len(WORDS),
        *("content_block_stop", "message_delta", "message_stop"),
    ]
    begun = events[0].message
    decision = await gate.decision(raw.headers["x-pointsman-decision-id"], reports=1)
    assert (begun.model, begun.metadata["pointsman_decision_id"]) == (model, decision.decision_id)
    (report,) = decision.reports
    assert (report.report.usage.input_tokens, report.report.usage.output_tokens) == (11, 7)
    assert report.report.signals["time_to_first_token_seconds"] > 0


async def test_the_sdks_own_stream_of_text_makes_the_whole_message(client: anthropic.AsyncAnthropic) -> None:
    async with client.messages.stream(**ASKED) as stream:
        said = [text async for text in stream.text_stream]
        answer = await stream.get_final_message()

    assert said == WORDS
    assert (answer.stop_reason, answer.usage.input_tokens + (answer.usage.cache_read_input_tokens or 0)) == (
        "end_turn",
        11,
    )


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", MODELS)
async def test_a_tool_is_called_and_its_result_answered(
    gate: Gate, client: anthropic.AsyncAnthropic, model: str, stream: bool
) -> None:
    asked: Any = {**ASKED, "tools": TOOLS, "extra_headers": only(model)}
    if stream:
        async with client.messages.stream(**asked) as events:
            answer = await events.get_final_message()
    else:
        answer = await client.messages.create(**asked)

    assert answer.stop_reason == "tool_use"
    (call,) = answer.content
    assert call.type == "tool_use"
    assert (call.name, call.input) == ("weather", {"city": "Paris"})
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "Sunny."}
    turns: Any = [
        *QUESTION,
        {"role": "assistant", "content": answer.content},
        {"role": "user", "content": [result]},
    ]
    last: Any = await client.messages.create(**{**asked, "messages": turns})
    assert last.content[0].text == "All is well."
    sent = gate.provider.calls[-1]["messages"]
    if model == "small":
        assert sent[1]["tool_calls"][0]["id"] == sent[2]["tool_call_id"] == call.id
        assert sent[2]["content"] == "Sunny."
    else:
        assert (sent[1]["content"][0]["id"], sent[2]["content"][0]["tool_use_id"]) == (call.id, call.id)
        assert sent[2]["content"][0]["content"] == "Sunny."


class _Place(pydantic.BaseModel):
    city: str


async def test_an_answer_in_json_is_asked_for_and_parsed(gate: Gate, client: anthropic.AsyncAnthropic) -> None:
    answer = await client.messages.parse(**ASKED, output_format=_Place, extra_headers=only("small"))

    assert answer.parsed_output == _Place(city="Paris")
    asked = gate.provider.calls[-1]["response_format"]
    assert (asked["type"], list(asked["json_schema"]["schema"]["properties"])) == ("json_schema", ["city"])


@pytest.mark.parametrize("model", MODELS)
async def test_what_else_a_message_may_say_reaches_the_model(
    gate: Gate, client: anthropic.AsyncAnthropic, model: str
) -> None:
    choice: Any = {"type": "tool", "name": "weather", "disable_parallel_tool_use": True}
    await client.messages.create(
        **ASKED,
        tools=TOOLS,
        tool_choice=choice,
        stop_sequences=["END"],
        extra_body={"temperature": 0.5},
        extra_headers=only(model),
    )

    sent = gate.provider.calls[-1]
    assert (sent["temperature"], sent["max_tokens"]) == (0.5, 100)
    if model == "small":
        assert (sent["stop"], sent["parallel_tool_calls"]) == (["END"], False)
        assert sent["tool_choice"] == {"type": "function", "function": {"name": "weather"}}
    else:
        assert (sent["stop_sequences"], sent["tool_choice"]) == (["END"], choice)


async def test_a_document_and_thoughts_reach_models_of_either_provider(
    gate: Gate, client: anthropic.AsyncAnthropic
) -> None:
    source = {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}
    turns: Any = [
        {"role": "user", "content": [{"type": "document", "source": source}, {"type": "text", "text": "And?"}]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Hm.", "signature": "s"},
                {"type": "text", "text": "So."},
            ],
        },
        {"role": "user", "content": "And?"},
    ]
    sent = {}
    for model in MODELS:
        await client.messages.create(**{**ASKED, "messages": turns}, extra_headers=only(model))
        sent[model] = gate.provider.calls[-1]["messages"]
    assert sent["claude"][0]["content"][0] == {"type": "document", "source": source}
    assert sent["claude"][1]["content"] == turns[1]["content"]
    assert sent["small"][0]["content"][0]["file"]["file_data"] == "data:application/pdf;base64,JVBERi0="
    assert sent["small"][1]["content"] == "So."


@pytest.mark.parametrize("stream", [False, True])
async def test_a_fallback_answers_and_the_failure_is_the_failing_models(
    gate: Gate, client: anthropic.AsyncAnthropic, stream: bool
) -> None:
    gate.provider.modes["small"] = "500"
    for _ in range(200):
        raw = await client.messages.with_raw_response.create(
            **ASKED, tools=TOOLS, stream=stream, extra_headers=only("small", "claude")
        )
        if stream:
            [event async for event in await raw.parse()]
        if raw.headers["x-pointsman-chosen-model"] == "small":
            break

    assert (raw.headers["x-pointsman-model"], raw.headers["x-pointsman-attempts"]) == ("claude", "2")
    decision = await gate.decision(raw.headers["x-pointsman-decision-id"], reports=2)
    first, second = decision.reports
    assert (first.model, first.report.error) == ("small", pb.MODEL_ERROR_UNAVAILABLE)
    assert (second.model, second.report.error, second.report.usage.output_tokens) == ("claude", 0, 7)


@pytest.mark.parametrize(("model", "mode"), [("small", "break_middle"), ("claude", "overloaded_middle")])
async def test_a_stream_that_breaks_in_the_middle_ends_with_an_error_and_what_it_used(
    gate: Gate, client: anthropic.AsyncAnthropic, model: str, mode: str
) -> None:
    gate.provider.modes[model] = mode
    raw = await client.messages.with_raw_response.create(**ASKED, stream=True, extra_headers=only(model))
    stream: Any = await raw.parse()
    events = [await anext(stream) for _ in range(4)]
    assert [event.delta.text for event in events[2:]] == WORDS[:2]
    with pytest.raises(anthropic.APIStatusError, match=f"{model}: the answer broke off") as caught:
        await anext(stream)
    assert caught.value.body["error"]["type"] == "api_error"
    decision = await gate.decision(raw.headers["x-pointsman-decision-id"], reports=1)
    (report,) = decision.reports
    assert report.report.error == pb.MODEL_ERROR_UNAVAILABLE
    assert report.report.usage.output_tokens == 2


@pytest.mark.parametrize(("model", "tools", "tokens"), [("small", [], 2), ("small", TOOLS, 1), ("claude", [], 2)])
async def test_a_client_that_hangs_up_has_the_call_ended_and_the_tokens_so_far_reported(
    gate: Gate, client: anthropic.AsyncAnthropic, model: str, tools: Any, tokens: int
) -> None:
    gate.provider.modes[model] = "stall_middle"
    raw = await client.messages.with_raw_response.create(
        **ASKED, tools=tools, stream=True, extra_headers=only(model)
    )
    stream: Any = await raw.parse()
    async for event in stream:
        if event.type == "content_block_delta" and event.delta.to_dict() in (
            {"type": "text_delta", "text": WORDS[1]},
            {"type": "input_json_delta", "partial_json": '{"ci'},
        ):
            break
    await stream.close()

    decision = await gate.decision(raw.headers["x-pointsman-decision-id"], reports=1)
    (report,) = decision.reports
    assert (report.report.error, report.report.usage.output_tokens) == (pb.MODEL_ERROR_UNSPECIFIED, tokens)
    assert not report.report.HasField("latency")

    async def ended() -> bool:
        return gate.provider.hung_up == 1 and gate.gateway._door.inside == 0

    await eventually(ended)


async def test_neither_keys_nor_prompts_are_in_the_log(
    gate: Gate, client: anthropic.AsyncAnthropic, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    asked: Any = {**ASKED, "messages": [{"role": "user", "content": "a secret of mine"}]}
    for mode in ("ok", "400", "500", "break_middle"):
        gate.provider.modes.update(dict.fromkeys(("small", "large", "claude"), mode))
        with contextlib.suppress(anthropic.APIError):
            await client.messages.create(**asked)
        with contextlib.suppress(anthropic.APIError):
            [event async for event in await client.messages.create(**asked, stream=True)]

    ours = [each for each in caplog.records if not each.name.startswith(("anthropic", "httpx2"))]
    assert not any("secret" in each.getMessage() for each in ours)


async def test_past_the_deadline_the_client_is_told_so(gate: Gate, client: anthropic.AsyncAnthropic) -> None:
    gate.provider.modes.update(dict.fromkeys(("small", "large", "claude"), "stall"))
    with pytest.raises(anthropic.APIStatusError, match=r"no answer within|deadline") as caught:
        await client.messages.create(**ASKED, extra_headers={"x-pointsman-max-latency": "0.2"})
    assert caught.value.status_code == 504
    assert caught.value.body == {
        "type": "error",
        "error": {"type": "timeout_error", "message": caught.value.body["error"]["message"]},
    }


async def test_feedback_with_the_decisions_id_is_its_reward(gate: Gate, client: anthropic.AsyncAnthropic) -> None:
    raw = await client.messages.with_raw_response.create(**ASKED)
    given = {"decision_id": raw.headers["x-pointsman-decision-id"], "thumb": "up"}
    answer: Any = await client.post("/v1/feedback", body=given, cast_to=object)

    assert (answer["model"], answer["disposition"]) == ((await raw.parse()).model, "recorded")
    assert (await gate.decision(given["decision_id"], reports=2)).reward == 1.0


async def test_tokens_are_counted_without_a_decision(gate: Gate, client: anthropic.AsyncAnthropic) -> None:
    long: Any = [{"role": "user", "content": "word " * 800}]
    counted = await client.messages.count_tokens(model="pointsman", messages=long)
    more = await client.messages.count_tokens(model="pointsman", messages=long, system="s" * 400, tools=TOOLS)

    assert 1000 <= counted.input_tokens <= 1010
    assert more.input_tokens > counted.input_tokens + 100
    assert (await gate.pointsman.settled()).statistics.decision_count == 0


async def test_checks_see_the_tools_of_a_message(server: Running, tmp_path: Path) -> None:
    await server.create_models(small={"capabilities": ["tools"]})
    checks = {"non_empty": True, "tool_calls": True}
    async with (
        running_standin() as provider,
        running_gateway(server, provider, tmp_path, routers={"default": {"checks": checks}}) as gate,
        anthropic.AsyncAnthropic(base_url=gate.url, api_key="unused", max_retries=0) as client,
    ):
        whole = await client.messages.with_raw_response.create(**ASKED, tools=TOOLS)
        begun = await client.messages.with_raw_response.create(**ASKED, tools=TOOLS, stream=True)
        [event async for event in await begun.parse()]
        for raw in (whole, begun):
            decision = await gate.decision(raw.headers["x-pointsman-decision-id"], reports=1)
            signals = decision.reports[0].report.signals
            assert (signals["check_non_empty"], signals["check_tool_calls"]) == (1.0, 1.0)


def test_a_conversation_is_read_with_all_its_blocks() -> None:
    talk = read_conversation(
        "messages",
        {
            **ASKED,
            "system": [{"type": "text", "text": "s" * 400}],
            "tools": TOOLS,
            "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}},
            "messages": [
                *QUESTION,
                {
                    "role": "assistant",
                    "content": [{"type": "tool_use", "id": "1", "name": "weather", "input": {}}],
                },
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "tool_result",
                            "tool_use_id": "1",
                            "content": [{"type": "text", "text": "r" * 4000}],
                        }
                    ],
                },
            ],
        },
    )
    assert talk.prompt == QUESTION[0]["content"], "a tool's result is nobody's question"
    assert 1100 < talk.input_tokens < 1200
    assert (talk.capabilities, talk.max_output_tokens) == (("tools", "json"), 100)
    assert talk.categorical_features == {"gateway_format": "json_schema"}
    said = transcript_of(talk, 10_000).splitlines()
    assert [line[:30] for line in said[1:]] == [
        "user: What is the weather in P",
        "assistant: [calls weather({})]",
        f"user: {'r' * 24}",
    ]
    assert said[0] == f"system: {'s' * 400}"
    checks = ChecksConfig(asked_format=True)
    assert results(checks, talk, Answer('{"city": "Paris"}')) == {"asked_format": True}
    assert results(checks, talk, Answer('{"town": "Paris"}')) == {"asked_format": False}
