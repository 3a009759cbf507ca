"""Changes made on the console in a real browser: what is done, what is refused and why, and what asks first."""

from __future__ import annotations

from typing import Any

import pytest
from browsers import Opened, browsing
from consoles import evaluated, serving, some_router, some_traffic
from locks import add_key, bearer
from pointsman.v1 import policy_service_pb2 as policy_pb
from pointsman.v1 import registry_service_pb2 as registry_pb
from servers import Running, refusal

from policy.features import Featuriser
from server.keys import Scope

ROUTER = "routers/support"


async def candidate(running: Running, policy_id: str, policy: str, **fields: Any) -> policy_pb.Policy:
    """A candidate of the router, in shadow."""
    spec = policy_pb.Policy(policy=policy, **fields)
    request = policy_pb.CreatePolicyRequest(parent=ROUTER, policy_id=policy_id, policy=spec)
    return (await running.policies.CreatePolicy(request)).policy


async def state_of(running: Running, policy_id: str) -> policy_pb.Policy:
    request = policy_pb.GetPolicyRequest(name=f"{ROUTER}/policies/{policy_id}")
    return (await running.policies.GetPolicy(request)).policy


async def transitions(running: Running) -> list[policy_pb.Transition]:
    request = policy_pb.ListTransitionsRequest(parent=ROUTER)
    return list((await running.policies.ListTransitions(request)).transitions)


async def press(opened: Opened, selector: str) -> None:
    """What is there, by the keyboard."""
    await opened.page.focus(selector)
    await opened.page.keyboard.press("Enter")


async def closed(opened: Opened) -> None:
    """Returns once the dialog is, since the server has taken what was asked."""
    await opened.page.wait_for_selector("dialog:not([open])", state="attached")


async def test_prices_are_changed_by_the_keyboard_and_what_is_wrong_is_said_at_its_field(
    url: str, featuriser: Featuriser
) -> None:
    async with serving(url, featuriser) as (running, port):
        await some_router(running)
        async with browsing(port, "/#/support/models") as opened:
            await opened.page.wait_for_selector("[data-model=small]")
            await opened.page.focus("[aria-label='Edit small']")
            await opened.page.keyboard.press("Enter")
            await opened.page.fill("#model-inputUsdPerMillionTokens", "-3")
            await opened.page.keyboard.press("Enter")
            await opened.page.wait_for_selector("#model-inputUsdPerMillionTokens[aria-invalid]")
            assert "0" in await opened.text("dialog .error")
            await opened.page.fill("#model-inputUsdPerMillionTokens", "0.25")
            await opened.page.fill("#model-capabilities", "tools, json")
            await opened.page.keyboard.press("Enter")
            await opened.page.wait_for_selector(
                '[data-model=small] [data-field=inputUsdPerMillionTokens][value="0.25"]'
            )
            changed = await running.get_model("small", "routers/support")
            assert changed.prices.input_usd_per_million_tokens == 0.25
            assert changed.prices.output_usd_per_million_tokens == 2.0
            assert list(changed.capabilities) == ["tools", "json"]
            await opened.page.click("[data-action=add-model]")
            await opened.page.fill("#model-modelId", "vendor/new-one:free")
            await opened.page.keyboard.press("Enter")
            await opened.page.wait_for_selector("[data-model='vendor/new-one:free']")
            assert (await running.get_model("vendor/new-one:free", "routers/support")).state


async def test_a_change_that_was_overtaken_is_not_made(url: str, featuriser: Featuriser) -> None:
    async with serving(url, featuriser) as (running, port):
        name = await some_router(running)
        async with browsing(port, "/#/support/models") as opened:
            await opened.page.click("[aria-label='Edit small']")
            mine = registry_pb.Model(name=f"{name}/models/small", display_name="theirs")
            await running.registry.UpdateModel(registry_pb.UpdateModelRequest(model=mine))
            await opened.page.fill("#model-displayName", "mine")
            await opened.page.keyboard.press("Enter")
            await opened.page.wait_for_selector("dialog .error:has-text('Somebody else has changed it')")
            assert (await running.get_model("small", name)).display_name == "theirs"


async def test_a_candidate_that_is_refused_says_why_and_goes_on_by_force_with_a_reason(
    url: str, featuriser: Featuriser
) -> None:
    async with serving(url, featuriser) as (running, port):
        name = await some_router(running, policy="uniform")
        await candidate(running, "bad", "fixed:small")
        await some_traffic(running, name, 60)
        await evaluated(running, name, 48)
        promotion = policy_pb.PromotePolicyRequest(
            name=f"{ROUTER}/policies/bad", state=policy_pb.POLICY_STATE_CANARY, canary_share=0.25
        )
        told = await refusal(running.policies.PromotePolicy(promotion))
        async with browsing(port, "/#/support/league") as opened:
            await press(opened, "[aria-label='Promote: bad']")
            await opened.page.fill("#promote-canaryShare", "25")
            await opened.page.keyboard.press("Enter")
            await opened.page.wait_for_selector("dialog .error:visible")
            assert told.metadata["reason_1"] in await opened.text("dialog .error")
            assert (await state_of(running, "bad")).state == policy_pb.POLICY_STATE_SHADOW
            assert await opened.breaches() == []

            await opened.page.focus("#promote-force")
            await opened.page.keyboard.press("Space")
            await opened.page.keyboard.press("Enter")
            await opened.page.wait_for_selector("#promote-reason[aria-invalid]")
            assert (await state_of(running, "bad")).state == policy_pb.POLICY_STATE_SHADOW

            await opened.page.fill("#promote-reason", "to see it on real traffic")
            await opened.page.fill("#promote-actor", "ann")
            await opened.page.keyboard.press("Enter")
            await closed(opened)
            await opened.page.wait_for_selector("[data-policy=bad] .now:has-text('canary 25.0')")
        found = await state_of(running, "bad")
        assert (found.state, found.canary_share) == (policy_pb.POLICY_STATE_CANARY, 0.25)
        last = (await transitions(running))[-1]
        assert (last.forced, last.reason, last.actor) == (True, "to see it on real traffic", "ann")


async def test_a_candidate_goes_from_shadow_to_live_and_the_router_back_again(
    url: str, featuriser: Featuriser
) -> None:
    async with serving(url, featuriser) as (running, port):
        name = await some_router(running, policy="uniform")
        async with browsing(port, "/#/support/league") as opened:
            await press(opened, "[data-action=add-candidate]")
            await opened.page.fill("#candidate-policyId", "thrifty")
            await opened.page.select_option("#candidate-policy", "cheapest")
            await opened.page.fill("#candidate-actor", "ann")
            await opened.page.keyboard.press("Enter")
            await opened.page.wait_for_selector("[data-policy=thrifty] .now:has-text('shadow')")
            assert (await state_of(running, "thrifty")).policy == "cheapest"

            for state, selector, reason in (
                ("POLICY_STATE_CANARY", "[data-policy=thrifty] .now:has-text('canary 10.0')", "a little first"),
                ("POLICY_STATE_LIVE", "[data-policy=thrifty] .now:has-text('live')", "well enough"),
            ):
                await press(opened, "[aria-label='Promote: thrifty']")
                assert await opened.page.input_value("#promote-state") == state
                await opened.page.fill("#promote-reason", reason)
                await opened.page.keyboard.press("Enter")
                await opened.page.check("#promote-force")
                await opened.page.focus("#promote-reason")
                await opened.page.keyboard.press("Enter")
                await opened.page.wait_for_selector(selector)
            assert (await running.get_router(name)).policy == "cheapest"

            await press(opened, "[aria-label^='Go back to it: previous-']")
            assert await opened.page.input_value("#promote-state") == "POLICY_STATE_LIVE"
            await opened.page.fill("#promote-reason", "not so well after all")
            await opened.page.keyboard.press("Enter")
            await opened.page.check("#promote-force")
            await opened.page.focus("#promote-reason")
            await opened.page.keyboard.press("Enter")
            await closed(opened)
            await opened.page.wait_for_selector("[data-key=path] li:has-text('not so well after all')")
        assert (await running.get_router(name)).policy == "uniform"
        assert {each.actor for each in await transitions(running)} == {"ann"}


async def test_what_takes_something_away_asks_first_and_can_be_left_by_the_keyboard(
    url: str, featuriser: Featuriser
) -> None:
    async with serving(url, featuriser) as (running, port):
        name = await some_router(running)
        await candidate(running, "idle", "uniform")
        serve = policy_pb.PromotePolicyRequest(
            name=f"{ROUTER}/policies/idle",
            state=policy_pb.POLICY_STATE_CANARY,
            canary_share=0.5,
            force=True,
            reason="half",
        )
        await running.policies.PromotePolicy(serve)
        async with browsing(port, "/#/support/league") as opened:
            await press(opened, "[aria-label='Take back: idle']")
            assert await opened.page.evaluate("document.querySelector('dialog').matches(':modal')")
            await opened.page.keyboard.press("Escape")
            await closed(opened)
            assert (await state_of(running, "idle")).state == policy_pb.POLICY_STATE_CANARY
            assert await opened.page.evaluate("document.activeElement.dataset.action") == "take-back"

            await press(opened, "[aria-label='Take back: idle']")
            await press(opened, "dialog button[type=submit]")
            await opened.page.wait_for_selector("[data-policy=idle] .now:has-text('shadow')")
            await press(opened, "[aria-label='Retire: idle']")
            assert await opened.breaches() == []
            await opened.page.fill("#retire-reason", "it taught nothing")
            await opened.page.keyboard.press("Enter")
            await opened.page.wait_for_selector("[data-policy=idle]", state="detached")
            assert (await state_of(running, "idle")).state == policy_pb.POLICY_STATE_RETIRED
            assert (await transitions(running))[-1].reason == "it taught nothing"

            await opened.page.click("#views a:has-text('Models')")
            await press(opened, "[aria-label='Disable small']")
            await press(opened, "dialog button[type=submit]")
            await opened.page.wait_for_selector("[data-model=small] .badge:has-text('disabled')")
            assert (await running.get_model("small", name)).state == registry_pb.MODEL_STATE_DISABLED
            await press(opened, "[aria-label='Delete small']")
            assert await opened.page.evaluate("document.activeElement.value") == "cancel"
            await press(opened, "dialog button[type=submit]")
            await opened.page.wait_for_selector("[data-model=small]", state="detached")
            assert (await refusal(running.get_model("small", name))).reason == "MODEL_NOT_FOUND"


async def test_the_learner_goes_back_to_a_snapshot(url: str, featuriser: Featuriser) -> None:
    async with serving(url, featuriser, snapshot_seconds=0.1) as (running, port):
        name = await some_router(running)
        await some_traffic(running, name, 10)
        async with browsing(port, "/#/support/league") as opened:
            shown = await opened.page.wait_for_selector("[data-snapshot]")
            assert shown is not None
            snapshot = await shown.get_attribute("data-snapshot")
            await press(opened, f"button[data-snapshot='{snapshot}']")
            await opened.page.fill("#restore-reason", "the labels were wrong")
            await opened.page.keyboard.press("Enter")
            await opened.page.wait_for_selector(f"[data-key=path] li:has-text('restored {snapshot}')")
        last = (await transitions(running))[-1]
        assert (last.snapshot, last.reason) == (f"{name}/snapshots/{snapshot}", "the labels were wrong")


async def test_a_router_is_created_edited_and_deleted(url: str, featuriser: Featuriser) -> None:
    async with serving(url, featuriser) as (running, port), browsing(port, "/#/default") as opened:
        await press(opened, ".next [data-action=add-router]")
        await opened.page.fill("#edit-routerId", "no spaces here")
        await opened.page.keyboard.press("Enter")
        await opened.page.wait_for_selector("#edit-routerId[aria-invalid]")
        await opened.page.fill("#edit-routerId", "support")
        await opened.page.select_option("#edit-budget", "budgetUsdPerDay")
        await opened.page.fill("#edit-amount", "-4")
        await opened.page.keyboard.press("Enter")
        await opened.page.wait_for_selector("#edit-amount[aria-invalid]")
        assert await opened.breaches() == []
        await opened.page.fill("#edit-amount", "40")
        await opened.page.keyboard.press("Enter")
        await opened.page.wait_for_selector("h1:has-text('support')")
        made = await running.get_router(ROUTER)
        assert made.objective.budget_usd_per_day == 40.0
        assert (made.exploration.max_utility_loss, made.reward_rule.join_window.seconds) == (0.01, 86_400)

        await running.update_router(ROUTER, learner=registry_pb.LEARNER_VOWPAL_WABBIT)
        await opened.page.reload()
        await press(opened, "[data-action=edit-router]")
        assert await opened.page.input_value("#edit-amount") == "40"
        await opened.page.select_option("#edit-budget", "")
        await opened.page.fill("#edit-qualityValueUsd", "0.2")
        await opened.page.select_option("#edit-mode", "ROUTER_MODE_SHADOW")
        await opened.page.fill("#edit-shadowExploreShare", "7")
        await opened.page.fill("#edit-joinWindow", "36")
        await opened.page.fill("#edit-missingReward", "0.5")
        await opened.page.select_option("#edit-storePrompts", "true")
        await press(opened, "dialog button[type=submit]")
        await opened.page.wait_for_selector(".badge:has-text('shadow')")
        changed = await running.get_router(ROUTER)
        assert not changed.objective.HasField("budget_usd_per_day")
        assert (changed.objective.quality_value_usd, changed.shadow_explore_share) == (0.2, 0.07)
        assert changed.reward_rule.join_window.seconds == 36 * 3600
        assert (changed.reward_rule.missing_reward, changed.store_prompts) == (0.5, True)
        assert changed.learner == registry_pb.LEARNER_VOWPAL_WABBIT

        await opened.page.click("#views a:has-text('Models')")
        await press(opened, "[data-action=remove-router]")
        await opened.page.fill("#delete-id", "default")
        await opened.page.keyboard.press("Enter")
        await opened.page.wait_for_selector("dialog .error:has-text('nothing was deleted')")
        assert await running.get_router(ROUTER)
        await opened.page.fill("#delete-id", "support")
        await opened.page.keyboard.press("Enter")
        await opened.page.wait_for_selector("h1:has-text('default')")
        assert (await refusal(running.get_router(ROUTER))).reason == "ROUTER_NOT_FOUND"


async def test_what_it_takes_to_pass_is_changed_and_an_empty_guardrail_is_not_asked_for(
    url: str, featuriser: Featuriser
) -> None:
    async with serving(url, featuriser) as (running, port):
        name = await some_router(running)
        asked = policy_pb.GetPromotionSettingsRequest(name=f"{name}/promotionSettings")
        async with browsing(port, "/#/support/league") as opened:
            await press(opened, "[data-action=edit-gate]")
            assert await opened.breaches() == []
            await opened.page.fill("#gate-latencyFactorMax", "0.5")
            await opened.page.keyboard.press("Enter")
            await opened.page.wait_for_selector("#gate-latencyFactorMax[aria-invalid]")
            await opened.page.fill("#gate-latencyFactorMax", "")
            await opened.page.fill("#gate-utilityMargin", "0.02")
            await opened.page.fill("#gate-automaticCanaryShare", "5")
            await opened.page.fill("#gate-canaryTime", "12")
            await opened.page.fill("#gate-reason", "no latency is reported")
            await opened.page.keyboard.press("Enter")
            await opened.page.wait_for_selector("[data-key=path] li:has-text('no latency is reported')")
        found = (await running.policies.GetPromotionSettings(asked)).promotion_settings
        assert not found.requirements.HasField("latency_factor_max")
        assert (found.requirements.utility_margin, found.requirements.cost_factor_max) == (0.02, 1.1)
        assert (found.automatic_canary_share, found.canary_time.seconds) == (0.05, 12 * 3600)


async def test_of_two_who_edit_a_router_the_second_is_told(url: str, featuriser: Featuriser) -> None:
    async with serving(url, featuriser) as (running, port):
        name = await some_router(running)
        async with browsing(port, "/#/support") as opened:
            await press(opened, "[data-action=edit-router]")
            await running.update_router(name, display_name="theirs")
            await opened.page.fill("#edit-displayName", "mine")
            await opened.page.keyboard.press("Enter")
            await opened.page.wait_for_selector("dialog .error:has-text('Somebody else has changed it')")
            assert (await running.get_router(name)).display_name == "theirs"


@pytest.mark.parametrize("kind", ["none", "weak"])
async def test_without_the_right_key_nothing_is_changed_and_the_form_says_which_it_takes(
    url: str, featuriser: Featuriser, kind: str
) -> None:
    key, weak = add_key(url), add_key(url, Scope.ROUTE)
    async with serving(url, featuriser) as (running, port):
        mine = bearer(key)
        router = registry_pb.CreateRouterRequest(router_id="support", router=registry_pb.Router(policy="uniform"))
        await running.registry.CreateRouter(router, metadata=mine)
        model = registry_pb.CreateModelRequest(parent=ROUTER, model_id="small")
        await running.registry.CreateModel(model, metadata=mine)
        plain = policy_pb.Policy(policy="cheapest")
        made = policy_pb.CreatePolicyRequest(parent=ROUTER, policy_id="thrifty", policy=plain)
        await running.policies.CreatePolicy(made, metadata=mine)
        async with browsing(port, "/#/support/league") as opened:
            await opened.page.fill("#key-input", key)
            await opened.page.keyboard.press("Enter")
            for address, button in (
                ("league", "[aria-label='Promote: thrifty']"),
                ("league", "[aria-label='Retire: thrifty']"),
                ("models", "[aria-label='Delete small']"),
                ("models", "[data-action=edit-router]"),
            ):
                await opened.page.goto(f"http://127.0.0.1:{port}/#/support/{address}")
                await press(opened, button)
                await opened.page.evaluate(
                    "key => sessionStorage.setItem('pointsman.key', key)", "" if kind == "none" else weak
                )
                await press(opened, "dialog button[type=submit]")
                await opened.page.wait_for_selector("dialog .error:has-text('Nothing was changed')")
                await opened.page.evaluate("key => sessionStorage.setItem('pointsman.key', key)", key)
                await opened.page.reload()
        asked = policy_pb.GetPolicyRequest(name=f"{ROUTER}/policies/thrifty")
        found = (await running.policies.GetPolicy(asked, metadata=mine)).policy
        assert found.state == policy_pb.POLICY_STATE_SHADOW
        listed = registry_pb.ListModelsRequest(parent=ROUTER)
        assert len((await running.registry.ListModels(listed, metadata=mine)).models) == 1


async def test_a_key_that_is_revoked_meanwhile_is_asked_for_once_the_form_is_closed(
    url: str, featuriser: Featuriser
) -> None:
    key = add_key(url)
    async with serving(url, featuriser) as (_, port), browsing(port, "/#/default") as opened:
        await opened.page.fill("#key-input", key)
        await opened.page.keyboard.press("Enter")
        await press(opened, "[data-action=edit-router]")
        await opened.page.evaluate("sessionStorage.setItem('pointsman.key', 'pmk_none')")
        await opened.page.wait_for_selector("#notice:not(:empty)")
        assert await opened.page.locator("#edit-displayName").is_visible()
        await opened.page.keyboard.press("Escape")
        await opened.page.wait_for_selector("#key-input")


async def test_a_key_for_a_router_that_is_not_there_yet_creates_it(url: str, featuriser: Featuriser) -> None:
    key = add_key(url, routers=["support"])
    async with serving(url, featuriser) as (running, port), browsing(port) as opened:
        await opened.page.fill("#key-input", key)
        await opened.page.keyboard.press("Enter")
        await press(opened, "[data-action=add-router]")
        await opened.page.fill("#edit-routerId", "sales")
        await opened.page.keyboard.press("Enter")
        await opened.page.wait_for_selector("dialog .error:has-text('sales')")
        await opened.page.fill("#edit-routerId", "support")
        await opened.page.keyboard.press("Enter")
        await opened.page.wait_for_selector("h1:has-text('support')")
        asked = registry_pb.GetRouterRequest(name=ROUTER)
        assert (await running.registry.GetRouter(asked, metadata=bearer(key))).router.name == ROUTER
