"""What the tests of clients share: a provider's answers, a server that refuses at first, what the log then has."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from pointsman.client import AsyncClient, Client
from pointsman.v1 import router_service_pb2 as pb
from servers import Running

from server.errors import StorageUnavailableError
from server.storage.writes import DecisionWrite, ReportWrite, Write

PATIENCE_SECONDS = 30.0
REFUSALS = 2


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


def refuse_at_first(running: Running, monkeypatch: pytest.MonkeyPatch) -> Counter[type]:
    """The server answers UNAVAILABLE to the first decisions and reports; gives what it refuses, as it does."""
    assert running.app is not None
    submit = running.app._log.submit
    refused = Counter[type]()

    async def refuse(write: Write | Callable[[], Write], *given: Any) -> Any:
        kind = type(write() if callable(write) else write)
        if kind in (DecisionWrite, ReportWrite) and refused[kind] < REFUSALS:
            refused[kind] += 1
            raise StorageUnavailableError
        return await submit(write, *given)

    monkeypatch.setattr(running.app._log, "submit", refuse)
    return refused
