"""The domain's words: what is refused, and the arithmetic of prices and values."""

from __future__ import annotations

import math
from typing import Any

import pytest
from builders import model, query
from hypothesis import given
from hypothesis import strategies as st

from policy.domain import (
    DEFAULT_QUALITY_VALUE_USD,
    Exploration,
    InvalidFieldError,
    ModelError,
    ModelSpec,
    Objective,
    Prices,
    RewardRule,
    RouterSpec,
    require_model_id,
    require_number,
    require_router_id,
)


@pytest.mark.parametrize("value", ["default", "a", "A-1._x", "7", "x" * 63])
def test_a_plain_name_can_name_a_router(value: str) -> None:
    require_router_id("router_id", value)


@pytest.mark.parametrize("value", ["", "-a", ".a", "a b", "a/b", "a\n", "é", "x" * 64])
def test_a_name_that_would_break_a_path_cannot_name_a_router(value: str) -> None:
    with pytest.raises(InvalidFieldError, match="router_id") as caught:
        require_router_id("router_id", value)
    assert caught.value.field == "router_id"


@pytest.mark.parametrize("value", ["gpt-4o", "meta-llama/Llama-3:free", "m@2024-08-01", "x" * 127])
def test_the_names_that_providers_use_can_name_a_model(value: str) -> None:
    require_model_id("model_id", value)


@pytest.mark.parametrize("value", ["", "/m", "a#1", "a b", "a|b", "m\n", "x" * 128])
def test_a_name_with_signs_that_mean_something_else_cannot_name_a_model(value: str) -> None:
    with pytest.raises(InvalidFieldError):
        require_model_id("model_id", value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -0.001, 1.001])
def test_a_number_outside_its_bounds_or_not_finite_is_refused(value: float) -> None:
    with pytest.raises(InvalidFieldError, match="reward"):
        require_number("reward", value, 0, 1)


def test_both_bounds_are_allowed_but_an_open_lower_bound_is_not() -> None:
    require_number("reward", 0.0, 0, 1)
    require_number("reward", 1.0, 0, 1)
    with pytest.raises(InvalidFieldError, match="above 0"):
        require_number("budget", 0.0, 0, above=True)


@pytest.mark.parametrize(
    ("kind", "fields", "path"),
    [
        (Prices, {"usd_per_request": -1.0}, "prices.usd_per_request"),
        (Prices, {"input_usd_per_million_tokens": math.nan}, "prices.input_usd_per_million_tokens"),
        (ModelSpec, {"context_window_tokens": -1}, "context_window_tokens"),
        (ModelSpec, {"capabilities": ("",)}, "capabilities"),
        (ModelSpec, {"capabilities": tuple(map(str, range(65)))}, "capabilities"),
        (ModelSpec, {"display_name": "x" * 257}, "display_name"),
        (Objective, {"budget_usd_per_request": 0.0}, "objective.budget_usd_per_request"),
        (Objective, {"budget_usd_per_request": 5e-324}, "objective.budget_usd_per_request"),
        (Objective, {"quality_value_usd": 1e300}, "objective.quality_value_usd"),
        (Objective, {"budget_usd_per_day": -1.0}, "objective.budget_usd_per_day"),
        (Objective, {"budget_usd_per_month": math.inf}, "objective.budget_usd_per_month"),
        (Objective, {"budget_usd_per_request": 1.0, "budget_usd_per_day": 1.0}, "objective.budget_usd_per_day"),
        (Objective, {"budget_usd_per_day": 1.0, "budget_usd_per_month": 1.0}, "objective.budget_usd_per_month"),
        (Objective, {"quality_value_usd": 0.0}, "objective.quality_value_usd"),
        (Objective, {"latency_usd_per_second": -1.0}, "objective.latency_usd_per_second"),
        (RewardRule, {"join_window_seconds": 0.0}, "reward_rule.join_window_seconds"),
        (RewardRule, {"signal_weights": {"thumbs": 0.0}}, "reward_rule.signal_weights[thumbs]"),
        (RewardRule, {"missing_reward": 1.5}, "reward_rule.missing_reward"),
        (RewardRule, {"error_reward": -0.5}, "reward_rule.error_reward"),
        (Exploration, {"strength": -1.0}, "exploration.strength"),
        (Exploration, {"burn_in_rewards": -1}, "exploration.burn_in_rewards"),
        (Exploration, {"max_utility_loss": 1.5}, "exploration.max_utility_loss"),
        (RouterSpec, {"embedding_dimensions": 0}, "embedding_dimensions"),
        (RouterSpec, {"session_ttl_seconds": -1.0}, "session_ttl_seconds"),
        (RouterSpec, {"session_switch_gain": -1.0}, "session_switch_gain"),
    ],
)
def test_a_setting_out_of_bounds_is_refused_with_its_path(kind: Any, fields: dict[str, Any], path: str) -> None:
    with pytest.raises(InvalidFieldError) as caught:
        kind(**fields)
    assert caught.value.field == path


tokens = st.integers(0, 10**6)
price = st.floats(0, 1000)


@given(price, price, price, tokens, tokens)
def test_a_call_costs_its_tokens_at_their_prices_and_the_price_of_a_request(
    into: float, out: float, each: float, read: int, written: int
) -> None:
    cost = Prices(into, out, each).cost_usd(read, written)
    assert cost == pytest.approx(each + into * read / 1e6 + out * written / 1e6, rel=1e-12)


def test_prices_are_known_as_soon_as_one_of_them_is_set() -> None:
    assert not Prices().known
    assert Prices(input_usd_per_million_tokens=1).known
    assert Prices(output_usd_per_million_tokens=1).known
    assert Prices(usd_per_request=1).known


def test_quality_has_the_value_that_is_set_else_a_default_and_no_end_of_it_under_a_budget_alone() -> None:
    assert Objective(quality_value_usd=0.2, budget_usd_per_request=0.01).value_usd == 0.2
    assert Objective().value_usd == DEFAULT_QUALITY_VALUE_USD
    for budget in ("budget_usd_per_request", "budget_usd_per_day", "budget_usd_per_month"):
        assert Objective(**{budget: 0.01}).value_usd == math.inf


def test_only_failures_to_answer_are_outages() -> None:
    outages = {error for error in ModelError if error.is_outage}
    assert outages == {ModelError.UNAVAILABLE, ModelError.TIMEOUT, ModelError.RATE_LIMITED}


def test_a_model_added_again_under_its_old_name_is_another_to_learners() -> None:
    assert model("a", 1).key != model("a", 2).key


def test_what_the_caller_says_of_the_inputs_length_goes_before_the_estimate() -> None:
    assert query(input_tokens=70, prompt_tokens=12.5).charged_input_tokens == 70
    assert query(input_tokens=0, prompt_tokens=12.5).charged_input_tokens == 12.5
