"""Images pass through the gateway: in each API that it speaks, to a provider of either kind."""

from __future__ import annotations

import base64
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from servers import Running
from standins import Gate, running_gateway, running_standin

# LiteLLM silences these when it is first imported, which pytest undoes for each test.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*ReadOnly:UserWarning"),
    pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

SEED = 20261130
WORDS = "What is to be seen here?"
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
# As large as a photograph: whatever is between the SDK and the provider, no byte of it changes.
DATA = base64.b64encode(PIXEL + random.Random(SEED).randbytes(500_000)).decode()
URL = f"data:image/png;base64,{DATA}"
BLOCK = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": DATA}}


@pytest.fixture
async def gate(server: Running, tmp_path: Path) -> AsyncIterator[Gate]:
    """A gateway before two models that see, and one that does not and costs nothing."""
    sees = {"capabilities": ["vision"], "prices": (10.0, 20.0, 0.0)}
    await server.create_models(small=sees, claude=sees, large={"prices": (0.0, 0.0, 0.0)})
    async with running_standin() as provider, running_gateway(server, provider, tmp_path) as found:
        yield found


@pytest.fixture
async def client(gate: Gate) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{gate.url}/v1", api_key="unused", max_retries=0) as found:
        yield found


def same(one: Any, other: Any) -> bool:
    """Compared without the explanation of pytest, which takes minutes for so long a text."""
    return bool(one == other)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["small", "claude"])
async def test_an_image_of_a_chat_reaches_the_provider_as_it_was(
    gate: Gate, client: openai.AsyncOpenAI, model: str, stream: bool
) -> None:
    image = {"type": "image_url", "image_url": {"url": URL, "detail": "low"}}
    asked: Any = [{"role": "user", "content": [{"type": "text", "text": WORDS}, image]}]
    answer: Any = await client.chat.completions.create(model=model, messages=asked, stream=stream)
    if stream:
        [chunk async for chunk in answer]

    (sent,) = gate.provider.calls
    assert same(sent["messages"][-1]["content"][1], image if model == "small" else BLOCK)


async def test_an_image_of_a_response_reaches_the_provider_as_it_was(
    gate: Gate, client: openai.AsyncOpenAI
) -> None:
    image = {"type": "input_image", "image_url": URL, "detail": "low"}
    asked: Any = [{"role": "user", "content": [{"type": "input_text", "text": WORDS}, image]}]
    await client.responses.create(model="small", input=asked)

    (sent,) = gate.provider.calls
    assert same(sent["input"][-1]["content"][1], image)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["small", "claude"])
async def test_an_image_of_a_message_reaches_the_provider_as_it_was(gate: Gate, model: str, stream: bool) -> None:
    asked: Any = [{"role": "user", "content": [BLOCK, {"type": "text", "text": WORDS}]}]
    async with anthropic.AsyncAnthropic(base_url=gate.url, api_key="unused", max_retries=0) as client:
        answer: Any = await client.messages.create(model=model, max_tokens=9, messages=asked, stream=stream)
        if stream:
            [event async for event in answer]

    (sent,) = gate.provider.calls
    expected = {"type": "image_url", "image_url": {"url": URL}} if model == "small" else BLOCK
    assert same(sent["messages"][-1]["content"][0], expected)


async def test_an_image_is_for_a_model_that_sees(gate: Gate, client: openai.AsyncOpenAI) -> None:
    image = {"type": "image_url", "image_url": {"url": URL}}
    asked: Any = [{"role": "user", "content": [{"type": "text", "text": WORDS}, image]}]
    raw = await client.chat.completions.with_raw_response.create(
        model="pointsman", messages=asked, extra_headers={"x-pointsman-exploit-only": "true"}
    )

    assert raw.headers["x-pointsman-model"] in ("small", "claude")
    decision = await gate.decision(raw.headers["x-pointsman-decision-id"])
    excluded = {each.model: each.exclusion for each in decision.candidates if each.exclusion}
    assert list(excluded) == ["large"], excluded
    assert decision.numeric_features["gateway_tokens"] < 0.1, "its bytes are no text: less than 1,000 tokens"


async def test_an_address_on_the_gateways_own_machine_is_not_fetched(
    gate: Gate, client: openai.AsyncOpenAI
) -> None:
    """LiteLLM fetches what Anthropic would not: from public addresses alone."""
    image = {"type": "image_url", "image_url": {"url": f"{gate.provider.url}/secret.png"}}
    asked: Any = [{"role": "user", "content": [{"type": "text", "text": WORDS}, image]}]
    with pytest.raises(openai.APIStatusError) as caught:
        await client.chat.completions.create(model="claude", messages=asked)
    assert caught.value.status_code == 400
    assert not gate.provider.calls
    assert gate.provider.fetched == 0
