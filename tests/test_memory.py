"""Routers, models and keys that come and go leave nothing behind in a server's memory."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import Collection
from itertools import chain
from urllib.request import urlopen

import grpc
import pytest
from pointsman.v1 import policy_service_pb2 as policy_pb
from pointsman.v1 import registry_service_pb2 as registry_pb
from servers import Running, eventually, running_app

from policy.circuit import PROBE_US
from policy.domain import Router, RouterSpec
from policy.features import Featuriser
from server.admission import Admission
from server.errors import LimitExceededError
from server.keys import ApiKey, Scope
from server.probes import Probes
from server.storage.tail import LogPage, LogTail
from server.views import Views

ROUTERS = 6
LAST = 100
# A look at all objects stops every other thread: between two looks the learner and the evaluation have their turn.
PAUSE_SECONDS = 0.5
# The last records of the log are remembered, up to so many, whosever they are.
OF_THE_LOG = {
    *("DecisionRecord", "ReportRecord", "RegistryRecord", "PolicyRecord", "LogPage", "Choice", "Candidate"),
    "Subject",
}


def held() -> Counter[str]:
    """How many objects of our own classes there are, by class."""
    gc.collect()
    # One call, in which no other thread has its turn: while anybody else holds a tuple that a thread is still
    # filling from a generator, its next step fails with a SystemError.
    kinds = list(map(type, chain.from_iterable(map(gc.get_objects, [None]))))
    return Counter(
        kind.__qualname__ for kind in kinds if str(kind.__module__).split(".")[0] in ("policy", "server")
    )


async def scrape_has(server: Running, text: str) -> bool:
    """Whether it stands in the metrics."""
    assert server.app is not None
    address = f"http://127.0.0.1:{server.app.metrics_port}/metrics"
    return text.encode() in await asyncio.to_thread(lambda: urlopen(address).read())


def more_of(after: Counter[str], before: Counter[str], least: int) -> dict[str, int]:
    """The classes of which there are at least so many more."""
    return {kind: more for kind, more in (after - before).items() if more >= least}


async def held_at_rest(server: Running, least: int) -> Counter[str]:
    """What is held once the evaluation has come to the router that stays, and what is gone is let go of."""
    await eventually(lambda: scrape_has(server, 'pointsman_evaluation_pending_decisions{router="default"}'))
    last = held()

    async def rests() -> bool:
        nonlocal last
        await asyncio.sleep(PAUSE_SECONDS)
        before, last = last, held()
        return not more_of(last, before, least) and not more_of(before, last, least)

    await eventually(rests)
    return last


async def held_again(before: Counter[str], least: int, but: Collection[str] = ()) -> None:
    """Returns once there is no more than before. Fails with what there is too much of."""
    grown: dict[str, int] = {}

    async def nothing_more() -> bool:
        nonlocal grown
        await asyncio.sleep(PAUSE_SECONDS)
        grown = {kind: more for kind, more in more_of(held(), before, least).items() if kind not in but}
        return not grown

    try:
        await eventually(nothing_more)
    except TimeoutError:
        pytest.fail(f"held for good: {grown}")


async def come_and_go(server: Running, names: range) -> None:
    """Routers are made, used, learned of, evaluated, scraped, and deleted."""
    made = [await server.create_router(f"r{each}") for each in names]
    for name in made:
        await server.create_models(name, a={}, b={})
        candidate = policy_pb.Policy(policy="learned")
        await server.policies.CreatePolicy(
            policy_pb.CreatePolicyRequest(parent=name, policy_id="even", policy=candidate)
        )
        await server.report(await server.route(router=name), reward=1.0)
    for name in made:
        await server.settled(name)
        request = policy_pb.GetEvaluationRequest(router=name)

        async def evaluated(request: policy_pb.GetEvaluationRequest = request) -> bool:
            try:
                return bool((await server.policies.GetEvaluation(request)).evaluation.ByteSize())
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
                return False  # The evaluation has yet to come to it.

        await eventually(evaluated)
    await scrape_has(server, "")
    for name in made:
        await server.registry.DeleteRouter(registry_pb.DeleteRouterRequest(name=name))


async def test_of_routers_that_are_gone_nothing_is_held(url: str, featuriser: Featuriser) -> None:
    settings = {"metrics_port": 0, "evaluation_seconds": 0.05, "snapshot_seconds": 0.05}
    async with running_app(url, featuriser, **settings) as server:
        await server.create_models(a={}, b={})
        await come_and_go(server, range(ROUTERS))
        before = await held_at_rest(server, ROUTERS)
        await come_and_go(server, range(ROUTERS, 4 * ROUTERS))
        await held_again(before, ROUTERS, but=OF_THE_LOG)


def test_blank_views_of_routers_that_the_learner_never_sees_are_bounded() -> None:
    views = Views()
    before = held()["PolicyView"]
    for each in range(500):
        views.get(Router(f"r{each}", RouterSpec(), (), each))
    assert held()["PolicyView"] - before <= 100


def test_keys_that_are_not_used_any_more_are_forgotten_and_those_in_use_are_not() -> None:
    seconds = [0.0]
    admission = Admission(lambda: seconds[0])
    before = held()["_Use"]
    slow = limited("slow", requests_per_second=0.001, burst=1)
    busy = limited("busy", concurrent_max=1)
    with admission.request(busy), admission.request(slow):
        for each in range(2000):
            with admission.request(limited(f"k{each}", requests_per_second=10.0)):
                seconds[0] += 0.2
        assert held()["_Use"] - before <= 200
        for key in (slow, busy):
            with pytest.raises(LimitExceededError), admission.request(key):
                pass


def limited(key_id: str, **limits: float) -> ApiKey:
    return ApiKey(key_id, "", b"", frozenset(Scope), 0, **limits)


def test_probes_of_routers_that_are_gone_are_forgotten_when_their_time_is_over() -> None:
    probes = Probes()
    before = held()["Probe"]
    for each in range(1000):
        probes.begin(each, "a#1", each * PROBE_US // 10)
    assert held()["Probe"] - before <= 20


def test_pages_without_records_do_not_pile_up_where_nobody_takes_them() -> None:
    tail = LogTail()
    before = held()["LogPage"]
    for each in range(20_000):
        tail.put(LogPage(each, [], each + 1))
    assert held()["LogPage"] - before <= 10_000
    page = tail.take(19_000, 1000)
    assert page is not None
    assert page.upto == 20_000


async def test_requests_leave_nothing_behind_but_the_last_ones(
    url: str, featuriser: Featuriser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.learner_fold._RECENT_DECISIONS", LAST)
    monkeypatch.setattr("server.storage.tail._SIZE_MAX", LAST)
    monkeypatch.setattr("server.storage.recent._KEPT", LAST)
    settings = {"metrics_port": 0, "evaluation_seconds": 0.05, "snapshot_seconds": 0.05}
    async with running_app(url, featuriser, **settings) as server:
        await server.create_models(a={}, b={})
        await server.update_router(policy="uniform")

        async def ask(number: int) -> None:
            decision = await server.route(prompt=f"question {number}", session_id="s", request_id=f"r{number}")
            await server.report(decision, reward=0.5, usage={"input_tokens": 9, "output_tokens": 9})

        async def ask_all(numbers: range) -> None:
            for start in numbers[::20]:
                await asyncio.gather(*(ask(each) for each in range(start, start + 20)))
            await server.settled()

        await ask_all(range(3 * LAST))
        before = await held_at_rest(server, LAST)
        await ask_all(range(3 * LAST, 10 * LAST))
        await held_again(before, LAST)
