"""Clients that route and report as real ones do, by many calls at once, and write down all that they are told."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from random import Random
from typing import Any

import grpc
from google.protobuf import field_mask_pb2
from grpc_health.v1 import health_pb2_grpc
from pointsman.v1 import registry_service_pb2 as registry_pb
from pointsman.v1 import registry_service_pb2_grpc as registry_grpc
from pointsman.v1 import router_service_pb2 as pb
from pointsman.v1 import router_service_pb2_grpc as router_grpc

from faults.history import Answer, ChangeCall, History, ReportCall, RouteCall

ROUTERS = ("routers/default", "routers/budgeted", "routers/revised")
BUDGETED = "routers/budgeted"
BUDGET_USD = 0.003
# The real cost of a call, and how good its answers are.
MODELS = {"a": (0.001, 0.6), "b": (0.01, 0.8), "c": (0.03, 0.9)}
PRICED = "b"  # Its price changes on the default router.
COMING = "c"  # It comes and goes on the router "revised".

_CALL_SECONDS = 5.0
_PAUSE_SECONDS = 0.25
_GIVE_UP = 0.1
_TRIES_MAX = 60
_PASSING = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.CANCELLED,
}
_CHANNEL = [
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.use_local_subchannel_pool", 1),
]


class Stubs:
    """One server as its clients see it."""

    def __init__(self, name: str, port: int) -> None:
        self.name = name
        self.channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=_CHANNEL)
        self.router: Any = router_grpc.RouterServiceStub(self.channel)
        self.registry: Any = registry_grpc.RegistryServiceStub(self.channel)
        self.health: Any = health_pb2_grpc.HealthStub(self.channel)


def answered(response: pb.RouteResponse) -> Answer:
    """What is kept of an answer."""
    return Answer(
        response.decision_id,
        response.model,
        response.probability,
        {each.model: each.probability for each in response.candidates},
        list(response.fallback_models),
        blake2b(response.SerializeToString(deterministic=True), digest_size=16).hexdigest(),
    )


def price(value: float) -> registry_pb.Model:
    """A model that costs so much a request, in USD."""
    return registry_pb.Model(prices=registry_pb.Prices(usd_per_request=value))


@dataclass
class Load:
    """The clients of a run. They go on until `ending` is set, and finish what they have begun."""

    stubs: Sequence[Stubs]
    history: History
    random: Random
    ending: asyncio.Event = field(default_factory=asyncio.Event)
    _known: list[Answer] = field(default_factory=list)

    async def register(self) -> None:
        """Makes the routers and their models, before anything goes wrong."""
        registry = self.stubs[0].registry
        objective = registry_pb.Objective(budget_usd_per_request=BUDGET_USD)
        rule = registry_pb.RewardRule(join=registry_pb.REWARD_JOIN_LAST)
        for name, fields in (("budgeted", {"objective": objective}), ("revised", {"reward_rule": rule})):
            request = registry_pb.CreateRouterRequest(router_id=name, router=registry_pb.Router(**fields))
            await registry.CreateRouter(request, timeout=30)
        for router in ROUTERS:
            for model in "ab":
                request = registry_pb.CreateModelRequest(
                    parent=router, model_id=model, model=price(MODELS[model][0])
                )
                await registry.CreateModel(request, timeout=30)
        for each in self.stubs:
            async with asyncio.timeout(30):
                while not await self._registered(each):
                    await asyncio.sleep(0.1)

    async def _registered(self, stubs: Stubs) -> bool:
        """Whether the server knows of all that was registered, whichever server was told."""
        for router in ROUTERS:
            request = registry_pb.ListModelsRequest(parent=router)
            try:
                known = (await stubs.registry.ListModels(request, timeout=5)).models
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.NOT_FOUND:
                    raise
                return False
            if len(known) < 2:
                return False
        return True

    async def run(self, clients: int) -> None:
        """All clients, and one that changes the registry. A client's mistake ends the run."""
        async with asyncio.TaskGroup() as group:
            for number in range(clients):
                group.create_task(self._client(f"{number}", Random(self.random.random())))
            group.create_task(self._operator(Random(self.random.random())))

    async def _client(self, name: str, random: Random) -> None:
        number = 0
        while not self.ending.is_set():
            number += 1
            answer = await self._decide(f"{name}-{number}", random)
            if answer is not None:
                await self._tell(answer, random)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.ending.wait(), random.random() * _PAUSE_SECONDS)

    async def _decide(self, request_id: str, random: Random) -> Answer | None:
        """A decision, perhaps asked for again, of another server too; None if the client gives up."""
        session = f"s-{random.randrange(20)}" if random.random() < 0.3 else ""
        request = pb.RouteRequest(
            router=random.choice(ROUTERS),
            request_id=request_id,
            prompt=f"question {random.random()} about {random.choice(('rivers', 'sums', 'law'))}",
            session_id=session,
            defer_activation=random.random() < 0.2,
        )
        answer = None
        for _ in range(random.choice((1, 1, 1, 2))):
            answer = await self._until_answered(lambda stubs: self._route(stubs, request), random) or answer
        if answer is not None:
            self._known = [*self._known[-200:], answer]
        return answer

    async def _tell(self, answer: Answer, random: Random) -> None:
        """What came of it: nothing, one report, some, the same twice; alone or with reports on earlier ones."""
        if random.random() < 0.15:
            await self._until_answered(lambda stubs: self._activate(stubs, answer.decision_id), random)
        kind = random.random()
        if kind < 0.1:
            return
        if kind < 0.2:
            known = random.sample(self._known, min(len(self._known), 5))
            batch = [self._report(each, f"batch-{random.randrange(3)}", random) for each in known]
            await self._until_answered(lambda stubs: self._report_batch(stubs, batch), random)
        for report_id in random.choice((("r",), ("r",), ("r", "r"), ("r", "s"), ("s",))):
            request = self._report(answer, report_id, random)
            send = self._sender(request)
            if random.random() < 0.05:  # At two servers at the same time.
                await asyncio.gather(*(self._until_answered(send, random) for _ in range(2)))
            else:
                await self._until_answered(send, random)

    def _sender(self, request: pb.ReportRewardRequest) -> Callable[[Stubs], Awaitable[bool]]:
        return lambda stubs: self._report_one(stubs, request)

    def _report(self, answer: Answer, report_id: str, random: Random) -> pb.ReportRewardRequest:
        """A report whose content follows from its decision and its id: it is the same whenever it is sent."""
        told = Random(f"{answer.decision_id} {report_id}")
        cost_usd, quality = MODELS[answer.model]
        request = pb.ReportRewardRequest(decision_id=answer.decision_id, report_id=report_id)
        if report_id != "s" or told.random() < 0.8:
            request.reward = min(1.0, max(0.0, told.gauss(quality, 0.2)))
        if report_id != "batch-0":
            request.usage.cost_usd = cost_usd * told.uniform(0.5, 1.5)
        else:
            request.latency.FromMilliseconds(told.randrange(1, 5000))
        return request

    async def _until_answered(self, ask: Callable[[Stubs], Awaitable[Any]], random: Random) -> Any:
        """Asks one server after the other until one answers, or the client gives up; then None."""
        for number in range(_TRIES_MAX):
            result = await ask(random.choice(self.stubs))
            if result:
                return result
            if random.random() < _GIVE_UP and number > 1:
                return None
            await asyncio.sleep(min(2.0, 0.05 * 2**number) * (0.5 + random.random()))
        return None

    async def _route(self, stubs: Stubs, request: pb.RouteRequest) -> Answer | None:
        call = RouteCall(
            *(request.router, request.request_id, request.session_id, request.defer_activation, stubs.name),
            began=self.history.now(),
        )
        self.history.routes.append(call)
        response = await self._call(stubs.router.Route, request, call)
        call.ended = self.history.now()
        call.answer = answered(response) if response is not None else None
        return call.answer

    async def _report_one(self, stubs: Stubs, request: pb.ReportRewardRequest) -> bool:
        call = self._written_down(stubs, request)
        response = await self._call(stubs.router.ReportReward, request, call)
        if response is not None:
            call.disposition = pb.Disposition.Name(response.disposition).removeprefix("DISPOSITION_")
        call.ended = self.history.now()
        return bool(call.disposition)

    async def _report_batch(self, stubs: Stubs, requests: Sequence[pb.ReportRewardRequest]) -> bool:
        calls = [self._written_down(stubs, each) for each in requests]
        whole = pb.BatchReportRewardsRequest(requests=requests)
        response = await self._call(stubs.router.BatchReportRewards, whole, *calls)
        for index, call in enumerate(calls):
            call.ended = self.history.now()
            if response is None:
                continue
            result = response.results[index]
            if result.code:
                call.error = result.reason
                if result.reason not in ("STORAGE_UNAVAILABLE", "QUEUE_FULL"):
                    self.history.unexpected.append(f"{call.key} in a batch: {result.reason}: {result.message}")
            else:
                call.disposition = pb.Disposition.Name(result.disposition).removeprefix("DISPOSITION_")
        return all(call.disposition for call in calls)

    async def _activate(self, stubs: Stubs, decision_id: str) -> bool:
        call = ReportCall(decision_id, "", None, None, stubs.name, began=self.history.now())
        self.history.reports.append(call)
        request = pb.ActivateDecisionRequest(decision_id=decision_id)
        response = await self._call(stubs.router.ActivateDecision, request, call)
        if response is not None:
            call.disposition = pb.Disposition.Name(response.disposition).removeprefix("DISPOSITION_")
        call.ended = self.history.now()
        return bool(call.disposition)

    def _written_down(self, stubs: Stubs, request: pb.ReportRewardRequest) -> ReportCall:
        reward = request.reward if request.HasField("reward") else None
        cost_usd = request.usage.cost_usd if request.HasField("usage") else None
        call = ReportCall(
            *(request.decision_id, request.report_id, reward, cost_usd, stubs.name), began=self.history.now()
        )
        self.history.reports.append(call)
        return call

    async def _operator(self, random: Random) -> None:
        """Changes a price, and adds and removes a model; not again if it is not answered."""
        while not self.ending.is_set():
            if random.random() < 0.5:
                await self._change(random, ROUTERS[0], PRICED, random.uniform(0.005, 0.02))
            else:
                await self._change(random, ROUTERS[2], COMING, random.choice((None, MODELS[COMING][0])))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.ending.wait(), 0.5 + 2.0 * random.random())

    async def _change(self, random: Random, router: str, model: str, value: float | None) -> None:
        stubs = random.choice(self.stubs)
        call = ChangeCall(router, model, value, stubs.name, began=self.history.now())
        self.history.changes.append(call)
        name = f"{router}/models/{model}"
        ask, request = stubs.registry.DeleteModel, registry_pb.DeleteModelRequest(name=name)
        if value is not None and model == PRICED:
            message = price(value)
            message.name = name
            mask = field_mask_pb2.FieldMask(paths=["prices"])
            ask = stubs.registry.UpdateModel
            request = registry_pb.UpdateModelRequest(model=message, update_mask=mask)
        elif value is not None:
            ask = stubs.registry.CreateModel
            request = registry_pb.CreateModelRequest(parent=router, model_id=model, model=price(value))
        # It may be there, or gone, already.
        refused = {grpc.StatusCode.ALREADY_EXISTS, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.ABORTED}
        await self._call(ask, request, call, refused=refused)
        call.ended = self.history.now()

    async def _call(
        self, ask: Any, request: Any, *calls: Any, refused: frozenset[Any] | set[Any] = frozenset()
    ) -> Any:
        """The response, None if it failed; a failure that no fault explains is written down as such."""
        try:
            return await ask(request, timeout=_CALL_SECONDS)
        except grpc.aio.AioRpcError as error:
            for call in calls:
                call.error = error.code().name
            if error.code() not in _PASSING | refused:
                what = type(request).__name__
                self.history.unexpected.append(f"{what} failed with {error.code().name}: {error.details()}")
            return None
