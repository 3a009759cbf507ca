"""The console in a real browser: what is on the page is what the API says, for everyone who comes to it."""

from __future__ import annotations

import asyncio
import re
import shlex

import pytest
from browsers import browsing
from consoles import evaluated, serving, some_router, some_traffic
from locks import add_key
from pointsman.v1 import policy_service_pb2 as policy_pb
from pointsman.v1 import registry_service_pb2 as registry_pb
from servers import eventually

from policy.features import Featuriser
from server.keys import Scope


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

        evaluation = await evaluated(running, name, 160)
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
            assert "95 %: " in await opened.text("#tile-savings")
            assert "95 %: " in await opened.text("#tile-lift")
            live = _of(by_name["uniform"], policy_pb.METRIC_QUALITY).snips.live.interval
            said = await opened.text("#quality-interval")
            assert said == f"95 %: {live.low:.3f} to {live.high:.3f} of the live policy"


async def test_what_cannot_be_known_says_why(url: str, featuriser: Featuriser) -> None:
    async with serving(url, featuriser) as (running, port):
        name = await some_router(running, policy="fixed:small")
        async with browsing(port, "/#/support") as opened:
            await opened.page.wait_for_selector("#tile-lift:has-text('no decision has been evaluated yet')")
            await some_traffic(running, name, 20)
            await evaluated(running, name, 16)
            never = "the live policy never draws what would have to be compared"
            await opened.page.wait_for_selector(f"#tile-savings:has-text('{never}')")
            await opened.page.wait_for_selector("#tile-lift:has-text('decisions of its own, and 50 are needed')")


async def test_missing_and_late_rewards_are_shown_by_model(url: str, featuriser: Featuriser) -> None:
    rule = registry_pb.RewardRule()
    rule.join_window.FromMilliseconds(1500)
    async with serving(url, featuriser) as (running, port):
        name = await some_router(running, policy="fixed:small", reward_rule=rule)
        decisions = [await running.route(router=name, prompt=f"question {index}") for index in range(4)]
        await running.report(decisions[0], reward=1.0)

        async def windows_closed() -> registry_pb.Model | None:
            found = await running.get_model("small", name)
            return found if found.statistics.closed_count == 4 else None

        model = await eventually(windows_closed)
        await running.report(decisions[1], reward=1.0)
        async with browsing(port, "/#/support") as opened:
            await opened.until('[data-model=small] [data-field="lateCount"]', 1)
            await opened.until("#late-total", 1)
            missing = await opened.number('[data-model=small] [data-field="missingRewardRate"]')
            assert missing == model.statistics.missing_reward_rate == 0.75
            assert await opened.number("#tile-rewards .value data") == 0.75


def _of(candidate: policy_pb.CandidateEvaluation, metric: policy_pb.Metric) -> policy_pb.MetricEstimates:
    return next(each for each in candidate.estimates if each.metric == metric)


def _adr(candidate: policy_pb.CandidateEvaluation, metric: policy_pb.Metric) -> policy_pb.Comparison:
    return _of(candidate, metric).adr


async def test_the_charts_and_their_tables_are_the_history_of_the_api(url: str, featuriser: Featuriser) -> None:
    async with serving(url, featuriser) as (running, port):
        name = await some_router(running)
        await some_traffic(running, name)

        async def counted() -> registry_pb.History | None:
            found = (await running.registry.GetHistory(registry_pb.GetHistoryRequest(name=name))).history
            return found if sum(each.decision_count for each in models_of(found)) == 40 else None

        def models_of(found: registry_pb.History) -> list[registry_pb.ModelHistory]:
            return [model for bucket in found.buckets for model in bucket.models]

        history = await eventually(counted)
        async with browsing(port, "/#/support") as opened:
            await opened.until("#history-total data", 40)
            assert await opened.page.locator(".chart canvas").count() == 4
            await opened.page.focus("#chart-share ~ details summary")
            await opened.page.keyboard.press("Enter")
            rows = opened.page.locator("#table-share tbody tr")
            assert await rows.count() == len(history.buckets)
            heads = await opened.page.locator("#table-share thead th").all_inner_texts()
            last = history.buckets[-1].models
            total = sum(each.decision_count for each in last)
            shown = dict(zip(heads, await rows.last.locator("th, td").all_inner_texts(), strict=True))
            for each in last:
                share = 100 * each.decision_count / total
                assert float(shown[each.model].split("\xa0")[0]) == pytest.approx(share, abs=0.06)
            await opened.page.focus("[data-range='1 h']")
            await opened.page.keyboard.press("Enter")
            await opened.page.wait_for_selector("[data-range='1 h'][aria-pressed=true]")
            assert await opened.page.evaluate("document.activeElement.dataset.range") == "1 h"
            await opened.page.wait_for_selector("th:has-text('Late, 1 h')")


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


async def test_the_league_and_its_evidence_are_those_of_the_api(url: str, featuriser: Featuriser) -> None:
    async with serving(url, featuriser) as (running, port):
        name = await some_router(running, policy="uniform")
        create = policy_pb.CreatePolicyRequest(
            parent=name, policy_id="careful", policy=policy_pb.Policy(policy="fixed:small")
        )
        await running.policies.CreatePolicy(create)
        await some_traffic(running, name, 100)
        evaluation = await evaluated(running, name, 80)
        promote = policy_pb.PromotePolicyRequest(
            name=f"{name}/policies/careful",
            state=policy_pb.POLICY_STATE_CANARY,
            canary_share=0.25,
            force=True,
            reason="<b>to see it</b>",
        )
        await running.policies.PromotePolicy(promote)
        async with browsing(port, "/#/support/league") as opened:
            await opened.page.wait_for_selector("[data-candidate=careful]:has-text('canary, 25.0 %')")
            for candidate in evaluation.candidates:
                row = f'[data-candidate="{candidate.candidate}"]'
                for metric in ("UTILITY", "QUALITY", "COST_USD"):
                    told = _adr(candidate, policy_pb.Metric.Value(f"METRIC_{metric}")).difference
                    shown = await opened.number(f'{row} [data-metric="{metric}"]')
                    assert shown == (told.value if told.HasField("value") else 0.0), (candidate.candidate, metric)
                    assert (
                        "to" in await opened.text(f"{row} [data-range-of={metric}]")
                    ) == told.interval.HasField("low")
            path = await opened.text(".path li >> nth=0")
            assert "shadow → canary, 25.0 % of the traffic" in path
            assert "<b>to see it</b>" in path
            assert "forced" in path
            await opened.page.focus(".path summary")
            await opened.page.keyboard.press("Enter")
            assert "at all times at once" in await opened.text(".path li >> nth=0")
            await opened.page.wait_for_timeout(100)
            assert await opened.page.locator(".path details[open]").count() == 1


async def test_a_decision_is_looked_up_by_its_id_and_shown_as_the_api_has_it(
    url: str, featuriser: Featuriser
) -> None:
    async with serving(url, featuriser) as (running, port):
        name = await some_router(running)
        decisions = await some_traffic(running, name)
        await running.settled(name)
        told = await running.decision(decisions[-1])
        async with browsing(port, "/#/support/decision") as opened:
            await opened.page.fill("#decision-id", told.decision_id)
            await opened.page.keyboard.press("Enter")
            await opened.page.wait_for_selector("#decision-model")
            assert await opened.text("#decision-model") == told.model
            assert await opened.number("#decision-probability") == told.probability
            assert await opened.number("#decision-reward") == told.reward
            assert await opened.number("#decision-cost") == told.cost_usd
            for candidate in told.candidates:
                row = f'[data-model="{candidate.model}"]'
                assert await opened.number(f'{row} [data-field="probability"]') == candidate.probability
                assert await opened.number(f'{row} [data-field="predictedQuality"]') == candidate.predicted_quality
                assert (
                    await opened.number(f'{row} [data-field="predictedCostUsd"]') == candidate.predicted_cost_usd
                )
                assert await opened.number(f'{row} [data-field="score"]') == candidate.score
            assert "what it is worth on the typical query" in await opened.text("main")
            chosen = next(each for each in told.candidates if each.model == told.model)
            parts = {
                each: await opened.number(f"[data-total={each}] data >> nth=0")
                for each in ("quality", "cost", "score")
            }
            assert parts["cost"] == -chosen.predicted_cost_usd * told.price_of_money
            assert (parts["quality"], parts["score"]) == (chosen.predicted_quality, chosen.score)
            await opened.page.fill("#decision-id", "none-such")
            await opened.page.keyboard.press("Enter")
            await opened.page.wait_for_selector("main .error:has-text('none-such')")


async def test_a_key_that_may_only_route_looks_decisions_up(url: str, featuriser: Featuriser) -> None:
    async with serving(url, featuriser) as (running, _):
        decision = (await some_traffic(running, await some_router(running), 1))[0]
    key = add_key(url, Scope.ROUTE)
    address = f"/#/support/decision/{decision.decision_id}"
    async with serving(url, featuriser) as (_, port), browsing(port, address) as opened:
        await opened.page.fill("#key-input", key)
        await opened.page.keyboard.press("Enter")
        await opened.page.wait_for_selector(f"#decision-model:has-text('{decision.model}')")


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_the_page_can_be_read_by_everyone(url: str, featuriser: Featuriser, scheme: str) -> None:
    async with serving(url, featuriser) as (running, port):
        name = await some_router(running)
        decisions = await some_traffic(running, name)
        await running.settled(name)
        await evaluated(running, name, 1)
        seen = {
            "#/support": "#decision-count",
            "#/default": ".next",
            "#/support/league": "[data-candidate]",
            "#/support/models": "[data-model]",
            f"#/support/decision/{decisions[0].decision_id}": "#decision-model",
        }
        async with browsing(port, color_scheme=scheme) as opened:
            for address, shown in seen.items():
                await opened.page.goto(f"http://127.0.0.1:{port}/{address}")
                await opened.page.wait_for_selector(shown)
                assert await opened.breaches() == [], address
            await opened.page.goto(f"http://127.0.0.1:{port}/#/support/models")
            await opened.page.click("[data-action=add-model]")
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
