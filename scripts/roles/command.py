"""Measures what the roles promise: takeover, pick-up of views, one budget on several routers."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any

import click
import numpy as np
from pointsman.v1 import registry_service_pb2 as registry_pb
from pointsman.v1 import router_service_pb2 as pb

from scripts.roles.cluster import LEARNER, Databases, Server, running_postgresql, seconds_until, serving

# Of a model what it costs, in USD, and how good it is.
_MODELS = {"small": (0.0002, 0.55), "middle": (0.001, 0.7), "large": (0.005, 0.85)}
_BUDGET_USD = 0.001
_ROUTER = "routers/default"
_WARM_SHARE = 0.25
_CALLERS = 16


@click.command(name="scripts/benchmark_roles", context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--kills", default=5, show_default=True, help="How often the learner is killed.")
@click.option(
    "--reports", default=30, show_default=True, help="How many reports are watched until they are known."
)
@click.option("--requests", default=4000, show_default=True, help="How many requests share the budget.")
@click.option("--routers", default=4, show_default=True, help="How many routers share it.")
@click.option("--seed", "seeds", multiple=True, default=(1, 2, 3), show_default=True, help="May be repeated.")
@click.option("--json", "as_json", is_flag=True, help="Print only JSON.")
def main(kills: int, reports: int, requests: int, routers: int, seeds: tuple[int, ...], as_json: bool) -> None:
    """Run real servers of every role on a PostgreSQL of their own, and measure: how long after a SIGKILL of the
    learner another learns and a router decides with what that has learned; how long after a report is acknowledged
    another router knows it; and what several routers spend of one budget, beside what one spends: where each has
    the same share of the requests, and where the first has half of them, the second half of the rest, and so on.
    """
    with running_postgresql() as databases:
        found = asyncio.run(_measure(databases, kills, reports, requests, routers, seeds))
    if as_json:
        click.echo(json.dumps(found))
        return
    for name, value in found.items():
        click.echo(f"{name}: {value:.5g}" if isinstance(value, float) else f"{name}: {value}")


async def _measure(
    databases: Databases, kills: int, reports: int, requests: int, routers: int, seeds: Sequence[int]
) -> dict[str, Any]:
    takeovers, views = await _takeovers(databases.new(), kills)
    pickups = await _pickups(databases.new(), reports)
    shares = {
        "one": [1.0],
        f"{routers}": [1.0 / routers] * routers,
        f"{routers}_uneven": [0.5 ** min(each + 1, routers - 1) for each in range(routers)],
    }
    spent = {
        name: [await _spend(databases.new(), share, requests, seed) for seed in seeds]
        for name, share in shares.items()
    }
    return {
        "takeover_seconds": [round(each, 2) for each in takeovers],
        "takeover_seconds_max": max(takeovers),
        "view_after_kill_seconds_max": max(views),
        "pickup_seconds_median": statistics.median(pickups),
        "pickup_seconds_max": max(pickups),
        "requests": requests,
        "budget_usd_per_request": _BUDGET_USD,
        **{f"spend_of_{name}_usd_per_request": [round(usd, 7) for usd in found] for name, found in spent.items()},
        "spend_difference_percent_max": max(
            100.0 * abs(usd / one - 1.0)
            for found in spent.values()
            for usd, one in zip(found, spent["one"], strict=True)
        ),
    }


async def _takeovers(url: str, kills: int) -> tuple[list[float], list[float]]:
    """Seconds from a kill until another learns, and until a router has a view that holds what came after it."""
    async with AsyncExitStack() as stack:
        router = await stack.enter_async_context(serving(url, "router"))
        learners = [await stack.enter_async_context(serving(url, "learner")) for _ in range(2)]
        await _prepare(router)
        takeovers, views = [], []
        for _ in range(kills):
            active = await _active(learners)
            for number in range(50):
                await _round(router, np.random.default_rng(number))
            active.process.kill()
            killed = time.monotonic()
            learners.remove(active)
            known = (await router.registry.GetRouter(registry_pb.GetRouterRequest(name=_ROUTER))).router
            await _round(router, np.random.default_rng(0))
            counted = known.statistics.decision_count

            async def learned(counted: int = counted) -> bool:
                now = (await router.registry.GetRouter(registry_pb.GetRouterRequest(name=_ROUTER))).router
                return bool(now.statistics.decision_count > counted)

            takeovers.append(await seconds_until(lambda: learners[0].serves(LEARNER), killed))
            views.append(await seconds_until(learned, killed))
            learners.append(await stack.enter_async_context(serving(url, "learner")))
    return takeovers, views


async def _pickups(url: str, reports: int) -> list[float]:
    """Seconds from the acknowledgement of a report on one router until another knows it."""
    async with serving(url, "router") as one, serving(url, "router") as other, serving(url, "learner") as learner:
        await _prepare(one)
        await _active([learner])
        await seconds_until(other.serves, time.monotonic())
        found = []
        for number in range(1, reports + 1):
            await _round(one, np.random.default_rng(number))
            told = time.monotonic()

            async def known(number: int = number) -> bool:
                now = (await other.registry.GetRouter(registry_pb.GetRouterRequest(name=_ROUTER))).router
                return bool(now.statistics.reward_count >= number)

            found.append(await seconds_until(known, told))
    return found


async def _spend(url: str, shares: Sequence[float], requests: int, seed: int) -> float:
    """USD for each request that routers spend which have these shares of the requests, after the first quarter."""
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(serving(url, "router")) for _ in shares]
        learner = await stack.enter_async_context(serving(url, "learner"))
        await _prepare(servers[0], _BUDGET_USD)
        await _active([learner])
        for each in servers:
            await seconds_until(each.serves, time.monotonic())
        turns = np.random.default_rng(seed).choice(len(servers), requests, p=shares)
        costs = [0.0] * requests
        numbers = iter(range(requests))

        async def call() -> None:
            for number in numbers:
                costs[number] = await _round(servers[turns[number]], np.random.default_rng([seed, number]))

        await asyncio.gather(*(call() for _ in range(_CALLERS)))
    measured = costs[round(_WARM_SHARE * requests) :]
    return sum(measured) / len(measured)


async def _prepare(server: Server, budget_usd: float | None = None) -> None:
    """Adds the models, and a budget."""
    for name, (cost_usd, _) in _MODELS.items():
        model = registry_pb.Model(prices=registry_pb.Prices(usd_per_request=cost_usd))
        await server.registry.CreateModel(
            registry_pb.CreateModelRequest(parent=_ROUTER, model_id=name, model=model)
        )
    if budget_usd is not None:
        router = registry_pb.Router(
            name=_ROUTER, objective=registry_pb.Objective(budget_usd_per_request=budget_usd)
        )
        await server.registry.UpdateRouter(registry_pb.UpdateRouterRequest(router=router))


async def _active(learners: list[Server]) -> Server:
    """The one that learns, once there is one."""
    found: list[Server] = []

    async def ask() -> bool:
        found[:] = [each for each in learners if await each.serves(LEARNER)]
        return bool(found)

    await seconds_until(ask, time.monotonic())
    return found[0]


async def _round(server: Server, drawn: np.random.Generator) -> float:
    """One decision with its report; gives what it cost, in USD."""
    request = pb.RouteRequest(prompt=f"a question about {drawn.integers(1000)}")
    decision = await server.router.Route(request)
    cost_usd, quality = _MODELS[decision.model]
    cost_usd *= float(drawn.uniform(0.5, 1.5))
    await server.router.ReportReward(
        pb.ReportRewardRequest(
            decision_id=decision.decision_id,
            report_id="r",
            reward=float(np.clip(drawn.normal(quality, 0.2), 0.0, 1.0)),
            usage=pb.Usage(cost_usd=cost_usd),
        )
    )
    return cost_usd
