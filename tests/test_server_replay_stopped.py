"""While the log is learned anew for a new policy, who asks for an evaluation has an answer, and a stop ends it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from pointsman.v1 import policy_service_pb2 as pb
from servers import Disk, Running, last_seq, refusal, running_app, seeded
from test_server_evaluation_loop import candidate, create, evaluated, fingerprints, folded, traffic
from test_server_learner_fold import busy_log
from test_server_learner_fold import fingerprints as learned
from test_server_learner_fold import folded as learners
from test_server_promotion import forced

from policy.candidates import CandidateSpec
from policy.domain import LearnerKind
from policy.features import Featuriser
from server import evaluation_fold, learner_fold
from server.evaluation_fold import EvaluationFold
from server.learner_fold import LearnerFold, ReplayStoppedError
from server.storage import policy_store
from server.storage.engine import open_engine
from server.storage.evaluation_store import load_evaluations
from server.storage.policy_store import Cause
from server.storage.reader import LogReader

VOWPAL = CandidateSpec("other", learner=LearnerKind.VOWPAL_WABBIT)


def test_an_evaluation_that_is_stopped_while_a_candidate_learns_can_go_on_from_what_it_had(disk: Disk) -> None:
    busy_log(disk, seeded("stopped evaluation"), LearnerKind.RIDGE, 40)
    disk.change("default", policy_store.create_policy("default", VOWPAL, Cause()))
    busy = [False]
    fold = EvaluationFold(disk.reader, [], lambda: busy[0])
    head = disk.reader.head()
    while fold.seq < head - 1:
        fold.advance(1000, head - 1)
    before, busy[0] = fingerprints(fold), True
    with pytest.raises(ReplayStoppedError):
        fold.advance(1000)
    assert (fold.seq, fingerprints(fold)) == (head - 1, before)
    busy[0] = False
    assert fold.advance(1000) == 1
    assert fingerprints(fold) == fingerprints(folded(disk.reader))


def test_a_learner_that_is_stopped_while_another_kind_learns_begins_again_from_what_was_saved(disk: Disk) -> None:
    busy_log(disk, seeded("stopped learner"), LearnerKind.RIDGE, 40)
    fold = learners(disk, 1000)
    saved = [fold.snapshot(each) for each in fold.routers]
    disk.change("default", policy_store.create_policy("default", VOWPAL, Cause()))
    disk.change("default", policy_store.go_live("default", "other", None, Cause()))
    with pytest.raises(ReplayStoppedError):
        LearnerFold(disk.reader, [each for each in saved if each], lambda: True).advance(1000)
    again = LearnerFold(disk.reader, [each for each in saved if each])
    while again.advance(1000):
        pass
    assert learned(again) == learned(learners(disk, 1000))


@contextmanager
def held(monkeypatch: pytest.MonkeyPatch, module: Any, until: Callable[[], bool]) -> Iterator[threading.Event]:
    """Lets what learns the log from its beginning wait before it begins; the event says that it has come to it."""
    begun, learned_as, moment = threading.Event(), learner_fold.learned_as, threading.Event()

    def learn(*given: Any) -> Any:
        begun.set()
        while not until():
            moment.wait(0.01)
        return learned_as(*given)

    with monkeypatch.context() as patch:
        patch.setattr(module, "learned_as", learn)
        yield begun


async def test_who_asks_for_an_evaluation_need_not_wait_while_a_candidate_learns(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = threading.Event()
    await server.create_models(a={}, b={})
    await traffic(server, seeded("asked"), 10)
    assert (await evaluated(server)).settled_count == 10
    with held(monkeypatch, evaluation_fold, over.is_set) as begun:
        try:
            await create(server, "mine", learner=2)
            await asyncio.to_thread(begun.wait)
            # More than there are threads for what waits.
            asked = [server.policies.GetEvaluation(pb.GetEvaluationRequest()) for _ in range(40)]
            found = [(await each).evaluation for each in asked]
            assert {each.settled_count for each in found} == {10}
            assert "mine" not in {each.candidate for each in found[0].candidates}
        finally:
            over.set()
        assert not candidate(await evaluated(server), "mine").comparator


async def test_what_was_found_before_a_router_was_changed_promotes_nothing(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = threading.Event()
    await server.create_models(a={}, b={})
    await create(server, "earlier", policy="fixed:a")
    await traffic(server, seeded("changed"), 10)
    assert candidate(await evaluated(server), "earlier").HasField("support")
    with held(monkeypatch, evaluation_fold, over.is_set) as begun:
        try:
            await create(server, "mine", learner=2)
            await asyncio.to_thread(begun.wait)
            await server.update_router(policy="fixed:b")
            live = pb.PromotePolicyRequest(
                name="routers/default/policies/earlier", state=pb.POLICY_STATE_LIVE, reason="it is better"
            )
            asked = await refusal(server.policies.PromotePolicy(live))
            assert (asked.code, asked.reason) == (grpc.StatusCode.UNAVAILABLE, "EVALUATION_UNAVAILABLE")
            live.force = True
            assert (await server.policies.PromotePolicy(live)).policy.state == pb.POLICY_STATE_LIVE
        finally:
            over.set()


async def test_who_asks_while_a_page_takes_long_is_told_that_it_is_unavailable(server: Running) -> None:
    """As where one record closes all the windows that ended while no server ran."""
    await server.create_models(a={})
    await evaluated(server)
    assert server.app is not None
    learning = server.app._learning
    with learning._turn.evaluation._lock:
        asked = await refusal(server.policies.GetEvaluation(pb.GetEvaluationRequest()))
        assert (asked.code, asked.reason) == (grpc.StatusCode.UNAVAILABLE, "EVALUATION_UNAVAILABLE")
    assert await asyncio.to_thread(learning.find, "default") is not None


async def test_a_server_stops_in_the_middle_of_what_a_candidate_learns(
    url: str, featuriser: Featuriser, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_app(url, featuriser) as server:
        assert server.app is not None
        loop = server.app._learning._turn.evaluation
        await server.create_models(a={}, b={})
        await traffic(server, seeded("stop"), 10)
        await evaluated(server)
        with held(monkeypatch, evaluation_fold, lambda: loop._stopping) as begun:
            await create(server, "mine", learner=2)
            created = await asyncio.to_thread(last_seq, url, "default")
            await asyncio.to_thread(begun.wait)
            await server.app.stop()
    engine = open_engine(url)
    assert all(each.seq < created for each in load_evaluations(engine))
    engine.dispose()
    async with running_app(url, featuriser) as server:
        assert not candidate(await evaluated(server), "mine").comparator


async def test_a_server_stops_in_the_middle_of_what_another_kind_of_learner_learns(
    url: str, featuriser: Featuriser, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_app(url, featuriser) as server:
        assert server.app is not None
        loop = server.app._learning._turn.learner
        await server.create_models(a={}, b={})
        await traffic(server, seeded("stop"), 10)
        await create(server, "mine", learner=2)
        await server.settled()
        with held(monkeypatch, learner_fold, lambda: loop._stopping) as begun:
            await forced(server, "mine", pb.POLICY_STATE_LIVE)
            promoted = await asyncio.to_thread(last_seq, url, "default")
            await asyncio.to_thread(begun.wait)
            await server.app.stop()
    engine = open_engine(url)
    assert all(each.seq < promoted for each in LogReader(engine).latest_snapshots())
    engine.dispose()
    async with running_app(url, featuriser) as server:
        assert (await server.settled()).statistics.reward_count == 10
