"""Second calls through a real server: what is named, what is learned of them, and what the pairs say."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import subprocess
from pathlib import Path
from random import Random
from typing import Any

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from pointsman.v1 import policy_service_pb2 as policy_pb
from pointsman.v1 import registry_service_pb2 as registry_pb
from pointsman.v1 import router_service_pb2 as pb
from servers import (
    POINTSMAN,
    Running,
    eventually,
    refusal,
    seeded,
)
from sqlalchemy import select, text
from test_server_evaluation_loop import evaluated
from test_server_shadow import audited

from policy.domain import PaidShadow
from policy.league import Results
from server.config_file import ConfigError, read_config
from server.services.pairs import paired_from_proto
from server.storage.engine import open_engine
from server.storage.schema import second_days

INVALID = grpc.StatusCode.INVALID_ARGUMENT
DISAGREE = policy_pb.PAIRED_AGREEMENT_DISAGREE
CALL_USD = 0.001


@pytest.fixture
async def paying(server: Running) -> Running:
    """A server whose default router draws uniformly and names a second model in a fifth of the decisions."""
    await set_up(server)
    return server


async def set_up(server: Running, max_usd_per_day: float = 1000.0, **fields: Any) -> None:
    await server.create_models(**{name: {"prices": (0.0, 0.0, CALL_USD)} for name in ("a", "b", "c")})
    await server.update_router(
        policy="uniform",
        paid_shadow={"share": 0.2, "max_usd_per_day": max_usd_per_day},
        exploration={"max_utility_loss": 1.0},
        **fields,
    )


async def routed(server: Running, count: int, **asked: Any) -> list[pb.RouteResponse]:
    return list(await asyncio.gather(*(server.route(prompt=f"q {n}", **asked) for n in range(count))))


async def until_second(server: Running, **asked: Any) -> pb.RouteResponse:
    """A decision that names a second model: of 200 none does with a probability of 4e-20."""
    for number in range(200):
        made = await server.route(prompt=f"q {number}", **asked)
        if made.second_model:
            return made
    raise AssertionError("none of 200 decisions named a second model")


def spent_usd(url: str) -> list[float]:
    """What second calls have cost by the books that the cap is held against, day by day."""
    engine = open_engine(url, create=False)
    try:
        with engine.connect() as connection:
            return list(connection.execute(select(second_days.c.usd).order_by(second_days.c.day)).scalars())
    finally:
        engine.dispose()


async def test_a_share_of_the_decisions_names_another_model_with_the_probability_that_is_logged(
    paying: Running,
) -> None:
    """The bound is five standard errors of 300 draws: a false alarm in a million."""
    answers = await routed(paying, 300)
    named = [each for each in answers if each.second_model]
    assert len(named) / 300 == pytest.approx(0.2, abs=5 * math.sqrt(0.2 * 0.8 / 300))
    for each in answers:
        chances = {candidate.model: candidate.second_probability for candidate in each.candidates}
        assert chances.pop(each.model) == 0.0
        assert list(chances.values()) == pytest.approx([0.1, 0.1])
        assert each.second_model != each.model
        assert each.second_probability == (pytest.approx(0.1) if each.second_model else 0.0)
    kept = await paying.decision(named[0])
    assert (kept.second_model, kept.second_probability) == (named[0].second_model, named[0].second_probability)
    found = audited(paying.url)
    assert (found.passed, found.decisions, found.examples) == (True, 300, [])


async def test_off_no_decision_names_one(server: Running) -> None:
    await server.create_models(a={}, b={})
    assert not any(each.second_model for each in await routed(server, 60))


async def test_the_same_request_gets_the_same_second_model(paying: Running) -> None:
    asked = [f"r{number}" for number in range(60)]
    first = [await paying.route(prompt="hello", request_id=each) for each in asked]
    before = spent_usd(paying.url)
    again = [await paying.route(prompt="hello", request_id=each) for each in asked]
    assert [each.second_model for each in again] == [each.second_model for each in first]
    assert [each.second_probability for each in again] == [each.second_probability for each in first]
    assert spent_usd(paying.url) == before


async def test_requests_that_draw_nothing_have_no_second_call(paying: Running) -> None:
    await routed(paying, 1, session_id="s")
    kept = await routed(paying, 60, session_id="s")
    greedy = await routed(paying, 60, preference={"exploit_only": True})
    assert not any(each.second_model for each in (*kept, *greedy))


async def test_only_models_that_may_be_called_are_named(paying: Running) -> None:
    await paying.update_router(paid_shadow={"share": 0.2, "models": ["b", "gone"]})
    named = {each.second_model for each in await routed(paying, 120, constraints={"denied_models": ["c"]})}
    assert named == {"", "b"}
    request = registry_pb.UpdateModelRequest(
        model=registry_pb.Model(name="routers/default/models/b", state=registry_pb.MODEL_STATE_DISABLED)
    )
    await paying.registry.UpdateModel(request)
    assert {each.second_model for each in await routed(paying, 60)} == {""}


@pytest.mark.parametrize(
    ("setting", "field"),
    [
        ({"share": 0.3, "max_usd_per_day": 1.0}, "paid_shadow.share"),
        ({"share": 0.1, "max_usd_per_day": 0.0}, "paid_shadow.max_usd_per_day"),
        ({"share": 0.1, "max_usd_per_day": -1.0}, "paid_shadow.max_usd_per_day"),
        ({"share": 0.1, "max_usd_per_day": 1.0, "models": ["a b"]}, "paid_shadow.models[0]"),
        ({"share": 0.1, "max_usd_per_day": 1.0, "models": ["routers/x/models/a"]}, "paid_shadow.models[0]"),
    ],
)
async def test_a_setting_that_cannot_be_is_refused_by_its_field(
    server: Running, setting: dict[str, Any], field: str
) -> None:
    mask = FieldMask(paths=["paid_shadow"])
    router = registry_pb.Router(name="routers/default", paid_shadow=setting)
    refused = await refusal(
        server.registry.UpdateRouter(registry_pb.UpdateRouterRequest(router=router, update_mask=mask))
    )
    assert (refused.code, refused.fields) == (INVALID, [field])


async def test_the_two_calls_are_joined_apart_and_only_the_own_one_is_the_decisions(paying: Running) -> None:
    made = await until_second(paying)
    assert (
        await paying.report(made, report_id="own", reward=0.25, usage={"cost_usd": 0.5}) == pb.DISPOSITION_RECORDED
    )
    told = {"report_id": "second", "reward": 0.75, "usage": {"cost_usd": 2.0}, "second": True}
    assert await paying.report(made, **told) == pb.DISPOSITION_RECORDED
    assert await paying.report(made, **told) == pb.DISPOSITION_DUPLICATE
    kept = await paying.decision(made)
    assert (kept.reward, kept.cost_usd) == (0.25, 0.5)
    assert (kept.second_reward, kept.second_cost_usd) == (0.75, 2.0)
    assert [(each.model, each.report.second) for each in kept.reports] == [
        (made.model, False),
        (made.second_model, True),
    ]
    router = await paying.settled()
    assert router.statistics.spent_usd == 0.5
    books = router.statistics.paid_shadow
    assert (books.reward_count, books.charged_count, books.spent_usd) == (1, 1, 2.0)
    learned = (await paying.get_model(made.second_model)).statistics
    assert (learned.reward_count, learned.mean_reward, learned.mean_cost_usd) == (1, 0.75, 2.0)
    found = audited(paying.url)
    assert (found.passed, found.examples) == (True, [])


async def test_a_second_call_of_the_model_that_stood_in_is_not_its_fallback(paying: Running) -> None:
    made = await until_second(paying)
    await paying.report(made, served_model=made.second_model, reward=0.1)
    await paying.report(made, second=True, reward=0.9)
    kept = await paying.decision(made)
    assert (kept.reward, kept.second_reward) == (0.1, 0.9)
    assert [each.learned_reward for each in kept.reports] == [0.1, 0.9]


async def test_a_report_on_a_second_call_that_was_not_named_is_refused(server: Running) -> None:
    await server.create_models(a={}, b={})
    made = await server.route(prompt="hello")
    request = pb.ReportRewardRequest(decision_id=made.decision_id, reward=1.0, second=True)
    refused = await refusal(server.router.ReportReward(request))
    assert (refused.code, refused.fields) == (INVALID, ["second"])
    batch = await server.router.BatchReportRewards(pb.BatchReportRewardsRequest(requests=[request]))
    assert batch.results[0].code == INVALID.value[0]
    assert not (await server.decision(made)).reports


async def test_what_a_call_really_cost_takes_the_place_of_what_was_set_aside(paying: Running) -> None:
    made = await until_second(paying)
    count = round(sum(spent_usd(paying.url)) / CALL_USD)
    assert sum(spent_usd(paying.url)) == pytest.approx(count * CALL_USD)
    await paying.report(made, second=True, usage={"cost_usd": 0.25})
    assert sum(spent_usd(paying.url)) == pytest.approx((count - 1) * CALL_USD + 0.25)
    await paying.report(made, second=True, usage={"cost_usd": 0.5})
    assert sum(spent_usd(paying.url)) == pytest.approx((count - 1) * CALL_USD + 0.75)


WORTH = {"a": 0.3, "b": 0.5, "c": 0.7}


async def traffic(
    server: Running, random: Random, count: int, worth: dict[str, float], second_worth: dict[str, float]
) -> None:
    """Decisions with their rewards and costs, and second calls, which may be judged by other standards."""
    for number in range(count):
        made = await server.route(prompt=f"question {number % 7}")
        own = float(worth[made.model] > random.random())
        await server.report(made, reward=own, usage={"cost_usd": CALL_USD})
        if made.second_model:
            second = float(second_worth[made.second_model] > random.random())
            await server.report(made, reward=second, usage={"cost_usd": CALL_USD}, second=True)


async def test_pairs_say_what_single_calls_say_and_what_a_model_alone_would_gain(paying: Running) -> None:
    """About 100 pairs. The bounds are five standard errors: a false alarm in a million.

    Of few and skewed differences one end of a sequence may lie a little inside the interval, which is symmetric:
    mostly it is 1.2 to 2.9 times as far from the estimate.
    """
    await traffic(paying, seeded("pairs"), 400, WORTH, WORTH)
    found = (await evaluated(paying)).paired
    assert found.pair_count == found.call_count > 30
    gains = {}
    for each in found.candidates:
        assert each.agreement != DISAGREE
        assert each.unsupported_mean == 0.0
        (quality,) = (of for of in each.differences if of.metric == policy_pb.METRIC_QUALITY)
        assert quality.pair_count == found.pair_count
        value, interval, sequence = quality.estimate.value, quality.estimate.interval, quality.sequence
        assert -1.0 <= sequence.low <= value - 0.8 * (value - interval.low)
        assert value + 0.8 * (interval.high - value) <= sequence.high <= 1.0
        gains[each.candidate] = quality.estimate
    for name, true in (("fixed:a", -0.2), ("fixed:b", 0.0), ("fixed:c", 0.2)):
        width = gains[name].interval.high - gains[name].interval.low
        assert gains[name].value == pytest.approx(true, abs=5 / 3.92 * width)
    assert server_results(paying).paired == paired_from_proto(found)
    alone = {(each.model, each.second_model): each.differences[0] for each in found.models}
    assert sum(each.pair_count for each in alone.values()) == found.pair_count
    assert {own for own, _ in alone} == {"a", "b", "c"}


def server_results(server: Running) -> Results:
    """What the evaluation inside the server has found."""
    assert server.app is not None
    found = server.app._learning.find("default")
    assert found is not None
    return found.results


async def test_second_calls_that_are_judged_by_other_standards_are_noticed(
    paying: Running, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        judged_fairly, always_bad = {"a": 0.0, "b": 0.0, "c": 1.0}, dict.fromkeys("abc", 0.0)
        await traffic(paying, seeded("biased"), 400, judged_fairly, always_bad)
        found = (await evaluated(paying)).paired
        worst = next(each for each in found.candidates if each.candidate == "fixed:c")
        assert worst.agreement == DISAGREE

        async def warned() -> bool:
            return "contradict what is estimated of fixed:c" in caplog.text

        await eventually(warned)
    shown = await printed(paying, "evaluate", "--server", paying.target)
    assert "fixed:c: pairs and single calls contradict one another on quality" in shown
    assert "disagree" in shown
    told = json.loads(await printed(paying, "evaluate", "--server", paying.target, "--json"))["paired"]
    assert (told["pairs"], told["false_alarm_rate"]) == (found.pair_count, 0.01)
    assert {each["id"]: each["agreement"] for each in told["candidates"]}["fixed:c"] == "disagree"


async def printed(server: Running, *arguments: str) -> str:
    command = [str(POINTSMAN), *arguments]
    return await asyncio.to_thread(subprocess.check_output, command, text=True, timeout=60)


async def test_the_command_line_sets_it_and_shows_what_it_has_come_to(server: Running) -> None:
    await server.create_models(a={"prices": (0.0, 0.0, CALL_USD)}, b={"prices": (0.0, 0.0, CALL_USD)})
    command = ("paid-shadow", "--target", server.target)
    await printed(server, *command, "--share", "0.2", "--max-usd-per-day", "2", "--model", "b")
    made = await until_second(server, constraints={"denied_models": []})
    await server.report(made, second=True, reward=0.5, usage={"cost_usd": 0.25})
    await server.settled()
    told = json.loads(await printed(server, *command, "--any-model", "--json"))
    assert (told["share"], told["max_usd_per_day"], told["models"]) == (0.2, 2.0, [])
    assert (told["reward_count"], told["spent_usd"], told["untold_count"]) == (1, 0.25, 0)
    assert "2.500e-01" in await printed(server, *command)
    explained = await printed(server, "explain", made.decision_id, "--target", server.target)
    assert f"second call     {made.second_model}" in explained
    assert "on the second call, reward 0.5" in explained


async def test_a_second_call_that_is_not_the_draws_is_found_by_the_audit(paying: Running) -> None:
    made = await until_second(paying)
    engine = open_engine(paying.url)
    with engine.begin() as connection:
        row = text("SELECT details FROM decisions WHERE decision_id = :id")
        details = json.loads(connection.execute(row, {"id": made.decision_id}).scalar_one())
        details["second"][3] = ""
        changed = text("UPDATE decisions SET details = :details WHERE decision_id = :id")
        connection.execute(changed, {"details": json.dumps(details), "id": made.decision_id})
    engine.dispose()
    said = f"decision {made.decision_id}: the draw gives the second model {made.second_model}, logged none"
    assert audited(paying.url).examples[0] == said


def test_a_file_of_routers_may_ask_for_second_calls(tmp_path: Path) -> None:
    path = tmp_path / "models.yaml"
    path.write_text("routers: {default: {paid_shadow: {share: 0.1, max_usd_per_day: 2, models: [b]}}}")
    assert read_config(path)[0].spec.paid_shadow == PaidShadow(0.1, 2.0, ("b",))
    path.write_text("routers: {default: {paid_shadow: {share: 0.1}}}")
    with pytest.raises(ConfigError, match=r"routers.default.paid_shadow.max_usd_per_day: must be above 0"):
        read_config(path)
