"""The evaluation at work: what it finds, that a kill changes no number of it, and how it says that it is dead."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from random import Random
from typing import Any

import grpc
import pytest
from engines import BOTH_ENGINES
from grpc_health.v1 import health_pb2
from pointsman.v1 import policy_service_pb2 as pb
from servers import (
    Disk,
    Running,
    draft_decision,
    draft_report,
    eventually,
    hex_id,
    last_seq,
    refusal,
    running_app,
    seeded,
    serving_process,
)
from test_server_learner_fold import busy_log

import policy.evaluation
from policy.candidates import CandidateSpec
from policy.domain import LearnerKind, ModelSpec, Objective, Prices, RouterSpec
from policy.evaluation import Evaluation
from policy.features import Featuriser
from server.evaluation_fold import EvaluationFold
from server.services.evaluations import evaluation_to_proto, results_from_proto
from server.storage import policy_store, registry_store
from server.storage.engine import open_engine
from server.storage.evaluation_store import load_evaluations
from server.storage.policy_store import Cause
from server.storage.reader import LogReader
from server.storage.writes import DecisionWrite, ReportWrite

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
EVALUATION = "pointsman.v1.evaluation"
LIVE_POLICY = "pointsman.v1.live_policy"
LEARNING = (
    CandidateSpec("other-learner", learner=LearnerKind.VOWPAL_WABBIT),
    CandidateSpec("frugal", objective=Objective(budget_usd_per_request=0.0005)),
)


async def create(server: Running, policy_id: str, **policy: Any) -> pb.Policy:
    request = pb.CreatePolicyRequest(policy_id=policy_id, policy=pb.Policy(**policy))
    return (await server.policies.CreatePolicy(request)).policy


async def evaluated(server: Running, router: str = "default") -> pb.Evaluation:
    """The league once the evaluation has followed every record of the router that is in the log now."""
    last = await asyncio.to_thread(last_seq, server.url, router)

    async def found() -> pb.Evaluation | None:
        try:
            request = pb.GetEvaluationRequest(router=f"routers/{router}")
            evaluation = (await server.policies.GetEvaluation(request)).evaluation
        except grpc.aio.AioRpcError as error:
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            return None
        return evaluation if int(evaluation.position) >= last else None

    return await eventually(found)


def candidate(evaluation: pb.Evaluation, name: str) -> pb.CandidateEvaluation:
    return next(each for each in evaluation.candidates if each.candidate == name)


async def traffic(server: Running, random: Random, count: int, **reward_of: float) -> None:
    """Decisions, each with a reward that depends on the model, and its usage."""
    for number in range(count):
        made = await server.route(prompt=f"question {number % 7}")
        reward = reward_of.get(made.model, 0.5) > random.random()
        await server.report(made, reward=float(reward), usage={"cost_usd": 0.0001})


async def test_candidates_and_every_model_alone_are_evaluated_on_the_live_log(server: Running) -> None:
    await server.create_models(a={}, b={})
    await server.update_router(policy="uniform")
    await create(server, "always-b", policy="fixed:b")
    await traffic(server, seeded("live"), 120, a=0.2, b=0.9)
    found = await evaluated(server)
    assert (found.decision_count, found.settled_count, found.pending_count) == (120, 120, 0)
    assert {each.candidate for each in found.candidates} == {
        *("always-b", "fixed:a", "fixed:b", "cheapest", "dearest", "uniform"),
    }
    mine, alone = candidate(found, "always-b"), candidate(found, "fixed:b")
    assert (mine.comparator, alone.comparator) == (False, True)
    assert mine.estimates == alone.estimates
    quality = {each.metric: each for each in mine.estimates}[pb.METRIC_QUALITY]
    assert quality.dr.candidate.value == pytest.approx(0.9, abs=0.15)
    assert quality.dr.difference.value > 0.2
    assert mine.support.event_count == 120
    gain = next(each for each in mine.sequences if each.metric == pb.METRIC_UTILITY)
    assert gain.interval.low > 0.0
    assert mine.verdict.outcome == pb.VERDICT_OUTCOME_UNDECIDED
    assert any(each.startswith("errors: ") for each in mine.verdict.reasons)
    assert found.router == "routers/default"
    assert int(found.since_position) < int(found.position)


async def test_a_candidate_begins_where_it_was_created_and_ends_where_it_was_retired(server: Running) -> None:
    await server.create_models(a={}, b={})
    random = seeded("begin")
    await traffic(server, random, 10)
    created = await create(server, "late", policy="uniform")
    await traffic(server, random, 20)
    found = await evaluated(server)
    assert candidate(found, "late").support.event_count == 20
    assert candidate(found, "uniform").support.event_count == 30
    await server.policies.RetirePolicy(pb.RetirePolicyRequest(name=created.name))
    found = await evaluated(server)
    assert "late" not in {each.candidate for each in found.candidates}
    assert found.settled_count == 30


async def test_another_live_policy_begins_anew(server: Running) -> None:
    await server.create_models(a={}, b={})
    random = seeded("anew")
    await create(server, "mine", learner=2)
    await traffic(server, random, 10)
    before = await evaluated(server)
    await server.update_router(display_name="nothing that matters")
    assert (await evaluated(server)).settled_count == 10
    await server.update_router(policy="uniform")
    after = await evaluated(server)
    assert (before.settled_count, after.settled_count, after.decision_count) == (10, 0, 0)
    assert int(after.since_position) > int(before.since_position)
    await traffic(server, random, 5)
    assert candidate(await evaluated(server), "mine").support.event_count == 5


async def test_a_router_that_is_not_there_has_no_evaluation(server: Running) -> None:
    refused = await refusal(server.policies.GetEvaluation(pb.GetEvaluationRequest(router="routers/none")))
    assert (refused.code, refused.reason) == (grpc.StatusCode.NOT_FOUND, "ROUTER_NOT_FOUND")


async def test_the_league_survives_the_wire_to_the_last_bit(server: Running) -> None:
    await server.create_models(a={}, b={})
    await create(server, "mine", policy="greedy")
    await traffic(server, seeded("wire"), 20, a=0.1, b=0.9)
    message = await evaluated(server)
    assert server.app is not None
    found = server.app._learning.find("default")
    back = results_from_proto(message)
    assert repr(back.candidates) == repr(
        tuple(each for each in results_from_proto(evaluation_to_proto("default", found)).candidates)
    )
    table = {each.id: each for each in found.results.table()}
    for each in back.candidates:
        original = table[each.id]
        assert repr((each.estimates, each.sequences)) == repr((original.estimates, original.sequences))
        assert (each.support, each.verdict) == (original.support, original.verdict)


async def test_an_evaluation_that_dies_says_so_by_its_health_and_routing_goes_on(
    server: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def die(*_: object) -> None:
        raise ZeroDivisionError("a fault in the evaluation")

    await server.create_models(a={})
    await server.health_is(SERVING, EVALUATION)
    monkeypatch.setattr(Evaluation, "on_decision", die)
    with caplog.at_level(logging.ERROR):
        await server.route(prompt="hello")
        await server.health_is(NOT_SERVING, EVALUATION)
    assert "a fault in the evaluation" in caplog.text
    assert (await server.route(prompt="hello")).model == "a"
    await server.settled()
    await server.health_is(SERVING)
    refused = await refusal(server.policies.GetEvaluation(pb.GetEvaluationRequest()))
    assert (refused.code, refused.reason) == (grpc.StatusCode.UNAVAILABLE, "EVALUATION_UNAVAILABLE")


async def test_a_live_policy_that_is_worse_than_a_model_alone_raises_an_alarm_until_it_is_not(
    server: Running, caplog: pytest.LogCaptureFixture
) -> None:
    await server.create_models(good={}, bad={})
    await server.update_router(policy="uniform")
    await server.health_is(SERVING, LIVE_POLICY)
    with caplog.at_level(logging.WARNING):
        await traffic(server, seeded("alarm"), 200, good=1.0, bad=0.0)
        await server.health_is(NOT_SERVING, LIVE_POLICY)
        assert (await evaluated(server)).live_policy_worse_than == "fixed:good"
        await server.update_router(policy="fixed:good")
        await server.health_is(SERVING, LIVE_POLICY)
    said = [each.getMessage() for each in caplog.records if "is worse than" in each.getMessage()]
    assert said == ["the live policy of routers/default is worse than fixed:good, with confidence"]
    assert (await evaluated(server)).live_policy_worse_than == ""


def fingerprints(fold: EvaluationFold) -> dict[str, str]:
    """Every number to the last bit. Not the states: Vowpal Wabbit's has bytes that mean nothing."""
    return {router: f"{fold.since_seq(router)} {fold.follower(router).results()!r}" for router in fold.routers}


def folded(reader: LogReader, page: int = 1000) -> EvaluationFold:
    fold = EvaluationFold(reader, [])
    while fold.advance(page):
        pass
    return fold


def test_pages_of_any_size_and_restarts_anywhere_give_the_same_numbers(disk: Disk) -> None:
    random = seeded("evaluation fold")
    busy_log(disk, random, LearnerKind.RIDGE, 60)
    for spec in LEARNING:
        disk.change("default", policy_store.create_policy("default", spec, Cause()))
    disk.change("other", policy_store.create_policy("other", CandidateSpec("mine", policy="greedy"), Cause()))
    more_log(disk, random, 100, 60)
    disk.change("default", policy_store.retire_policy("default", "frugal", None, Cause()))
    more_log(disk, random, 200, 60)
    disk.change("other", registry_store.put_router("other", RouterSpec(embedding_dimensions=8), create=False))
    more_log(disk, random, 300, 30)
    whole = fingerprints(folded(disk.reader))
    assert set(whole) == {"default", "other"}
    assert fingerprints(folded(disk.reader, 7)) == whole
    fold, restarts = EvaluationFold(disk.reader, []), 0
    while fold.advance(random.randrange(1, 40)):
        if random.random() < 0.3:
            saved = [fold.snapshot(each) for each in fold.routers]
            fold, restarts = EvaluationFold(disk.reader, [each for each in saved if each]), restarts + 1
    assert restarts > 0
    assert fingerprints(fold) == whole


def test_a_price_whose_calls_cost_nothing_in_a_float_does_not_bar_the_way_back(disk: Disk) -> None:
    disk.put_router(
        "default", RouterSpec(embedding_dimensions=8), a=ModelSpec(prices=Prices(5e-324)), b=ModelSpec()
    )
    more_log(disk, seeded("tiny"), 0, 20, ("default",))
    fold = folded(disk.reader)
    saved = fold.snapshot("default")
    assert saved is not None
    assert fingerprints(EvaluationFold(disk.reader, [saved])) == fingerprints(fold)


def more_log(
    disk: Disk, random: Random, first: int, decisions: int, routers: Sequence[str] = ("default", "other")
) -> None:
    for number in range(first, first + decisions):
        disk.now_us += random.randrange(0, 5000)
        router = random.choice(routers)
        disk.write(
            DecisionWrite(draft_decision(hex_id(number), router, seed=number), random.choice((500, 20_000)))
        )
        if random.random() < 0.8:
            earlier = hex_id(max(first, number - random.randrange(4)))
            disk.write(ReportWrite(draft_report(earlier, reward=random.random())))


def test_a_state_of_another_version_is_passed_over_and_the_log_evaluated_again(
    url: str, featuriser: Featuriser, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def once(count: int) -> pb.Evaluation:
        async with running_app(url, featuriser) as server:
            if count:
                await server.create_models(a={}, b={})
                await traffic(server, seeded("version"), count)
            return await evaluated(server)

    before = asyncio.run(once(5))
    monkeypatch.setattr(policy.evaluation, "STATE_VERSION", policy.evaluation.STATE_VERSION + 1)
    after = asyncio.run(once(0))
    assert "the whole log is evaluated again" in caplog.text
    assert after.candidates == before.candidates


@BOTH_ENGINES
@pytest.mark.slow
def test_a_server_killed_in_the_middle_of_an_evaluation_changes_no_number(url: str) -> None:
    """Killed with SIGKILL three times, while it saves all the time; an uninterrupted fold is the measure."""
    random = seeded("kill")
    environment = {"POINTSMAN_SNAPSHOT_SECONDS": "0.1", "POINTSMAN_EVALUATION_SECONDS": "0.05"}

    async def life(port: int, number: int) -> pb.Evaluation | None:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            server = Running(url, "", channel)
            if number == 0:
                await server.create_models(a={}, b={})
                await create(server, "mine", policy="greedy", learner=2)
            if number == 3:
                return await evaluated(server)
            if number == 1:
                await create(server, "second", objective={"budget_usd_per_request": 0.001})
            await traffic(server, random, 60, a=0.3, b=0.6)
            return None

    saved: list[int] = []
    last: pb.Evaluation | None = None
    for number in range(4):
        with serving_process("--database-url", url, **environment) as (process, port):
            last = asyncio.run(life(port, number))
            if number < 3:
                asyncio.run(eventually(lambda: saves_after(url, max(saved, default=0))))
                process.kill()
                process.wait()
        engine = open_engine(url)
        saved.append(max((each.seq for each in load_evaluations(engine)), default=0))
        engine.dispose()
    assert 0 < saved[0] < saved[1] < saved[2], "each life must have gone on from a saved state"
    engine = open_engine(url)
    uninterrupted = folded(LogReader(engine))
    engine.dispose()
    results = uninterrupted.follower("default").results()
    assert last is not None
    assert (last.settled_count, results.settled) == (180, 180)
    table = {each.id: each for each in results.table()}
    assert {"mine", "second"} < set(table)
    for each in results_from_proto(last).candidates:
        original = table[each.id]
        assert repr((each.estimates, each.sequences)) == repr((original.estimates, original.sequences))


async def saves_after(url: str, seq: int) -> bool:
    engine = open_engine(url)
    try:
        return any(each.seq > seq for each in load_evaluations(engine))
    finally:
        engine.dispose()
