"""A router that is created again under its former id is evaluated by nothing of the one that was deleted."""

from __future__ import annotations

from pointsman.v1 import registry_service_pb2 as registry_pb
from servers import Disk, draft_decision, eventually, hex_id, last_seq, running_app
from test_server_evaluation_loop import EVALUATION, SERVING, evaluated, folded

from policy.domain import ModelError, RewardJoin, RewardRule, RouterSpec
from policy.features import Featuriser
from policy.log import DecisionRecord, Usage
from server.evaluation_fold import EvaluationFold
from server.evaluation_loop import EvaluationLoop
from server.storage import registry_store as store
from server.storage.engine import open_engine
from server.storage.evaluation_store import load_evaluations, put_evaluation
from server.storage.writes import Transact
from server.stored_evaluation import StoredEvaluations
from server.views import CandidateViews

NAME = "routers/support"


def fresh(disk: Disk) -> None:
    rule = RewardRule(missing_reward=0.5, join=RewardJoin.LAST)
    disk.put_router("default", RouterSpec(embedding_dimensions=8, reward_rule=rule), "a", "b")


def recreated(disk: Disk) -> tuple[DecisionRecord, DecisionRecord]:
    """Two decisions of a router that is deleted and created again; the window of the second ends in a second."""
    fresh(disk)
    reported = disk.decide(draft_decision(hex_id(1)))
    closing = disk.decide(draft_decision(hex_id(2)), window_us=1_000_000)
    disk.change("default", store.delete_router("default", None))
    fresh(disk)
    return reported, closing


def continued(disk: Disk, fold: EvaluationFold) -> EvaluationFold:
    """As it goes on, in this process and after a restart: both are the same."""
    saved = [fold.snapshot(each) for each in fold.routers]
    again = EvaluationFold(disk.reader, [each for each in saved if each])
    for each in (fold, again):
        while each.advance(3):
            pass
    assert repr(again.follower("default").results()) == repr(fold.follower("default").results())
    return fold


def test_a_report_on_a_namesakes_decision_before_the_first_new_one_is_passed_over(disk: Disk) -> None:
    old, _ = recreated(disk)
    fold = folded(disk.reader)
    disk.report(old, reward=1.0)
    disk.decide(draft_decision(hex_id(3)))
    assert continued(disk, fold).follower("default").results().decisions == 1


def test_a_window_of_a_namesakes_decision_that_closes_before_the_first_new_one_is_passed_over(disk: Disk) -> None:
    _, old = recreated(disk)
    fold = folded(disk.reader)
    disk.now_us = old.expire_us + 1
    disk.put_router("clock", RouterSpec())
    disk.decide(draft_decision(hex_id(3)))
    results = continued(disk, fold).follower("default").results()
    assert (results.decisions, results.settled, results.abandoned) == (1, 0, 0)


def test_the_guard_and_the_counts_know_nothing_of_what_a_namesakes_calls_came_to(disk: Disk) -> None:
    reported, closing = recreated(disk)
    disk.decide(draft_decision(hex_id(3)))
    disk.report(reported, reward=0.0, usage=Usage(1, 1, 5.0), latency_seconds=9.0)
    disk.report(reported, reward=1.0)
    disk.report(closing, error=ModelError.TIMEOUT)
    disk.now_us = closing.expire_us + 1
    disk.put_router("clock", RouterSpec())
    evaluation = folded(disk.reader).follower("default")
    assert evaluation.results().revised == 0
    assert {each["count"] for each in evaluation._guard.state()["levels"].values()} == {0}


def test_what_was_found_of_a_namesake_is_not_said_of_the_router_that_has_its_name_now(disk: Disk) -> None:
    """Neither by the evaluation that has yet to come to it in the log, nor from what was saved before it."""
    fresh(disk)
    disk.decide(draft_decision(hex_id(1)))
    fold = folded(disk.reader)
    disk.one(Transact(put_evaluation("default", fold.seq, fold.snapshot("default"))))
    saved = StoredEvaluations(disk.engine, disk.registry)
    loop = evaluating(disk, fold)
    assert [each("default").results.decisions for each in (loop.find, saved.find, saved.glance)] == [1, 1, 1]
    disk.change("default", store.delete_router("default", None))
    fresh(disk)
    assert [each("default") for each in (loop.find, saved.find, saved.glance)] == [None, None, None]
    while fold.advance(100):
        pass
    assert loop.find("default").results.decisions == 0


def evaluating(disk: Disk, fold: EvaluationFold) -> EvaluationLoop:
    """One that has come as far as this, and rests."""

    def unheard(*_: object) -> None: ...

    followed = (disk.engine, disk.reader, disk.registry, CandidateViews())
    loop = EvaluationLoop(*followed, unheard, lambda: disk.now_us, unheard, unheard, unheard, 10.0)
    loop._fold = fold
    return loop


async def test_a_server_goes_on_evaluating_all_routers_also_after_a_restart(
    url: str, featuriser: Featuriser
) -> None:
    models = {"a": {}, "b": {}}
    async with running_app(url, featuriser, evaluation_seconds=0.05) as server:
        await server.create_models(a={})
        await server.create_router("support")
        await server.create_models(NAME, **models)
        old = [await server.route(router=NAME, prompt="hello") for _ in range(3)]
        await server.registry.DeleteRouter(registry_pb.DeleteRouterRequest(name=NAME))
        await server.create_router("support")
        await server.create_models(NAME, **models)
        assert (await evaluated(server, "support")).decision_count == 0
        await eventually(lambda: saved_upto(url, last_seq(url, "support")))
        await server.report(old[0], reward=1.0)
        await server.report(await server.route(prompt="hello"), reward=1.0, usage={"cost_usd": 0.001})
        assert (await evaluated(server)).settled_count == 1
        await server.health_is(SERVING, EVALUATION)
    async with running_app(url, featuriser) as server:
        await server.report(old[1], reward=1.0)
        await server.report(await server.route(router=NAME, prompt="hello"), reward=1.0, usage={"cost_usd": 0.001})
        found = await evaluated(server, "support")
        assert (found.decision_count, found.settled_count) == (1, 1)
        await server.health_is(SERVING, EVALUATION)


async def saved_upto(url: str, seq: int) -> bool:
    """Whether every evaluation on disk has come to here."""
    engine = open_engine(url)
    try:
        found = load_evaluations(engine)
        return bool(found) and all(each.seq >= seq for each in found)
    finally:
        engine.dispose()
