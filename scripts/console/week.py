"""A week of a router's life, in the time that its server takes for it."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from google.protobuf.duration_pb2 import Duration
from pointsman.v1 import policy_service_pb2 as policy_pb
from pointsman.v1 import policy_service_pb2_grpc as policy_grpc
from pointsman.v1 import registry_service_pb2 as registry_pb
from pointsman.v1 import registry_service_pb2_grpc as registry_grpc
from pointsman.v1 import router_service_pb2 as pb
from pointsman.v1 import router_service_pb2_grpc as router_grpc

from policy.simulation import Outcome
from scripts.console.stream import Request
from server.app import App
from server.clock import LogClock
from server.settings import Settings

ROUTER = "routers/support"

_WEEK_SECONDS = 7 * 86_400
_WINDOW_SECONDS = 6 * 3600
_NEW_MODEL_AT = 0.4
_OUTAGE = (0.68, 0.70)
_BUDGET_FACTOR = 1.2
_MISSING = 0.12
_LATE = 0.03
_EVEN_SHARE = 0.08
_LATENCY_SECONDS = 0.4
_SECONDS_FOR_COST = 90.0
_INPUT_TOKENS, _OUTPUT_TOKENS = 60, 180


class FastClock:
    """The machine's clocks, a week ago at first; `to` lets time pass until a share of the week is over."""

    def __init__(self) -> None:
        self._behind_ns = _WEEK_SECONDS * 1_000_000_000

    def to(self, share: float) -> None:
        self._behind_ns = round(_WEEK_SECONDS * (1.0 - share) * 1e9)

    def log_clock(self) -> LogClock:
        return LogClock(lambda: time.time_ns() - self._behind_ns, lambda: time.monotonic_ns() - self._behind_ns)


@asynccontextmanager
async def lived(
    requests: Sequence[Request], folder: Path, seed: int, on_request: Callable[[], object]
) -> AsyncIterator[tuple[int, str]]:
    """A server that has had the requests in the week up to now; its port for HTTP, and a decision's id."""
    clock = FastClock()
    url = f"sqlite:///{folder / 'pointsman.db'}"
    settings: dict[str, Any] = {
        "port": 0,
        "http_port": 0,
        "durability": "process_crash",
        # By the clock of the week, which is fast: each takes some megabytes.
        "snapshot_seconds": 43_200.0,
        "evaluation_seconds": 43_200.0,
        "storage_wait_seconds": 60.0,
    }
    app = App(Settings(database_url=url, **settings), clock=clock.log_clock())
    try:
        await app.start([])
        async with grpc.aio.insecure_channel(f"127.0.0.1:{app.port}") as channel:
            week = _Week(channel, clock, requests, seed)
            await week.begin()
            decision_id = await week.play(on_request)
            await week.settle()
        yield app.http_port, decision_id
    finally:
        await app.stop()


class _Week:
    def __init__(
        self, channel: grpc.aio.Channel, clock: FastClock, requests: Sequence[Request], seed: int
    ) -> None:
        self._router = router_grpc.RouterServiceStub(channel)
        self._registry = registry_grpc.RegistryServiceStub(channel)
        self._policies = policy_grpc.PolicyServiceStub(channel)
        self._clock = clock
        self._requests = requests
        self._random = np.random.default_rng(seed)
        self._costs = costs = {
            model: np.mean([each.outcomes[model].cost_usd for each in requests]) for model in requests[0].outcomes
        }
        self._models = sorted(costs, key=lambda model: -costs[model])
        self._newcomer = self._models[-2] if len(self._models) > 2 else ""
        self._budget_usd = math.sqrt(costs[self._models[0]] * costs[self._models[-1]]) * _BUDGET_FACTOR
        self._late: list[pb.ReportRewardRequest] = []

    async def begin(self) -> None:
        """A router with a budget, all models but one, and two candidates, of which one serves a little."""
        router = registry_pb.Router(
            display_name="Customer support",
            objective=registry_pb.Objective(budget_usd_per_request=float(f"{self._budget_usd:.1g}")),
            reward_rule=registry_pb.RewardRule(join_window=Duration(seconds=_WINDOW_SECONDS)),
        )
        await self._registry.CreateRouter(registry_pb.CreateRouterRequest(router_id="support", router=router))
        for model in self._models:
            if model != self._newcomer:
                await self._add(model)
        for name, policy in {"greedy": "greedy", "even": "uniform"}.items():
            created = policy_pb.CreatePolicyRequest(
                parent=ROUTER, policy_id=name, policy=policy_pb.Policy(policy=policy), actor="ana"
            )
            await self._policies.CreatePolicy(created)
        canary = policy_pb.PromotePolicyRequest(
            name=f"{ROUTER}/policies/even",
            state=policy_pb.POLICY_STATE_CANARY,
            canary_share=_EVEN_SHARE,
            force=True,
            reason="so that every model stays comparable",
            actor="ana",
        )
        await self._policies.PromotePolicy(canary)

    async def _add(self, model: str) -> None:
        usd = float(f"{self._costs[model] * 1e6 / (_INPUT_TOKENS / 4 + _OUTPUT_TOKENS):.2g}")
        prices = registry_pb.Prices(input_usd_per_million_tokens=usd / 4, output_usd_per_million_tokens=usd)
        request = registry_pb.CreateModelRequest(
            parent=ROUTER, model_id=model, model=registry_pb.Model(prices=prices)
        )
        await self._registry.CreateModel(request)

    async def play(self, on_request: Callable[[], object]) -> str:
        """Sends the requests, more by day than by night; gives the last decision's id."""
        shares = _day_and_night(len(self._requests))
        decision_id, added = "", not self._newcomer
        for share, request in zip(shares, self._requests, strict=True):
            self._clock.to(share)
            if not added and share > _NEW_MODEL_AT:
                await self._add(self._newcomer)
                added = True
            decision_id = await self._one(request, share)
            on_request()
        return decision_id

    async def _one(self, request: Request, share: float) -> str:
        decision = await self._router.Route(
            pb.RouteRequest(router=ROUTER, prompt=request.prompt, incumbent_model=self._models[0])
        )
        for late in self._late[:-40]:
            await self._router.ReportReward(late)
        del self._late[:-40]
        outcome, chance = request.outcomes[decision.model], self._random.random()
        if decision.model == self._models[1 % len(self._models)] and _OUTAGE[0] < share < _OUTAGE[1]:
            error = pb.ReportRewardRequest(decision_id=decision.decision_id, error=pb.MODEL_ERROR_UNAVAILABLE)
            await self._router.ReportReward(error)
        elif chance > _MISSING:
            await self._router.ReportReward(self._report(decision.decision_id, outcome))
        elif chance < _LATE:
            self._late.append(pb.ReportRewardRequest(decision_id=decision.decision_id, reward=outcome.quality))
        return str(decision.decision_id)

    def _report(self, decision_id: str, outcome: Outcome) -> pb.ReportRewardRequest:
        seconds = (_LATENCY_SECONDS + outcome.cost_usd * _SECONDS_FOR_COST) * self._random.lognormal(0.0, 0.25)
        return pb.ReportRewardRequest(
            decision_id=decision_id,
            reward=outcome.quality,
            usage=pb.Usage(cost_usd=outcome.cost_usd, input_tokens=_INPUT_TOKENS, output_tokens=_OUTPUT_TOKENS),
            latency=Duration(nanos=round(min(seconds, 0.999) * 1e9), seconds=0),
        )

    async def settle(self) -> None:
        """Waits until what was sent is learned, counted and evaluated."""
        self._clock.to(1.0)
        while True:
            router = (await self._registry.GetRouter(registry_pb.GetRouterRequest(name=ROUTER))).router
            learned = int(router.statistics.snapshot)
            history = await self._registry.GetHistory(registry_pb.GetHistoryRequest(name=ROUTER))
            evaluation = await self._policies.GetEvaluation(policy_pb.GetEvaluationRequest(router=ROUTER))
            if router.statistics.decision_count == len(self._requests) and learned <= min(
                int(history.history.position), int(evaluation.evaluation.position)
            ):
                return
            await asyncio.sleep(0.5)


def _day_and_night(count: int) -> list[float]:
    """When in the week each request comes, as shares of it: most at midday, few at night."""
    hours = np.linspace(0.0, 7 * 24, 7 * 24 * 4 + 1)
    rate = 1.15 - np.cos(2 * np.pi * (hours + time.gmtime().tm_hour) / 24.0)
    arrived = np.cumsum(rate) / np.sum(rate)
    return [float(each) for each in np.interp((np.arange(count) + 0.5) / count, arrived, hours / (7 * 24))]
