"""Reports over gRPC: several on one decision, other models that served, batches, rewards by the router's rule."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from pointsman.v1 import router_service_pb2 as pb
from servers import Running, eventually, refusal

BRIEF = {"join_window": {"nanos": 1000}}


@pytest.fixture
async def server(server: Running) -> Running:
    await server.create_models(a={"prices": (1.0, 2.0, 0.0)}, b={"prices": (0.0, 0.0, 0.5)})
    return server


async def route_to(server: Running, model: str, **fields: Any) -> pb.RouteResponse:
    return await server.route(prompt="hello", constraints={"allowed_models": [model]}, **fields)


async def test_several_reports_on_one_decision_are_joined(server: Running) -> None:
    answer = await route_to(server, "a")
    event_time = Timestamp(seconds=1_700_000_000, nanos=123_000)
    usage = {"input_tokens": 1000, "output_tokens": 500}
    await server.report(answer, report_id="usage", usage=usage, latency={"seconds": 1, "nanos": 500_000_000})
    await server.report(answer, report_id="thumbs", reward=0.75, event_time=event_time)
    await server.report(answer, report_id="second", reward=0.0, signals={"clicks": 3.0})
    decision = await server.decision(answer)
    assert decision.reward == 0.75
    assert decision.cost_usd == pytest.approx(0.002)
    reports = [each.report for each in decision.reports]
    assert [each.report_id for each in reports] == ["usage", "thumbs", "second"]
    assert reports[0].usage == pb.Usage(**usage)
    assert reports[0].latency.ToNanoseconds() == 1_500_000_000
    assert reports[1].event_time == event_time
    assert dict(reports[2].signals) == {"clicks": 3.0}
    assert not reports[0].HasField("reward")
    assert reports[2].HasField("reward")
    statistics = (await server.settled()).statistics
    assert (statistics.reward_count, statistics.spent_usd) == (1, pytest.approx(0.002))
    model = (await server.get_model("a")).statistics
    assert (model.mean_reward, model.mean_latency_seconds) == (0.75, 1.5)
    assert model.mean_cost_usd == pytest.approx(0.002)


async def test_every_calls_usage_is_charged(server: Running) -> None:
    answer = await route_to(server, "a")
    await server.report(answer, usage={"cost_usd": 0.25}, error="MODEL_ERROR_TIMEOUT")
    await server.report(answer, usage={"cost_usd": 0.5}, served_model="b", reward=1.0)
    assert (await server.decision(answer)).cost_usd == 0.75
    assert (await server.settled()).statistics.spent_usd == 0.75


async def test_a_report_arriving_twice_changes_nothing(server: Running) -> None:
    answer = await route_to(server, "a")
    given = {"report_id": "once", "reward": 0.25, "usage": {"cost_usd": 0.5}}
    assert await server.report(answer, **given) == pb.DISPOSITION_RECORDED
    for reward in (0.25, 1.0):
        assert await server.report(answer, **{**given, "reward": reward}) == pb.DISPOSITION_DUPLICATE
    decision = await server.decision(answer)
    assert (decision.reward, decision.cost_usd, len(decision.reports)) == (0.25, 0.5, 1)


@pytest.mark.parametrize("name", ["b", "routers/default/models/b"])
async def test_a_reward_teaches_about_the_model_that_served(server: Running, name: str) -> None:
    answer = await route_to(server, "a")
    await server.report(answer, reward=0.75, served_model=name)
    await server.settled()
    chosen, served = (await server.get_model("a")).statistics, (await server.get_model("b")).statistics
    assert (chosen.reward_count, served.reward_count, served.mean_reward) == (0, 1, 0.75)
    assert (chosen.decision_count, served.decision_count) == (1, 0)


async def test_a_served_model_of_another_router_is_not_found(server: Running) -> None:
    name = await server.create_router("other")
    await server.create_models(name, b={})
    answer = await route_to(server, "a")
    found = await refusal(server.report(answer, reward=0.75, served_model=f"{name}/models/b"))
    assert (found.code, found.reason) == (grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND")
    assert (await server.decision(answer)).reports == []


async def test_usage_without_a_number_does_not_settle_the_cost(server: Running) -> None:
    answer = await route_to(server, "a")
    await server.report(answer, usage={}, reward=1.0)
    assert not (await server.decision(answer)).HasField("cost_usd")
    await server.report(answer, usage={"input_tokens": 1000, "output_tokens": 500})
    assert (await server.decision(answer)).cost_usd == pytest.approx(0.002)


async def test_signals_make_the_reward_by_the_rule_where_none_is_given(server: Running) -> None:
    rule = {"signal_weights": {"thumbs": 3.0, "edit": 1.0}, "error_reward": 0.125}
    name = await server.create_router("weighed", reward_rule=rule)
    await server.create_models(name, a={})
    for given, reward in (
        ({"signals": {"thumbs": 1.0, "edit": 0.0, "clicks": 99.0}}, 0.75),
        ({"signals": {"edit": 0.5}}, 0.5),
        ({"signals": {"thumbs": 1.0}, "reward": 0.0}, 0.0),
        ({"error": "MODEL_ERROR_REFUSED"}, 0.125),
    ):
        answer = await server.route(router=name)
        await server.report(answer, **given)
        assert (await server.decision(answer)).reward == reward


async def test_a_judge_at_once_and_thumbs_later_re_weigh_the_reward(server: Running) -> None:
    rule = {"signal_weights": {"judge": 1.0, "thumbs": 3.0}, "join": "REWARD_JOIN_WEIGHTED"}
    name = await server.create_router("weighed", reward_rule=rule)
    await server.create_models(name, a={}, b={})
    answer = await server.route(router=name, constraints={"allowed_models": ["a"]})
    await server.report(answer, report_id="judge", signals={"judge": 0.6})
    await server.settled(name)
    assert (await server.get_model("a", name)).statistics.mean_reward == 0.6
    thumbs = {"report_id": "thumbs", "signals": {"thumbs": 0.0}}
    assert await server.report(answer, **thumbs) == pb.DISPOSITION_RECORDED
    assert await server.report(answer, **thumbs) == pb.DISPOSITION_DUPLICATE
    await server.report(answer, report_id="fallback", reward=1.0, served_model="b")
    decision = await server.decision(answer)
    reports = decision.reports
    assert [each.model for each in reports] == ["a", "a", "b"]
    assert [each.learned_reward for each in reports] == [0.6, pytest.approx(0.15), 1.0]
    assert decision.reward == 1.0
    assert (await server.settled(name)).statistics.reward_count == 2
    chosen, served = [(await server.get_model(each, name)).statistics for each in "ab"]
    assert (chosen.reward_count, chosen.mean_reward) == (1, pytest.approx(0.15))
    assert (served.reward_count, served.mean_reward) == (1, 1.0)


async def test_a_join_that_there_is_not_is_refused(server: Running) -> None:
    refused = await refusal(server.update_router(reward_rule={"join": 77}))
    assert (refused.code, refused.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["reward_rule.join"])


async def test_an_error_alone_teaches_nothing_of_quality_by_default(server: Running) -> None:
    answer = await route_to(server, "a")
    await server.report(answer, error="MODEL_ERROR_RATE_LIMITED")
    assert not (await server.decision(answer)).HasField("reward")
    assert (await server.settled()).statistics.reward_count == 0
    statistics = (await server.get_model("a")).statistics
    assert (statistics.error_count, statistics.healthy) == (1, True)


async def test_a_late_report_is_kept_and_not_learned_from(server: Running) -> None:
    name = await server.create_router("brief", reward_rule=BRIEF)
    await server.create_models(name, a={})
    answer = await server.route(router=name)

    async def late() -> bool:
        return await server.report(answer, latency={"seconds": 1}) == pb.DISPOSITION_LATE

    await eventually(late)
    assert await server.report(answer, report_id="x", reward=1.0) == pb.DISPOSITION_LATE
    assert await server.report(answer, report_id="x", reward=1.0) == pb.DISPOSITION_DUPLICATE
    decision = await server.decision(answer)
    assert decision.reports[-1].late
    assert decision.reports[-1].report.reward == 1.0
    assert not decision.HasField("reward")
    assert (await server.settled(name)).statistics.reward_count == 0


async def test_a_decision_without_usage_is_charged_its_prediction_when_its_window_closes(server: Running) -> None:
    name = await server.create_router("brief", reward_rule=BRIEF)
    await server.create_models(name, a={"prices": (0.0, 0.0, 0.25)})
    await server.route(router=name)

    async def charged() -> bool:
        return (await server.get_router(name)).statistics.spent_usd == 0.25

    await eventually(charged)


async def test_an_activation_after_the_window_is_refused(server: Running) -> None:
    name = await server.create_router("brief", reward_rule=BRIEF)
    await server.create_models(name, a={})
    answer = await server.route(router=name, defer_activation=True)
    request = pb.ActivateDecisionRequest(decision_id=answer.decision_id)

    async def refused() -> bool:
        try:
            await server.router.ActivateDecision(request)
        except grpc.aio.AioRpcError as error:
            return error.code() is grpc.StatusCode.FAILED_PRECONDITION
        return False

    await eventually(refused)


async def test_a_batch_gives_each_report_its_own_fate_in_order(server: Running) -> None:
    answer = await route_to(server, "a")
    good = answer.decision_id
    requests = [
        pb.ReportRewardRequest(decision_id=good, report_id="x", reward=0.5),
        pb.ReportRewardRequest(decision_id="0" * 32, reward=0.5),
        pb.ReportRewardRequest(decision_id=good, report_id="x", reward=0.5),
        pb.ReportRewardRequest(decision_id=good, reward=1.5),
        pb.ReportRewardRequest(decision_id=good, error=77),
        pb.ReportRewardRequest(decision_id=good, reward=0.5, served_model="never"),
        pb.ReportRewardRequest(decision_id=good, report_id="y", usage={"cost_usd": 1.0}),
    ]
    answer = await server.router.BatchReportRewards(pb.BatchReportRewardsRequest(requests=requests))
    fates = [(each.disposition, each.code, each.reason) for each in answer.results]
    assert fates == [
        (pb.DISPOSITION_RECORDED, 0, ""),
        (0, 5, "DECISION_NOT_FOUND"),
        (pb.DISPOSITION_DUPLICATE, 0, ""),
        (0, 3, "INVALID_FIELD"),
        (0, 3, "INVALID_FIELD"),
        (0, 5, "MODEL_NOT_FOUND"),
        (pb.DISPOSITION_RECORDED, 0, ""),
    ]
    assert all(bool(each.message) == bool(each.code) for each in answer.results)


async def test_a_thousand_reports_at_once_are_all_recorded(server: Running) -> None:
    answer = await route_to(server, "a")
    requests = [
        pb.ReportRewardRequest(decision_id=answer.decision_id, report_id=str(i), reward=0.5) for i in range(1000)
    ]
    results = (await server.router.BatchReportRewards(pb.BatchReportRewardsRequest(requests=requests))).results
    assert [each.disposition for each in results] == [pb.DISPOSITION_RECORDED] * 1000
    assert (await server.settled()).statistics.reward_count == 1


async def test_an_empty_batch_gives_no_results(server: Running) -> None:
    assert list((await server.router.BatchReportRewards(pb.BatchReportRewardsRequest())).results) == []
