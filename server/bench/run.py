"""The benchmark: fresh servers, each load in turns with its echo, so that a slow moment is one for both."""

from __future__ import annotations

import asyncio
import math
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from server.bench.load import Load, Result
from server.bench.messages import (
    ROWS_A_CALL,
    create_router,
    import_request,
    report_request,
    route_request,
    wait_until_known,
)
from server.bench.processes import Servers, running
from server.garbage import settle_memory

_ROUTE = "/pointsman.v1.RouterService/Route"
_REPORT = "/pointsman.v1.RouterService/ReportReward"
_IMPORT = "/pointsman.v1.RouterService/ImportDecisions"
# More than are taken in this time; else rows that are there already would be sent again.
_CALLS_A_SECOND_MAX = 4
_WARM_UP_SECONDS = 1.0
_TURNS = 5
_DISTINCT_REQUESTS = 500
_REST_TIMES_MAX, _REST_LOOK_SECONDS, _REST_SHARE = 4.0, 0.3, 0.1


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be measured: see the command line. An `open_rate` of 0 is half of the rate found before."""

    seconds: float
    callers: int
    models: int
    prompt_characters: int
    embedding: int
    durability: str
    importing: bool = False
    database_url: str = ""
    processes: int = 1
    learner_process: bool = False
    open_rate: float | None = None


@dataclass(frozen=True, slots=True)
class Setup:
    """Servers on one database, each with a learner in a process of its own if so wanted.

    `limit` is entered with them, and left before they end.
    """

    url: str
    processes: int = 1
    learner_process: bool = False
    limit: Callable[[Servers], AbstractContextManager[None]] = lambda _servers: nullcontext()


@dataclass(frozen=True, slots=True)
class Target:
    """Servers under load, what their results are called after, and the answers that they have given to Route."""

    suffix: str
    servers: Servers
    answers: list[bytes]


async def run_bench(folder: Path, plan: Plan) -> list[Result]:
    """Loads a server on SQLite, and beside it those on the database given. Raises OSError if none starts."""
    setups = {"": Setup(f"sqlite:///{folder / 'bench.db'}")}
    if plan.learner_process:
        setups[", learner process"] = Setup(f"sqlite:///{folder / 'beside.db'}", learner_process=True)
    if plan.database_url:
        suffix = ", database given" if plan.processes == 1 else f", {plan.processes} processes"
        setups[suffix] = Setup(plan.database_url, plan.processes)
    return await compare(setups, plan)


async def compare(
    setups: Mapping[str, Setup],
    plan: Plan,
    more: Callable[[Sequence[Target]], Awaitable[list[Result]]] | None = None,
) -> list[Result]:
    """Loads Route, then ReportReward, then what there is more, of all servers in turns with an echo.

    `setups` are by what their results are called after.
    """
    settle_memory()  # Else the load stands still now and then, and all requests of that moment seem slow.
    router_id = f"bench-{secrets.token_hex(4)}"
    requests = [
        route_request(router_id, plan.prompt_characters, plan.embedding, seed)
        for seed in range(_DISTINCT_REQUESTS)
    ]
    async with AsyncExitStack() as stack:
        targets = []
        for suffix, setup in setups.items():
            servers = await stack.enter_async_context(_served(setup, plan, router_id, requests[0]))
            targets.append(Target(suffix, servers, []))
        for target in targets:
            await Load(target.servers.channels, _ROUTE, requests, target.answers).run(
                plan.callers, _WARM_UP_SECONDS
            )
        answer_bytes = len(targets[0].answers[-1])
        loads = [Load(each.servers.channels, _ROUTE, requests, each.answers) for each in targets]
        results = await side_by_side("Route", loads, targets, answer_bytes, plan)
        loads = [
            Load(each.servers.channels, _REPORT, [report_request(answer) for answer in each.answers])
            for each in targets
        ]
        results += await side_by_side("ReportReward", loads, targets, 2, plan)
        if more is not None:
            results += await more(targets)
        if plan.importing:
            results += await _while_importing(router_id, plan, targets[0].servers, requests)
    return results


@asynccontextmanager
async def _served(setup: Setup, plan: Plan, router_id: str, request: bytes) -> AsyncIterator[Servers]:
    wanted = ("--learner-process",) if setup.learner_process else ()
    command = ("-m", "server.cli.main", "serve", "--port", "0", "--http-port", "off", "--database-url", setup.url)
    # A machine that stands still for a moment is seen in the latencies, and does not end the benchmark.
    settings = {"POINTSMAN_DURABILITY": plan.durability, "POINTSMAN_STORAGE_WAIT_SECONDS": "30"}
    async with running((*command, *wanted), settings, setup.processes) as servers:
        await create_router(servers.channels[0], router_id, plan.models, plan.embedding)
        for channel in servers.channels:
            await wait_until_known(channel, plan.models, request)
        with setup.limit(servers):
            yield servers


async def side_by_side(
    name: str, loads: Sequence[Load], targets: Sequence[Target], answer_bytes: int, plan: Plan
) -> list[Result]:
    """The loads and their echo in turns; then, if so planned, all of them at one rate in an open loop."""
    async with running(("-m", "server.bench.echo", str(answer_bytes))) as echo_server:
        first = loads[0]
        await Load(echo_server.channels, first.method, first.requests).run(plan.callers, _WARM_UP_SECONDS)
        echo = Load(echo_server.channels, first.method, first.requests)
        everyone = [echo_server, *(each.servers for each in targets)]
        # Over the turns of all: what is learned from a request comes after its answer.
        began = [each.processor_seconds() for each in everyone]
        for _ in range(_TURNS):
            for load in (echo, *loads):
                await load.run(plan.callers, plan.seconds / _TURNS)
                await _at_rest(everyone, plan.seconds / _TURNS)
        spent = [_difference(each, before) for each, before in zip(everyone, began, strict=True)]
        results = [echo.result(f"{name}, echo", processor_seconds=spent[0])]
        results += [
            load.result(name + target.suffix, echo, used)
            for load, target, used in zip(loads, targets, spent[1:], strict=True)
        ]
        if plan.open_rate is not None:
            rate = plan.open_rate or min(load.rate for load in loads) / 2
            results += await _open_loop(name, loads, targets, echo_server, rate, plan.seconds)
    return results


async def _at_rest(everyone: Sequence[Servers], loaded_seconds: float) -> None:
    """Waits until all have learned what they were told while they were loaded, four times as long at most: it is
    not another's turn to be slowed down by that.
    """
    for _ in range(math.ceil(_REST_TIMES_MAX * loaded_seconds / _REST_LOOK_SECONDS)):
        before = [each.processor_seconds() for each in everyone]
        await asyncio.sleep(_REST_LOOK_SECONDS)
        spent = [_difference(each, began) or 0.0 for each, began in zip(everyone, before, strict=True)]
        if sum(spent) <= _REST_SHARE * _REST_LOOK_SECONDS:
            return


async def _open_loop(
    name: str, loads: Sequence[Load], targets: Sequence[Target], echo_server: Servers, rate: float, seconds: float
) -> list[Result]:
    echo = Load(echo_server.channels, loads[0].method, loads[0].requests)
    again = [each.again() for each in loads]
    for _ in range(_TURNS):
        for load in (echo, *again):
            await load.run_open(rate, seconds / _TURNS)
            await _at_rest([echo_server, *(each.servers for each in targets)], seconds / _TURNS)
    results = [echo.result(f"{name}, echo, open loop")]
    return results + [
        load.result(f"{name}{target.suffix}, open loop", echo) for load, target in zip(again, targets, strict=True)
    ]


def _difference(servers: Servers, began: float | None) -> float | None:
    now = servers.processor_seconds()
    return None if now is None or began is None else now - began


async def _while_importing(router_id: str, plan: Plan, servers: Servers, requests: list[bytes]) -> list[Result]:
    """The load while one client imports decisions, call after call, and the rows of its calls."""
    calls = range(max(1, round(_CALLS_A_SECOND_MAX * plan.seconds)))
    imports = Load(servers.channels, _IMPORT, [import_request(router_id, plan.models, each) for each in calls])
    load = Load(servers.channels, _ROUTE, requests)
    importing = asyncio.create_task(imports.run(1, plan.seconds))
    await load.run(plan.callers, plan.seconds)
    await importing
    rows = imports.result("ImportDecisions")
    return [
        load.result("Route while importing"),
        replace(rows, requests_per_second=rows.requests_per_second * ROWS_A_CALL),
    ]
