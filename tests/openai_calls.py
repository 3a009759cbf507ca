"""Calls of OpenAI's SDK to a gateway, and the models behind it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import openai
from servers import Running
from standins import Gate, running_gateway, running_standin

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


async def two_models(running: Running) -> None:
    """Two models that can do everything, one of them dearer."""
    able = {"capabilities": ["tools", "vision", "json"]}
    await running.create_models(small=able, large={**able, "prices": (10.0, 20.0, 0.0)})


@asynccontextmanager
async def standing_gateway(server: Running, folder: Path) -> AsyncIterator[Gate]:
    """A gateway before two models that can do everything."""
    await two_models(server)
    async with running_standin() as provider, running_gateway(server, provider, folder) as found:
        yield found


def speaking(gate: Gate) -> openai.AsyncOpenAI:
    """OpenAI's SDK, which asks the gateway and tries nothing again."""
    return openai.AsyncOpenAI(base_url=f"{gate.url}/v1", api_key="unused", max_retries=0)


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
