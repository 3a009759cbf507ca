"""What is decided about a request, and what came of it: the words that the parts of the gateway share."""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.duration_pb2 import Duration
from pointsman.v1 import router_service_pb2 as pb

Put = Callable[[pb.ReportRewardRequest | str], None]
"""Takes a report, or the id of a decision that counts from now on."""


@dataclass
class Plan:
    """Who is to be called, in which order, and by whose word. Without a decision nothing is reported."""

    models: list[str]
    deadline: float
    router: str
    decision_id: str = ""
    chosen: str = ""
    probability: float = 0.0
    policy: str = ""
    away: str = ""
    nonce: str = field(default_factory=lambda: uuid.uuid4().hex[:12])


@dataclass
class Served:
    """An answer, or the beginning of one, and the model that gives it."""

    model: str
    attempts: int
    started: float
    body: dict[str, Any] = field(default_factory=dict)
    begun: list[dict[str, Any]] = field(default_factory=list)
    rest: AsyncGenerator[dict[str, Any], None] | None = None
    first_seconds: float = 0.0


@dataclass(frozen=True)
class Answer:
    """What a model has said: its text, and the names and arguments of the tools that it calls."""

    text: str
    tool_calls: tuple[tuple[str, str], ...] = ()


def duration(seconds: float) -> Duration:
    """As the contract has it."""
    message = Duration()
    message.FromNanoseconds(int(seconds * 1e9))
    return message
