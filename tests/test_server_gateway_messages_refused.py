"""What the gateway refuses of the Messages API, and the errors as Anthropic's SDK knows them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anthropic
import httpx
import pytest
from anthropic_calls import ASKED, MODELS, QUESTION, TOOLS, only, speaking, standing_gateway
from servers import Running
from standins import LITELLM_SILENCED, Gate, running_gateway, running_standin

pytestmark = LITELLM_SILENCED


@pytest.fixture
async def gate(server: Running, tmp_path: Path) -> AsyncIterator[Gate]:
    async with standing_gateway(server, tmp_path) as found:
        yield found


@pytest.fixture
async def client(gate: Gate) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with speaking(gate) as found:
        yield found


async def test_errors_are_in_anthropics_form(gate: Gate, client: anthropic.AsyncAnthropic) -> None:
    with pytest.raises(anthropic.NotFoundError) as missing:
        await client.messages.create(**{**ASKED, "model": "nothing"})
    assert missing.value.body["error"]["type"] == "not_found_error"
    gate.provider.modes["small"] = "400"
    with pytest.raises(anthropic.BadRequestError, match="the provider says 400"):
        await client.messages.create(**ASKED, extra_headers=only("small"))
    gate.provider.modes["small"] = "429"
    with pytest.raises(anthropic.RateLimitError) as limited:
        await client.messages.create(**{**ASKED, "model": "small"})
    assert limited.value.body["error"]["type"] == "rate_limit_error"
    async with httpx.AsyncClient() as plain:
        for method, path, content, status, kind in (
            ("GET", "", b"", 405, "invalid_request_error"),
            ("POST", "/batches", b"{}", 404, "not_found_error"),
            ("POST", "/count_tokens", b"[]", 400, "invalid_request_error"),
            ("POST", "/count_tokens", b"{}", 400, "invalid_request_error"),
            ("POST", "", b"{", 400, "invalid_request_error"),
            ("POST", "", b"[]", 400, "invalid_request_error"),
        ):
            answer = await plain.request(method, f"{gate.url}/v1/messages{path}", content=content)
            assert (answer.status_code, answer.json()["type"]) == (status, "error")
            assert answer.json()["error"]["type"] == kind


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": ["Hello"]}, "messages[0]"),
        ({"messages": [{"content": "Hello"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 7}]}, "messages[0].content"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": ["Hello"]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
        (
            {"messages": [{"role": "user", "content": [{"type": "server_tool_use"}]}]},
            "messages[0].content[0].type",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "file"}}]}]},
            "messages[0].content[0].source.type",
        ),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "document", "source": {"type": "text", "data": "x"}}]}
                ]
            },
            "messages[0].content[0].source.type",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "tool_result", "content": "x"}]}]},
            "messages[0].content[0].tool_use_id",
        ),
        (
            {
                "messages": [
                    *({"role": "user", "content": "x"},),
                    {
                        "role": "assistant",
                        "content": [{"type": "tool_use", "id": "1", "name": "x", "input": "{}"}],
                    },
                ]
            },
            "messages[1].content[0].input",
        ),
        ({"system": 7}, "system"),
        ({"system": [{"type": "image"}]}, "system[0].type"),
        ({"tools": [{"type": "bash_20250124", "name": "bash"}]}, "tools[0].type"),
        ({"tools": [{"name": "weather"}]}, "tools[0].input_schema"),
        ({"tool_choice": "any"}, "tool_choice.type"),
        ({"thinking": True}, "thinking"),
        ({"output_config": []}, "output_config"),
        ({"output_config": {"format": {"type": "json_schema", "schema": 7}}}, "output_config.format.schema"),
        ({"messages": [{"role": "user", "content": []}]}, "messages[0].content"),
        ({"stream": "yes"}, "stream"),
        ({"metadata": "ann"}, "metadata"),
        ({"mcp_servers": []}, "mcp_servers"),
        ({"api_base": "http://127.0.0.1:9"}, "api_base"),
        ({"mock_response": "x"}, "mock_response"),
    ],
)
async def test_a_body_that_is_none_is_refused_by_the_place_of_its_fault(
    gate: Gate, change: dict[str, Any], field: str
) -> None:
    async with httpx.AsyncClient() as plain:
        answer = await plain.post(f"{gate.url}/v1/messages", json={**ASKED, **change})
    assert answer.status_code == 400
    assert field in answer.json()["error"]["message"].split(": ")[0], answer.text
    assert not gate.provider.calls


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": "hot"},
        {"stop_sequences": 7},
        {"thinking": {}},
        {"tools": [{**TOOLS[0], "input_schema": {"properties": 7, "required": {}}}]},
        {"messages": [{"role": "assistant", "content": [{"type": "thinking"}]}]},
        {"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "?", "content": []}]}]},
    ],
)
@pytest.mark.parametrize("model", MODELS)
async def test_what_only_the_provider_can_judge_is_no_fault_of_the_gateway(
    gate: Gate, client: anthropic.AsyncAnthropic, model: str, change: dict[str, Any]
) -> None:
    async with httpx.AsyncClient() as plain:
        answer = await plain.post(f"{gate.url}/v1/messages", json={**ASKED, **change}, headers=only(model))
    assert answer.status_code in (200, 400), answer.text


@pytest.mark.parametrize(("depth", "status"), [(90, 200), (120, 400), (900, 400), (5000, 400)])
async def test_a_body_that_is_nested_too_deeply_is_refused_by_each_api(
    gate: Gate, depth: int, status: int
) -> None:
    schema = '{"a":' * depth + "{}" + "}" * depth
    bodies = {
        "messages": {"max_tokens": 9, "tools": [{"name": "x", "input_schema": "SCHEMA"}]},
        "chat/completions": {"tools": [{"type": "function", "function": {"name": "x", "parameters": "SCHEMA"}}]},
    }
    async with httpx.AsyncClient() as plain:
        for path, body in bodies.items():
            content = json.dumps({"model": "small", "messages": QUESTION, **body}).replace('"SCHEMA"', schema)
            answer = await plain.post(f"{gate.url}/v1/{path}", content=content)
            assert answer.status_code == status, answer.text
            assert status == 200 or "nested" in answer.text or "no JSON" in answer.text


async def test_the_key_may_come_as_each_sdk_sends_it(server: Running, tmp_path: Path) -> None:
    await server.create_models(small={})
    async with (
        running_standin() as provider,
        running_gateway(server, provider, tmp_path, settings={"api_key": "sesame"}) as gate,
    ):
        for given in ({"api_key": "sesame"}, {"auth_token": "sesame"}):
            async with anthropic.AsyncAnthropic(base_url=gate.url, max_retries=0, **given) as client:
                assert (await client.messages.create(**ASKED)).model == "small"
        async with anthropic.AsyncAnthropic(base_url=gate.url, api_key="wrong", max_retries=0) as stranger:
            with pytest.raises(anthropic.AuthenticationError) as caught:
                await stranger.messages.create(**ASKED)
        assert caught.value.body["error"]["type"] == "authentication_error"
