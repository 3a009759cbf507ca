"""What the servers themselves say at the end: that they are well, and that they all know the same."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import grpc
from grpc_health.v1 import health_pb2
from pointsman.v1 import registry_service_pb2 as registry_pb
from pointsman.v1 import router_service_pb2 as pb

from faults.checks import registry_is_one_of
from faults.history import History
from faults.learned import Counts, ModelCounts, counts, differences
from faults.load import COMING, MODELS, PRICED, ROUTERS, Stubs
from faults.stored import Stored

_HEALTH = ("", "pointsman.v1.RouterService", "pointsman.v1.evaluation")
_PATIENCE_SECONDS = 90.0
_CALL_SECONDS = 20.0
_LOOKED_UP = 200
_CANNOT_START = ("cannot be opened", "psycopg.", "storage is not available")
# What a fault may make a server say. Whatever else is raised is a defect.
_ALLOWED = (
    "sqlalchemy.exc.OperationalError",
    "sqlalchemy.exc.InternalError",
    "sqlalchemy.exc.InterfaceError",
    "sqlalchemy.exc.InvalidatePoolError",
    "sqlalchemy.exc.TimeoutError",
    "psycopg.OperationalError",
    "psycopg.errors.",
    "server.errors.StorageUnavailableError",
    "asyncio.exceptions.CancelledError",
)


async def eventually(ask: Callable[[], Awaitable[bool]], seconds: float = _PATIENCE_SECONDS) -> bool:
    """Asks until it is so; False if it is not in time, or still fails then."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            if await ask():
                return True
        except grpc.aio.AioRpcError:
            pass
        await asyncio.sleep(0.1)
    return False


async def unwell(stubs: Stubs, services: Sequence[str] = _HEALTH) -> list[str]:
    """What of the server does not become healthy by itself."""

    async def serving(service: str) -> bool:
        answer = await stubs.health.Check(health_pb2.HealthCheckRequest(service=service), timeout=_CALL_SECONDS)
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    names = [each for each in services if not await eventually(lambda each=each: serving(each))]  # type: ignore[misc]
    return [f"{stubs.name}: {each or 'the server'} is not SERVING after the faults" for each in names]


async def counted(stubs: Stubs, router: str, upto: int) -> Counts | None:
    """What the server's learner has counted once it has learned up to that position; None if it never has."""
    found: list[registry_pb.Router] = []

    async def learned() -> bool:
        request = registry_pb.GetRouterRequest(name=router)
        found[:] = [(await stubs.registry.GetRouter(request, timeout=_CALL_SECONDS)).router]
        return int(found[0].statistics.snapshot or 0) >= upto

    if not await eventually(learned):
        return None
    models = await _models(stubs, router)
    known = found[0].statistics
    return Counts(
        *(known.decision_count, known.reward_count, known.spent_usd),
        models={
            _id(each): ModelCounts(
                each.statistics.decision_count, each.statistics.reward_count, each.statistics.mean_reward
            )
            for each in models
        },
    )


async def _models(stubs: Stubs, router: str) -> Sequence[registry_pb.Model]:
    request = registry_pb.ListModelsRequest(parent=router)
    return list((await stubs.registry.ListModels(request, timeout=_CALL_SECONDS)).models)


def _id(model: registry_pb.Model) -> str:
    return str(model.name.rsplit("/", 1)[-1])


async def miscounted(stubs: Stubs, stored: Stored) -> list[str]:
    """Where the server's learner has counted other than the log says."""
    found: list[str] = []
    routers = {row.decision_id: row.router for row in stored.decisions}
    for router in ROUTERS:
        last = max(
            (row.seq for row in stored.rows() if routers.get(getattr(row, "decision_id", ""), "") == router),
            default=0,
        )
        known = await counted(stubs, router, last)
        name = f"{stubs.name}, {router}"
        if known is None:
            found.append(f"{name}: not learned up to {last} in {_PATIENCE_SECONDS:.0f} s")
        else:
            found += differences(name, counts(stored, router, last_reward=router == ROUTERS[2]), known)
    return found


async def misremembered(stubs: Stubs, history: History, random: Random) -> list[str]:
    """Decisions that the server tells otherwise than they were answered, of some."""
    answers = [call.answer for call in history.routes if call.answer is not None]
    found = []
    for answer in random.sample(answers, min(_LOOKED_UP, len(answers))):
        request = pb.GetDecisionRequest(decision_id=answer.decision_id)
        try:
            told = (await stubs.router.GetDecision(request, timeout=_CALL_SECONDS)).decision
        except grpc.aio.AioRpcError as error:
            found.append(f"{stubs.name}: decision {answer.decision_id} cannot be read: {error.code().name}")
            continue
        candidates = {each.model: each.probability for each in told.candidates}
        if (told.model, told.probability, candidates) != (answer.model, answer.probability, answer.candidates):
            found.append(f"{stubs.name}: decision {answer.decision_id} is told otherwise than it was answered")
    return found


async def misregistered(stubs: Stubs, history: History) -> list[str]:
    """Models that cannot have come of the changes that were asked for."""
    found = []
    for router, model, initial in ((ROUTERS[0], PRICED, MODELS[PRICED][0]), (ROUTERS[2], COMING, None)):
        calls = [each for each in history.changes if (each.router, each.model) == (router, model)]
        kept = {_id(each): each.prices.usd_per_request for each in await _models(stubs, router)}
        if not registry_is_one_of(calls, initial, kept.get(model)):
            found.append(
                f"{stubs.name}: model {model} of {router} is at {kept.get(model)}, which was not asked for"
            )
    return found


def unexpected_errors(log: Path) -> Iterator[str]:
    """What a server's log has of errors that no fault explains: of each chain of them, the last counts."""
    text = log.read_text(errors="replace") if log.exists() else ""
    inside = False
    for line in text.splitlines():
        if line.startswith("Traceback (most recent call last):"):
            inside = True
        elif inside and line and not line.startswith((" ", "\t", "(", "[", "The above", "During handling")):
            inside = False
            if not line.startswith(_ALLOWED):
                yield f"{log.name}: {line[:200]}"
        refused = line.startswith("pointsman: ") and not any(each in line for each in _CANNOT_START)
        if "has died" in line or refused:
            yield f"{log.name}: {line[:200]}"


async def all_wrong(stubs: Sequence[Stubs], stored: Stored, history: History, random: Random) -> list[str]:
    """All of the above that is asked of servers which answer clients."""
    found: list[Any] = []
    for each in stubs:
        found += await miscounted(each, stored)
        found += await misremembered(each, history, random)
        found += await misregistered(each, history)
    return found
