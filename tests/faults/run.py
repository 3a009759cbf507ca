"""One run: servers, load, faults, then all checks."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from faults.checks import budget_is_kept, spending, violations
from faults.cluster import Server, ServerSpec
from faults.database import Database
from faults.history import History
from faults.injection import Injector, kinds, plan
from faults.live import all_wrong, eventually, unexpected_errors, unwell
from faults.load import BUDGET_USD, BUDGETED, Load, Stubs
from faults.stored import Follower, Stored, read_all
from server.storage.engine import open_engine

# What the budgeted router may spend: so much of its budget, and that of these many requests on top. Its pacer
# plans with what it has seen, and a server sees the others' spending after half a second, or after a fault.
BUDGET_OVER = 1.1
BUDGET_REQUESTS = 150
_START_SECONDS = 90.0
_DRAIN_SECONDS = 240.0
_QUIET_SECONDS = 1.0


@dataclass(frozen=True)
class Plan:
    """What a run is to be."""

    seed: int
    faults: int
    servers: tuple[ServerSpec, ...]
    clients: int = 8
    brief: bool = False


@dataclass
class Result:
    """What came of it. Nothing is wrong if there are no `violations`."""

    seed: int
    servers: list[str]
    faults: dict[str, int] = field(default_factory=dict)
    starts: int = 0
    calls: int = 0
    acknowledged: int = 0
    failed_calls: dict[str, int] = field(default_factory=dict)
    decisions: int = 0
    reports: int = 0
    rows_followed: int = 0
    budget_used: float = 0.0
    verified: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    violations: list[str] = field(default_factory=list)


async def run(wanted: Plan, database: Database, folder: Path, say: Callable[[str], object]) -> Result:
    """Starts everything, breaks it, mends it, and says what is wrong. Its files are in `folder` afterwards."""
    began = time.monotonic()
    random = Random(wanted.seed)
    result = Result(wanted.seed, [each.name for each in wanted.servers])
    history = History()
    servers = [Server(spec, folder, database) for spec in wanted.servers]
    await asyncio.to_thread(database.start)
    engine = open_engine(database.url())
    follower = Follower(engine)
    try:
        for each in servers:
            await each.start()
        answering = [each for each in servers if each.spec.answers]
        stubs = [Stubs(each.spec.name, each.front.port) for each in answering]
        await _load_and_faults(wanted, servers, stubs, follower, history, random, result, say)
        say("asking the servers")
        stored = await asyncio.to_thread(read_all, engine)
        result.violations += await all_wrong(stubs, stored, history, random)
        for each in stubs:
            await each.channel.close()
        for server in servers:
            await server.stop()
        say("checking the history against the log")
        await asyncio.to_thread(_check, wanted, engine, follower, history, servers, result)
        say("verifying the log")
        await asyncio.to_thread(_verify, database, result)
    finally:
        for server in servers:
            server.abandon()
        engine.dispose()
        history.write(folder / "history.jsonl")
        await asyncio.to_thread(database.stop)
    result.seconds = round(time.monotonic() - began, 1)
    return result


async def _load_and_faults(
    wanted: Plan,
    servers: Sequence[Server],
    stubs: Sequence[Stubs],
    follower: Follower,
    history: History,
    random: Random,
    result: Result,
    say: Callable[[str], object],
) -> None:
    """Ends once the faults are over, the clients have finished, and all is well again."""
    for each in servers:
        if not await eventually(lambda each=each: _listens(each), _START_SECONDS):  # type: ignore[misc]
            raise TimeoutError(f"{each.spec.name} does not start: see {each.log}")
    load = Load(stubs, history, Random(random.random()))
    injector = Injector(servers, servers[0].database, Random(random.random()), say)
    faults = plan(random, kinds(servers[0].database), len(servers), wanted.faults, brief=wanted.brief)
    await load.register()
    ended = asyncio.Event()
    following = asyncio.create_task(follower.run(ended))
    running = asyncio.create_task(load.run(wanted.clients))
    try:
        injecting = asyncio.create_task(injector.run(faults))
        await asyncio.wait([injecting, running], return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            injecting.cancel()
            await running  # Raises what has ended it.
        await injecting
        say("all faults are over")
        await asyncio.sleep(_QUIET_SECONDS)
        load.ending.set()
        await asyncio.wait_for(running, _DRAIN_SECONDS)
        for each in stubs:
            result.violations += await unwell(each)
    finally:
        injector.mend()
        running.cancel()
        ended.set()
        await following
    result.faults = dict(injector.done)


def keep(folder: Path, where: Path) -> None:
    """Copies what a run has left: what servers said, what clients did, and the database if it is a file."""
    where.mkdir(parents=True, exist_ok=True)
    for each in (*folder.glob("*.log"), *folder.glob("*.jsonl"), *folder.glob("*.db*")):
        shutil.copy(each, where)


async def _listens(server: Server) -> bool:
    return server.listens


def _check(
    wanted: Plan, engine: Any, follower: Follower, history: History, servers: Sequence[Server], result: Result
) -> None:
    """What needs no server: the history against the log, and what the servers have said."""
    follower.poll()
    stored: Stored = read_all(engine)
    result.violations += violations(history, stored, follower)
    result.violations += budget_is_kept(stored, BUDGETED, BUDGET_USD, BUDGET_OVER, BUDGET_REQUESTS)
    for each in servers:
        result.violations += [*each.broken, *unexpected_errors(each.log)]
    result.starts = sum(each.starts for each in servers)
    result.calls = len(history.routes) + len(history.reports) + len(history.changes)
    result.acknowledged = history.acknowledged()
    result.failed_calls = history.failures()
    result.decisions, result.reports = len(stored.decisions), len(stored.reports)
    result.rows_followed = len(follower.seen)
    spent_usd, decisions = spending(stored, BUDGETED)
    result.budget_used = round(spent_usd / (decisions * BUDGET_USD), 4) if decisions else 0.0


def _verify(database: Database, result: Result) -> None:
    """The draws and the snapshots, by the command that anyone would use."""
    command = [str(Path(sys.executable).parent / "pointsman"), "verify", "--json"]
    environment = {**os.environ, "POINTSMAN_DATABASE_URL": database.url()}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1) or not done.stdout:
        result.violations.append(f"pointsman verify failed: {done.stderr[-500:]}")
        return
    found = json.loads(done.stdout)
    result.verified = {key: value for key, value in found.items() if key != "examples" and value}
    result.violations += [f"pointsman verify: {each}" for each in found["examples"]]
    if done.returncode and not found["examples"]:
        result.violations.append(f"pointsman verify: {done.stdout[:500]}")
