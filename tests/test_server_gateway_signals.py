"""What the gateway tells of an answer: the client's feedback, and its own checks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai_calls import QUESTION, TOOLS, chosen, speaking, standing_gateway, two_models
from servers import Running
from standins import LITELLM_SILENCED, Gate, running_gateway, running_standin

from server.gateway.conversation import read_conversation
from server.gateway.plan import Answer
from server.gateway.settings import ChecksConfig
from server.gateway.signals import results

pytestmark = LITELLM_SILENCED


@pytest.fixture
async def gate(server: Running, tmp_path: Path) -> AsyncIterator[Gate]:
    async with standing_gateway(server, tmp_path) as found:
        yield found


@pytest.fixture
async def client(gate: Gate) -> AsyncIterator[openai.AsyncOpenAI]:
    async with speaking(gate) as found:
        yield found


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
