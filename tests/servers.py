"""Real servers and real logs for the tests, and the words they ask them in."""

from __future__ import annotations

import asyncio
import os
import random
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status
from pointsman.v1 import policy_service_pb2_grpc as policy_grpc
from pointsman.v1 import registry_service_pb2 as registry_pb
from pointsman.v1 import registry_service_pb2_grpc as registry_grpc
from pointsman.v1 import router_service_pb2 as pb
from pointsman.v1 import router_service_pb2_grpc as router_grpc
from sqlalchemy import func, select

from policy.choices import IMPORTED, Candidate, Choice
from policy.domain import ModelSpec, RouterSpec
from policy.features import Featuriser
from policy.layout import HASHED, STRUCTURE
from policy.log import DecisionRecord, ReportRecord
from server.app import App
from server.clock import LogClock
from server.config_file import DeclaredRouter
from server.errors import StorageUnavailableError
from server.registry import Registry
from server.settings import Settings
from server.storage import registry_store
from server.storage.engine import migrate, open_engine
from server.storage.reader import LogReader
from server.storage.recent import RecentDecisions
from server.storage.schema import changes, decisions, reports
from server.storage.writes import (
    DecisionWrite,
    ImportedRow,
    ImportWrite,
    ReportWrite,
    Transact,
    Write,
    write_batch,
)

POINTSMAN = Path(sys.executable).parent / "pointsman"
DEADLINE_SECONDS = 60.0
# How long a server under test waits for storage: the disk of a busy machine can stand still for seconds.
PATIENCE_SECONDS = 30.0
DAY_US = 86_400_000_000
NOT_STORED = "STORAGE_UNAVAILABLE"


@dataclass
class Running:
    """A server that runs, and its stubs."""

    url: str
    target: str
    channel: grpc.aio.Channel
    app: App | None = None
    router: Any = field(init=False)
    registry: Any = field(init=False)
    policies: Any = field(init=False)
    health: Any = field(init=False)

    def __post_init__(self) -> None:
        self.router = router_grpc.RouterServiceStub(self.channel)
        self.registry = registry_grpc.RegistryServiceStub(self.channel)
        self.policies = policy_grpc.PolicyServiceStub(self.channel)
        self.health = health_pb2_grpc.HealthStub(self.channel)

    async def create_models(self, router: str = "routers/default", **models: Mapping[str, Any]) -> None:
        """Adds models; `prices` are (input, output, request), the rest fields of Model."""
        for model_id, given in models.items():
            values = dict(given)
            message = registry_pb.Model(prices=prices(*values.pop("prices", (1.0, 2.0, 0.0))), **values)
            await self.registry.CreateModel(
                registry_pb.CreateModelRequest(parent=router, model_id=model_id, model=message)
            )

    async def create_router(self, router_id: str, **fields: Any) -> str:
        """Adds a router; gives its name."""
        request = registry_pb.CreateRouterRequest(router_id=router_id, router=registry_pb.Router(**fields))
        return (await self.registry.CreateRouter(request)).router.name

    async def update_router(self, name: str = "routers/default", **fields: Any) -> registry_pb.Router:
        """Changes the fields that are given."""
        message = registry_pb.Router(name=name, **fields)
        return (await self.registry.UpdateRouter(registry_pb.UpdateRouterRequest(router=message))).router

    async def get_router(self, name: str = "routers/default") -> registry_pb.Router:
        return (await self.registry.GetRouter(registry_pb.GetRouterRequest(name=name))).router

    async def get_model(self, model: str, router: str = "routers/default") -> registry_pb.Model:
        name = f"{router}/models/{model}"
        return (await self.registry.GetModel(registry_pb.GetModelRequest(name=name))).model

    async def route(self, **fields: Any) -> pb.RouteResponse:
        return await self.router.Route(pb.RouteRequest(**fields))

    async def report(self, decision: pb.RouteResponse | str, **fields: Any) -> int:
        """Reports; gives the disposition."""
        decision_id = decision if isinstance(decision, str) else decision.decision_id
        request = pb.ReportRewardRequest(decision_id=decision_id, **fields)
        return (await self.router.ReportReward(request)).disposition

    async def decision(self, decision: pb.RouteResponse) -> pb.Decision:
        request = pb.GetDecisionRequest(decision_id=decision.decision_id)
        return (await self.router.GetDecision(request)).decision

    async def settled(self, name: str = "routers/default") -> registry_pb.Router:
        """The router once the learner has learned every record of it that is in the log now."""
        last = await asyncio.to_thread(last_seq, self.url, name.removeprefix("routers/"))

        async def learned() -> registry_pb.Router | None:
            router = await self.get_router(name)
            return router if int(router.statistics.snapshot) >= last else None

        return await eventually(learned)

    async def health_is(self, status: int, service: str = "") -> None:
        """Returns once the server says so of its health."""

        async def said() -> bool:
            answer = await self.health.Check(health_pb2.HealthCheckRequest(service=service))
            return answer.status == status

        await eventually(said)


def prices(input_usd: float = 0.0, output_usd: float = 0.0, request_usd: float = 0.0) -> registry_pb.Prices:
    """Prices in USD: for a million input and output tokens, and for a request."""
    return registry_pb.Prices(
        input_usd_per_million_tokens=input_usd,
        output_usd_per_million_tokens=output_usd,
        usd_per_request=request_usd,
    )


@contextmanager
def storing_no_decisions(running: Running, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As if the disk were full for decisions, as long as the block."""
    assert running.app is not None
    submit = running.app._log.submit

    async def refuse(write: Write | Callable[[], Write], *given: Any) -> Any:
        if isinstance(write() if callable(write) else write, DecisionWrite):
            raise StorageUnavailableError
        return await submit(write, *given)

    with monkeypatch.context() as patch:
        patch.setattr(running.app._log, "submit", refuse)
        yield


async def eventually(ask: Callable[[], Awaitable[Any]], seconds: float = DEADLINE_SECONDS) -> Any:
    """Asks until the answer is true; gives it. Raises TimeoutError."""
    async with asyncio.timeout(seconds):
        while True:
            answer = await ask()
            if answer:
                return answer
            await asyncio.sleep(0.005)


@asynccontextmanager
async def running_app(
    url: str,
    featuriser: Featuriser,
    declared: Sequence[DeclaredRouter] = (),
    clock: LogClock | None = None,
    **settings: Any,
) -> AsyncIterator[Running]:
    """A server in this event loop, stopped properly at the end."""
    given = {
        "port": 0,
        "http_port": None,
        "durability": "process_crash",
        "storage_wait_seconds": PATIENCE_SECONDS,
        **settings,
    }
    app = App(Settings(database_url=url, **given), featuriser, clock)
    try:
        await app.start(list(declared))
        async with grpc.aio.insecure_channel(f"127.0.0.1:{app.port}") as channel:
            yield Running(url, f"127.0.0.1:{app.port}", channel, app)
    finally:
        await app.stop()


@contextmanager
def serving_process(
    *arguments: str, cwd: Path | None = None, **environment: str
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """`pointsman serve` in a process of its own, and its port; killed with SIGKILL at the end."""
    process = subprocess.Popen(
        [str(POINTSMAN), "serve", "--port", "0", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        cwd=cwd,
        env={
            **os.environ,
            "POINTSMAN_LOG_LEVEL": "ERROR",
            "POINTSMAN_HTTP_PORT": "off",
            "POINTSMAN_STORAGE_WAIT_SECONDS": str(PATIENCE_SECONDS),
            **environment,
        },
    )
    with killed_at_the_end(process) as port:
        yield process, port


@contextmanager
def killed_at_the_end(process: subprocess.Popen[bytes]) -> Iterator[int]:
    """The port of a process that says on its standard error where it listens; killed with SIGKILL at the end."""
    assert process.stderr is not None
    try:
        said = b""
        for line in process.stderr:
            said += line
            found = re.search(rb"listens on [^ ]*:(\d+)\s*$", line)
            if found:
                yield int(found.group(1))
                return
        raise AssertionError(f"it did not start: {said.decode()}")
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stderr.close()


def last_seq(url: str, router: str) -> int:
    """The position of the last record in the log that concerns the router."""
    engine = open_engine(url, create=False)
    mine = select(decisions.c.decision_id).where(decisions.c.router == router)
    queries = (
        select(func.max(decisions.c.seq)).where(decisions.c.router == router),
        select(func.max(reports.c.seq)).where(reports.c.decision_id.in_(mine)),
        select(func.max(changes.c.seq)).where(changes.c.router == router),
    )
    try:
        with engine.connect() as connection:
            return max(connection.execute(query).scalar_one() or 0 for query in queries)
    finally:
        engine.dispose()


@dataclass(frozen=True)
class Refusal:
    """A failed call, by the error model."""

    code: grpc.StatusCode
    reason: str
    message: str
    metadata: dict[str, str]
    fields: list[str]


async def refusal(call: Awaitable[Any]) -> Refusal:
    """How the call fails; it must, with an ErrorInfo of our domain."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return refused(caught.value)


def refused(error: grpc.aio.AioRpcError) -> Refusal:
    """What a failed call says."""
    status = rpc_status.from_call(error)
    assert status is not None, f"{error.code()}: {error.details()} has no google.rpc.Status"
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for detail in status.details:
        detail.Unpack(info)
        detail.Unpack(bad)
    assert info.domain == "pointsman"
    fields = [each.field for each in bad.field_violations]
    return Refusal(error.code(), info.reason, error.details() or "", dict(info.metadata), fields)


class Disk:
    """A log on disk with a clock that the test sets, written as the server's one writer does."""

    def __init__(self, url: str) -> None:
        self.engine = open_engine(url)
        migrate(self.engine)
        self.reader = LogReader(self.engine)
        self.registry = Registry()
        self.recent = RecentDecisions()
        self.remembers = False
        self.now_us = 1_700_000_000_000_000

    def close(self) -> None:
        self.engine.dispose()

    def write(self, *writes: Write) -> list[Any]:
        """Writes one batch; gives its results."""
        writes = tuple(self._of_router(each) for each in writes)
        with self.engine.begin() as connection:
            results = write_batch(connection, writes, self.now_us, self.registry, self.recent).results
        if self.remembers:
            self.recent.put(each for each in results if isinstance(each, DecisionRecord))
        return results

    def _of_router(self, write: Write) -> Write:
        """The write with its decisions as those of the routers that have their names now."""
        if isinstance(write, DecisionWrite):
            return replace(write, draft=self._owned(write.draft))
        if isinstance(write, ImportWrite):
            return ImportWrite([ImportedRow(self._owned(row.decision), row.report) for row in write.rows])
        return write

    def _owned(self, draft: DecisionRecord) -> DecisionRecord:
        router = self.registry.router(draft.router)
        return replace(draft, router_uid=router.uid if router else 0)

    def one(self, write: Write) -> Any:
        """Writes a batch of one; gives its result or raises its refusal."""
        (result,) = self.write(write)
        if isinstance(result, Exception):
            raise result
        return result

    def change(self, router: str, change: registry_store.Change) -> Any:
        """Changes the registry, on disk and in memory."""
        entry = self.one(Transact(change))
        self.registry.replace(router, entry)
        return entry

    def put_router(self, router: str, spec: RouterSpec, *models: str, **given: ModelSpec) -> None:
        """Creates a router with its models."""
        self.change(router, registry_store.put_router(router, spec, create=True))
        for model, model_spec in {**dict.fromkeys(models, ModelSpec()), **given}.items():
            self.change(router, registry_store.put_model(router, model, model_spec, create=True))

    def decide(self, draft: DecisionRecord, window_us: int = DAY_US) -> DecisionRecord:
        """Appends a decision; gives it as logged."""
        logged: DecisionRecord = self.one(DecisionWrite(draft, window_us))
        return logged

    def report(self, decision: DecisionRecord, **fields: Any) -> Any:
        """Appends a report; gives its disposition."""
        return self.one(ReportWrite(draft_report(decision.decision_id, **fields)))


def draft_decision(
    decision_id: str,
    router: str = "default",
    models: Sequence[str] = ("a", "b"),
    dimensions: int = 8,
    seed: int = 0,
    **fields: Any,
) -> DecisionRecord:
    """A decision between the models, all alike; the seed makes its features and its choice."""
    generator = np.random.default_rng(seed)
    features = generator.normal(size=dimensions + STRUCTURE + HASHED + 1).astype(np.float32)
    features[-1] = 1.0
    share = 1.0 / len(models)
    candidates = tuple(Candidate(each, share, 0.5, 0.001 * (i + 1), 0.0, 0.4) for i, each in enumerate(models))
    chosen = models[int(generator.integers(len(models)))]
    fallbacks = tuple(each for each in models if each != chosen)
    choice = Choice(chosen, share, candidates, fallbacks, "learned", 0, 20.0)
    return DecisionRecord(0, 0, 0, router, decision_id, choice, features, 12.5, 0, 0, **fields)


def imported_row(decision_id: str, request_id: str, router: str = "default", **fields: Any) -> ImportedRow:
    """A decision made elsewhere, and a report on it; `fields` are the report's."""
    draft = draft_decision(decision_id, router, request_id=request_id, seed=int(decision_id, 16))
    choice = replace(draft.choice, policy=IMPORTED)
    return ImportedRow(replace(draft, choice=choice), draft_report(decision_id, **fields))


def draft_report(decision_id: str, **fields: Any) -> ReportRecord:
    """A report, a reward of 1 if nothing else is said."""
    return ReportRecord(0, 0, decision_id, **(fields or {"reward": 1.0}))


def hex_id(number: int) -> str:
    """A decision id for a number."""
    return f"{number:032x}"


def seeded(name: str) -> random.Random:
    """Randomness of a test, whose seed is printed."""
    seed = int(os.environ.get("POINTSMAN_TEST_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 31)
    print(f"{name}: POINTSMAN_TEST_SEED={seed}")
    return random.Random(seed)
