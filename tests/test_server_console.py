"""The console in a real browser: what is on the page is what the API says, for everyone who comes to it."""

from __future__ import annotations

import asyncio
import re
import shlex
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from browsers import browsing
from locks import add_key
from pointsman.v1 import policy_service_pb2 as policy_pb
from pointsman.v1 import registry_service_pb2 as registry_pb
from pointsman.v1 import router_service_pb2 as pb
from servers import Running, eventually, running_app

from policy.features import Featuriser
from server.keys import Scope


@asynccontextmanager
async def serving(url: str, featuriser: Featuriser, **settings: Any) -> AsyncIterator[tuple[Running, int]]:
    """A server, and the port of its console."""
    async with running_app(url, featuriser, http_port=0, evaluation_seconds=0.2, **settings) as running:
        assert running.app is not None
        yield running, running.app.http_port


async def some_traffic(running: Running, router: str, count: int = 40) -> list[pb.RouteResponse]:
    """Decisions of a router with what came of them: the third of every five was never rewarded."""
    decided = []
    for index in range(count):
        decision = await running.route(router=router, prompt=f"question {index}", incumbent_model="large")
        decided.append(decision)
        usage = pb.Usage(input_tokens=100 + index, output_tokens=50)
        if index % 5 != 2:
            await running.report(decision, reward=0.9 if decision.model == "large" else 0.7, usage=usage)
    return decided


async def some_router(running: Running, **fields: Any) -> str:
    name = await running.create_router("support", **fields)
    await running.create_models(name, small={}, large={"prices": (10.0, 30.0, 0.0)})
    return name


async def test_what_is_on_the_page_is_what_the_api_says(url: str, featuriser: Featuriser) -> None:
    async with serving(url, featuriser) as (running, port):
        name = await some_router(running, objective=registry_pb.Objective(budget_usd_per_request=0.001))
        await some_traffic(running, name)
        router = await running.settled(name)
        told = router.statistics
        async with browsing(port, "/#/support/overview") as opened:
            await opened.until("#decision-count", 40)
            assert await opened.number("#tile-spend .value data") == told.spent_usd
            assert await opened.number("#tile-spend .about data >> nth=0") == told.utilization
            assert await opened.number("#tile-money .value data") == told.price_of_money
            assert await opened.number("#tile-exploration .about data >> nth=0") == told.exploration.decision_count
            models = {each: await running.get_model(each, name) for each in ("small", "large")}
            for model_id, model in models.items():
                learned = model.statistics
                row = f'[data-model="{model_id}"]'
                assert await opened.number(f'{row} [data-field="decisionCount"]') == learned.decision_count
                assert await opened.number(f'{row} [data-field="meanReward"]') == learned.mean_reward
                assert await opened.number(f'{row} [data-field="meanCostUsd"]') == learned.mean_cost_usd
                assert await opened.number(f'{row} [data-field="errorCount"]') == learned.error_count
            rewards = [(each.statistics.mean_reward, each.statistics.reward_count) for each in models.values()]
            mean = sum(reward * count for reward, count in rewards) / sum(count for _, count in rewards)
            assert await opened.number("#tile-quality .value data") == pytest.approx(mean, abs=1e-12)
            assert await opened.text("#health-models") == "2 of 2 models"


async def test_savings_and_lift_are_those_of_the_evaluation(url: str, featuriser: Featuriser) -> None:
    async with serving(url, featuriser) as (running, port):
        name = await some_router(running, policy="uniform")
        await some_traffic(running, name, 200)

        async def evaluated() -> policy_pb.Evaluation | None:
            found = await running.policies.GetEvaluation(policy_pb.GetEvaluationRequest(router=name))
            return found.evaluation if found.evaluation.settled_count >= 160 else None

        await running.settled(name)
        evaluation = await eventually(evaluated)
        by_name = {each.candidate: each for each in evaluation.candidates}
        cost = _adr(by_name["incumbent"], policy_pb.METRIC_COST_USD).difference
        best = max(
            (by_name["fixed:small"], by_name["fixed:large"]),
            key=lambda each: _adr(each, policy_pb.METRIC_UTILITY).difference.value,
        )
        utility = _adr(best, policy_pb.METRIC_UTILITY).difference
        async with browsing(port, "/#/support") as opened:
            await opened.page.wait_for_selector("#savings-usd")
            assert await opened.number("#savings-usd") == cost.value
            assert await opened.number("#tile-lift .value data") == -utility.value
            assert best.candidate.removeprefix("fixed:") in await opened.text("#tile-lift")
            assert "95 %" in await opened.text("#tile-savings")
            assert "95 %" in await opened.text("#tile-lift")


def _adr(candidate: policy_pb.CandidateEvaluation, metric: policy_pb.Metric) -> policy_pb.Comparison:
    return next(each.adr for each in candidate.estimates if each.metric == metric)


async def test_numbers_come_by_themselves_and_leave_the_keyboard_where_it_is(
    url: str, featuriser: Featuriser
) -> None:
    async with serving(url, featuriser) as (running, port):
        name = await some_router(running)
        await some_traffic(running, name, 5)
        await running.settled(name)
        async with browsing(port, "/#/support") as opened:
            await opened.until("#decision-count", 5)
            await opened.page.focus("#theme")
            await some_traffic(running, name, 5)
            await opened.until("#decision-count", 10)
            assert await opened.page.evaluate("document.activeElement.id") == "theme"


async def test_a_newcomer_is_led_from_nothing_to_numbers_by_the_commands_on_the_page(
    url: str, featuriser: Featuriser
) -> None:
    async with serving(url, featuriser) as (_, port), browsing(port) as opened:
        said = []
        for title in ("add a model", "ask for the first decision", "report the first reward"):
            await opened.page.wait_for_selector(f"text=Next: {title}")
            command = await opened.text(".next code")
            decision = re.search(r'"decisionId":"(\w+)"', said[-1]) if said else None
            said.append(await _run(command.replace("DECISION", decision.group(1) if decision else "")))
        await opened.page.wait_for_selector(".next", state="detached")
        await opened.until("#tile-quality .value data", 0.9)
        assert "DISPOSITION_RECORDED" in said[-1]


async def _run(command: str) -> str:
    process = await asyncio.create_subprocess_exec(*shlex.split(command), stdout=asyncio.subprocess.PIPE)
    said, _ = await process.communicate()
    return said.decode()


async def test_a_key_is_asked_for_and_kept_with_the_tab(url: str, featuriser: Featuriser) -> None:
    key, weak = add_key(url), add_key(url, Scope.REPORT)
    async with serving(url, featuriser) as (_, port), browsing(port) as opened:
        await opened.page.fill("#key-input", "nonsense")
        await opened.page.keyboard.press("Enter")
        await opened.page.wait_for_selector("dialog .error:has-text('key')")
        await opened.page.fill("#key-input", weak)
        await opened.page.keyboard.press("Enter")
        await opened.page.wait_for_selector("#notice:has-text('scope administer')")
        await opened.page.click("#key")
        await opened.page.fill("#key-input", key)
        await opened.page.keyboard.press("Enter")
        await opened.page.wait_for_selector("text=Next: add a model")
        assert '-H "authorization: Bearer $POINTSMAN_KEY"' in await opened.text(".next code")
        await opened.page.reload()
        await opened.page.wait_for_selector("text=Next: add a model")
        assert await opened.page.evaluate("localStorage.length") == 0
        await opened.page.click("#key")
        await opened.page.click("text=Forget the key")
        await opened.page.wait_for_selector("dialog .error")
        assert await opened.page.evaluate("sessionStorage.length") == 0


async def test_names_are_text_whatever_they_look_like(url: str, featuriser: Featuriser) -> None:
    name = '<img src=x onerror="document.title=1">'
    async with serving(url, featuriser) as (running, port):
        await running.create_router("odd", display_name=name)
        async with browsing(port, "/#/odd") as opened:
            await opened.page.wait_for_selector("h1")
            assert await opened.text("h1") == name
            assert await opened.page.locator("main img").count() == 0


async def test_a_server_that_is_away_is_said_and_the_numbers_stay(url: str, featuriser: Featuriser) -> None:
    async with serving(url, featuriser) as (running, port):
        name = await some_router(running)
        await some_traffic(running, name, 5)
        await running.settled(name)
        async with browsing(port, "/#/support") as opened:
            await opened.until("#decision-count", 5)
            await opened.page.route("**/pointsman.v1.*/*", lambda route: route.abort())
            await opened.page.wait_for_selector("#notice:has-text('does not answer')")
            assert await opened.value("#decision-count") == "5"
            await opened.page.unroute("**/pointsman.v1.*/*")
            await opened.page.wait_for_selector("#notice:empty", state="attached")


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_the_page_can_be_read_by_everyone(url: str, featuriser: Featuriser, scheme: str) -> None:
    async with serving(url, featuriser) as (running, port):
        name = await some_router(running)
        await some_traffic(running, name)
        await running.settled(name)
        async with browsing(port, "/#/support", color_scheme=scheme) as opened:
            await opened.until("#decision-count", 40)
            assert await opened.breaches() == []
            await opened.page.goto(f"http://127.0.0.1:{port}/#/default")
            await opened.page.wait_for_selector(".next")
            assert await opened.breaches() == []
            await opened.page.click("#key")
            assert await opened.breaches() == []


async def test_the_theme_is_the_systems_until_the_reader_chooses(url: str, featuriser: Featuriser) -> None:
    async with serving(url, featuriser) as (_, port), browsing(port, color_scheme="dark") as opened:

        async def background() -> str:
            return str(await opened.page.evaluate("getComputedStyle(document.body).backgroundColor"))

        dark = await background()
        await opened.page.focus("#theme")
        await opened.page.keyboard.press("Enter")
        light = await background()
        assert (await opened.text("#theme"), light) == ("Theme: light", "rgb(245, 246, 248)")
        await opened.page.reload()
        assert await background() == light
        await opened.page.emulate_media(color_scheme="light")
        await opened.page.press("#theme", "Enter")
        assert await background() == dark


async def test_every_control_is_reached_by_the_keyboard(url: str, featuriser: Featuriser) -> None:
    async with serving(url, featuriser) as (running, port):
        await some_router(running)
        async with browsing(port, "/#/default") as opened:
            await opened.page.wait_for_selector(".next")
            reached = []
            for _ in range(30):
                await opened.page.keyboard.press("Tab")
                reached.append(await opened.page.evaluate("document.activeElement.outerHTML.slice(0, 300)"))
            controls = await opened.page.evaluate(
                "[...document.querySelectorAll('a, button, select, input')].map(e => e.outerHTML.slice(0, 300))"
            )
            assert set(controls) <= set(reached)
            await opened.page.focus("#router")
            await opened.page.keyboard.press("ArrowDown")
            await opened.page.wait_for_selector("h1:has-text('support')")


async def test_a_phone_scrolls_down_and_not_sideways(url: str, featuriser: Featuriser) -> None:
    async with serving(url, featuriser) as (running, port):
        name = await some_router(running)
        await some_traffic(running, name, 5)
        await running.settled(name)
        async with browsing(port, "/#/support", viewport={"width": 360, "height": 740}) as opened:
            await opened.until("#decision-count", 5)
            assert await opened.page.evaluate("document.documentElement.scrollWidth") <= 360
