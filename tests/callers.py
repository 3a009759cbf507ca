"""What the tests of the Python client share: a provider's answers and failures, and what the log then has."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from pointsman.client import AsyncClient, Client
from pointsman.v1 import router_service_pb2 as pb
from servers import Running


class Answer:
    """A provider's answer, of 12 tokens for 30."""

    def __init__(self, text: str = "Paris") -> None:
        self.text = text
        self.usage = {"prompt_tokens": 30, "completion_tokens": 12, "prompt_tokens_details": {"cached_tokens": 20}}


class RateLimitError(Exception):
    """A provider's refusal for load."""

    status_code = 429


async def in_thread(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Blocking calls go beside the event loop that the server runs in."""
    return await asyncio.to_thread(function, *arguments, **options)


async def reports_of(server: Running, client: Client | AsyncClient, decision: Any) -> list[pb.ReportRewardRequest]:
    """What the log has of a decision, once the client has sent all."""
    sent = await client.flush() if isinstance(client, AsyncClient) else await in_thread(client.flush)
    assert sent
    assert client.counts.refused == client.counts.dropped == 0
    return [each.report for each in (await server.decision(decision)).reports]
