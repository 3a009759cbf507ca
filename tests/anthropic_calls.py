"""Calls of Anthropic's SDK to a gateway, and the models behind it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anthropic
from servers import Running
from standins import Gate, running_gateway, running_standin

QUESTION: Any = [{"role": "user", "content": "What is the weather in Paris?"}]
SCHEMA: Any = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS: Any = [{"name": "weather", "description": "The weather of a city", "input_schema": SCHEMA}]
ASKED: Any = {"model": "pointsman", "max_tokens": 100, "messages": QUESTION}
# One model of a provider that speaks OpenAI's API, and one of a provider that speaks Anthropic's.
MODELS = ("small", "claude")


@asynccontextmanager
async def standing_gateway(server: Running, folder: Path) -> AsyncIterator[Gate]:
    """A gateway before models that can do everything."""
    able = {"capabilities": ["tools", "vision", "json"]}
    await server.create_models(small=able, large={**able, "prices": (10.0, 20.0, 0.0)}, claude=able)
    async with running_standin() as provider, running_gateway(server, provider, folder) as found:
        yield found


def speaking(gate: Gate) -> anthropic.AsyncAnthropic:
    """Anthropic's SDK, which asks the gateway and tries nothing again."""
    return anthropic.AsyncAnthropic(base_url=gate.url, api_key="unused", max_retries=0)


def only(*models: str) -> dict[str, str]:
    """The header that allows these models alone."""
    return {"x-pointsman-allowed-models": ",".join(models)}
