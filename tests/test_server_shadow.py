"""Shadow mode through a real server: what is answered, what is logged, what the log proves, and what is shown."""

from __future__ import annotations

import asyncio
import json
import math
import subprocess
from pathlib import Path
from typing import Any

import pytest
from pointsman.v1 import registry_service_pb2 as registry_pb
from pointsman.v1 import router_service_pb2 as pb
from servers import POINTSMAN, Running, refusal
from sqlalchemy import text

from server.audit import Audit, audit
from server.storage.engine import open_engine
from server.storage.reader import LogReader

ROUNDS = 300


@pytest.fixture
async def shadowing(server: Running) -> Running:
    """A server whose default router is in shadow mode, over a cheap model and a dear one."""
    await server.update_router(
        mode=registry_pb.ROUTER_MODE_SHADOW,
        policy="uniform",
        exploration={"max_utility_loss": 1.0},
        objective={"quality_value_usd": 1.0},
    )
    await server.create_models(cheap={"prices": (0.0, 0.0, 0.001)}, dear={"prices": (0.0, 0.0, 0.01)})
    return server


async def routed(server: Running, count: int, incumbent: str = "dear", **asked: Any) -> list[pb.RouteResponse]:
    asking = (server.route(prompt=f"q {n}", incumbent_model=incumbent, **asked) for n in range(count))
    return list(await asyncio.gather(*asking))


def audited(url: str) -> Audit:
    engine = open_engine(url, create=False)
    try:
        return audit(LogReader(engine), lambda _: None)
    finally:
        engine.dispose()


def change_details(url: str, *, drop: tuple[str, ...] = (), **changed: Any) -> None:
    """Rewrites the details of every decision in the log."""
    engine = open_engine(url)
    with engine.begin() as connection:
        for decision_id, details in connection.execute(text("SELECT decision_id, details FROM decisions")).all():
            values = {name: each for name, each in json.loads(details).items() if name not in drop} | changed
            connection.execute(
                text("UPDATE decisions SET details = :details WHERE decision_id = :id"),
                {"details": json.dumps(values), "id": decision_id},
            )
    engine.dispose()


async def shown(server: Running, *arguments: str) -> str:
    command = [str(POINTSMAN), "shadow", *arguments, "--target", server.target]
    return await asyncio.to_thread(subprocess.check_output, command, text=True, timeout=60)


async def test_a_share_of_the_traffic_explores_with_the_propensities_that_are_logged(shadowing: Running) -> None:
    """The bound is five standard errors of 300 draws: a false alarm in a million."""
    await shadowing.update_router(shadow_explore_share=0.4)
    answers = await routed(shadowing, ROUNDS)
    cheap = sum(each.model == "cheap" for each in answers)
    assert cheap / ROUNDS == pytest.approx(0.2, abs=5 * math.sqrt(0.2 * 0.8 / ROUNDS))
    for each in answers:
        by_model = {candidate.model: candidate for candidate in each.candidates}
        assert by_model["cheap"].probability == pytest.approx(0.2)
        assert by_model["dear"].probability == pytest.approx(0.8)
        assert [candidate.proposed_probability for candidate in each.candidates] == [0.5, 0.5]
        assert each.probability == by_model[each.model].probability
        assert each.model in ("dear", each.proposed_model)
    assert {each.proposed_model for each in answers if each.model == "dear"} == {"cheap", "dear"}
    found = audited(shadowing.url)
    assert (found.passed, found.decisions, found.examples) == (True, ROUNDS, [])
    kept = await shadowing.decision(answers[0])
    assert kept.shadow_explore_share == 0.4


async def test_the_share_does_not_spend_more_than_exploring_may(shadowing: Running) -> None:
    await shadowing.update_router(
        policy="fixed:dear", shadow_explore_share=1.0, exploration={"max_utility_loss": 1e-9}
    )
    # Dear costs 0.009 USD more, which are as much utility at 1 USD of quality's worth.
    (answer,) = await routed(shadowing, 1, "cheap")
    assert (answer.model, answer.proposed_model) == ("cheap", "dear")
    assert (await shadowing.decision(answer)).shadow_explore_share == pytest.approx(1e-8 / 0.009)


@pytest.mark.parametrize(
    ("tampering", "blamed"),
    [
        ({"shadow": ["cheap", 0.4, [0.5, 0.5]]}, "the propensities are not those"),
        ({"shadow": ["dear", 0.0, [0.5, 0.5]]}, "the propensities are not those"),
        ({"shadow": ["dear", 0.4, [0.25, 0.75]]}, "the propensities are not those"),
        ({"shadow": ["gone", 0.4, [0.5, 0.5]]}, "are not of its candidates"),
        ({"proposed_model": "other"}, "the draw proposes"),
    ],
)
async def test_verify_finds_what_was_changed_by_hand(
    shadowing: Running, tampering: dict[str, Any], blamed: str
) -> None:
    await shadowing.update_router(shadow_explore_share=0.4)
    await routed(shadowing, 8)
    change_details(shadowing.url, **tampering)
    found = audited(shadowing.url)
    assert found.draws_wrong == 8
    assert all(blamed in each for each in found.examples)


async def test_decisions_from_before_shadow_mode_could_explore_are_read_and_verified(shadowing: Running) -> None:
    (answer,) = await routed(shadowing, 1)
    change_details(shadowing.url, drop=("shadow", "categorical", "numeric"))
    kept = await shadowing.decision(answer)
    assert (kept.model, kept.probability, kept.shadow_explore_share) == ("dear", 1.0, 0.0)
    assert (dict(kept.categorical_features), dict(kept.numeric_features)) == ({}, {})
    assert audited(shadowing.url).passed


async def test_the_statistics_say_how_often_both_agree_and_what_they_are_worth(shadowing: Running) -> None:
    answers = await routed(shadowing, 50)
    for each in answers:
        await shadowing.report(each, reward=0.75, usage={"cost_usd": 0.25})
    told = (await shadowing.settled()).statistics.shadow
    agreed = sum(each.proposed_model == "dear" for each in answers)
    assert (told.decision_count, told.agreement_count) == (50, agreed)
    # Only the incumbent could be drawn, so nothing can be said of the proposals that differ.
    assert told.unsupported_count == 50 - agreed
    costs = (told.proposed_mean_cost_usd, told.incumbent_mean_cost_usd)
    assert costs == pytest.approx(((0.001 * (50 - agreed) + 0.01 * agreed) / 50, 0.01))
    assert told.incumbent_mean_quality > 0.0
    assert (told.observed_reward_count, told.observed_mean_reward) == (50, 0.75)
    assert (told.observed_call_count, told.observed_mean_cost_usd) == (50, 0.25)
    assert (await shadowing.get_model("dear")).statistics.mean_reward == 0.75, "it learns from what it obeyed"


async def test_a_live_router_is_compared_with_its_callers_rule_too(shadowing: Running) -> None:
    await shadowing.update_router(mode=registry_pb.ROUTER_MODE_LIVE, policy="cheapest")
    await routed(shadowing, 5)
    await shadowing.route(prompt="without")
    told = (await shadowing.settled()).statistics.shadow
    assert (told.decision_count, told.agreement_count, told.unsupported_count) == (5, 0, 5)
    assert (told.proposed_mean_cost_usd, told.incumbent_mean_cost_usd) == pytest.approx((0.001, 0.01))


async def test_the_command_shows_it_to_people_and_programs(shadowing: Running) -> None:
    await shadowing.create_router("quiet")
    await routed(shadowing, 20)
    await shadowing.settled()
    table = await shown(shadowing)
    assert "decisions with an incumbent" in table
    assert "quiet" in table
    values = {each["router"]: each for each in json.loads(await shown(shadowing, "--json"))}
    assert values["routers/default"]["decision_count"] == 20
    assert (values["routers/default"]["mode"], values["routers/quiet"]["mode"]) == ("shadow", "live")
    assert values["routers/quiet"]["decision_count"] == 0
    (one,) = json.loads(await shown(shadowing, "default", "--json"))
    assert one == values["routers/default"]


async def test_the_share_is_between_0_and_1(shadowing: Running) -> None:
    for share in (-0.1, 1.1, math.nan):
        refused = await refusal(shadowing.update_router(shadow_explore_share=share))
        assert refused.fields == ["shadow_explore_share"]


async def test_the_callers_features_are_kept_as_they_were_sent(shadowing: Running) -> None:
    categories, numbers = {"tenant": "acmé"}, {"turns": 3.5}
    asked = {"categorical_features": categories, "numeric_features": numbers}
    (answer,) = await routed(shadowing, 1, **asked)
    kept = await shadowing.decision(answer)
    assert (dict(kept.categorical_features), dict(kept.numeric_features)) == (categories, numbers)
    assert kept.prompt == ""


async def test_a_file_of_known_outcomes_is_played_through_a_router_that_is_there_as_shadow_traffic(
    shadowing: Running, tmp_path: Path
) -> None:
    file = tmp_path / "traffic.jsonl"
    outcomes = {"cheap": {"quality": 0.5, "cost_usd": 0.001}, "dear": {"quality": 1.0, "cost_usd": 0.01}}
    file.write_text("".join(json.dumps({"prompt": f"q {n}", "outcomes": outcomes}) + "\n" for n in range(40)))
    command = [str(POINTSMAN), "replay", str(file), "--target", shadowing.target, "--router", "default"]
    played = await asyncio.to_thread(
        subprocess.check_output, [*command, "--incumbent", "dear", "--json"], text=True, timeout=60
    )
    assert json.loads(played)["share"] == {"cheap": 0.0, "dear": 1.0}
    told = (await shadowing.settled()).statistics.shadow
    assert (told.decision_count, told.observed_reward_count, told.observed_mean_reward) == (40, 40, 1.0)
