"""Sessions: a model is kept while switching costs more than it gains, and propensities stay true."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from builders import model, query, router, view

from policy.choices import Candidate, Choice, Turn
from policy.decide import decide
from policy.domain import InvalidFieldError, Prices, Router

MILLION = 1_000_000
"""Input tokens in a long conversation; at a price of p USD for a million, it costs p."""


def pair(price: float = 1.0, **spec: Any) -> Router:
    """Two models, well known, that cost this much for a million input tokens; quality is worth 10 USD."""
    both = [model(name, uid, input_price=price) for uid, name in enumerate("ab", start=1)]
    return router(both, value=10.0, burn_in=spec.pop("burn_in", 0), strength=spec.pop("strength", 0.0), **spec)


def turn(of: Router, quality: Mapping[str, float], last: Turn | None, seed: str = "d", **asked: Any) -> Choice:
    return decide(view(of, quality), of, query(**asked), seed, 0, last)


def candidate(made: Choice, name: str) -> Candidate:
    return next(each for each in made.candidates if each.model == name)


@pytest.mark.parametrize(("better", "sticky"), [(0.84, True), (0.86, False)])
def test_a_model_is_left_for_one_that_is_better_by_more_than_the_switch_gain(better: float, sticky: bool) -> None:
    made = turn(pair(), {"a": 0.8, "b": better}, Turn("a", 0.0))
    assert (made.sticky, made.model, made.probability) == (sticky, "a" if sticky else "b", 1.0)


def test_how_much_a_switch_must_gain_is_the_routers_setting() -> None:
    assert not turn(pair(session_switch_gain=0.01), {"a": 0.8, "b": 0.82}, Turn("a", 0.0)).sticky
    assert turn(pair(session_switch_gain=0.5), {"a": 0.5, "b": 0.9}, Turn("a", 0.0)).sticky


def test_a_full_cache_is_worth_more_than_a_little_quality() -> None:
    """Nine tenths of a dollar are saved, which is 0.09 of quality; with the gain it must have, 0.14."""
    asked = {"input_tokens": MILLION}
    last = Turn("a", MILLION)
    assert turn(pair(), {"a": 0.8, "b": 0.93}, last, **asked).sticky
    assert not turn(pair(), {"a": 0.8, "b": 0.95}, last, **asked).sticky
    assert not turn(pair(), {"a": 0.8, "b": 0.93}, Turn("a", 0.0), **asked).sticky


def test_what_is_in_the_cache_is_in_the_cost_that_is_logged() -> None:
    asked = {"input_tokens": MILLION, "max_output_tokens": 1}
    alone = turn(pair(), {"a": 0.8, "b": 0.8}, None, **asked)
    assert candidate(alone, "a").cost_usd == pytest.approx(1.0)
    grown = turn(pair(), {"a": 0.8, "b": 0.8}, Turn("a", MILLION / 2), **asked)
    assert candidate(grown, "a").cost_usd == pytest.approx(0.55)
    assert candidate(grown, "b").cost_usd == pytest.approx(1.0)
    shrunk = turn(pair(), {"a": 0.8, "b": 0.8}, Turn("a", 5 * MILLION), **asked)
    assert candidate(shrunk, "a").cost_usd == pytest.approx(0.1)
    assert candidate(shrunk, "a").score == pytest.approx(0.8 - 0.1 / 10)


def test_a_caches_own_price_is_used_where_it_is_known() -> None:
    prices = Prices(input_usd_per_million_tokens=1.0, cached_input_usd_per_million_tokens=0.25)
    assert prices.cost_usd(MILLION, 0, MILLION) == pytest.approx(0.25)
    assert Prices(1.0).cost_usd(MILLION, 0, MILLION) == pytest.approx(0.1)
    assert Prices(1.0, cached_input_usd_per_million_tokens=1.0).cost_usd(MILLION, 0, MILLION) == pytest.approx(1.0)


@pytest.mark.parametrize("cached", [-0.1, 1.1, float("nan")])
def test_a_cached_price_is_between_nothing_and_the_input_price(cached: float) -> None:
    with pytest.raises(InvalidFieldError) as caught:
        Prices(1.0, cached_input_usd_per_million_tokens=cached)
    assert caught.value.field == "prices.cached_input_usd_per_million_tokens"


def test_no_model_is_left_on_a_guess() -> None:
    cold = pair(burn_in=10)
    for seed in range(20):
        made = turn(cold, {"a": 0.2, "b": 0.9}, Turn("a", 0.0), seed=f"d{seed}")
        assert (made.model, made.probability, made.sticky) == ("a", 1.0, True)


def test_a_session_that_leaves_is_drawn_with_the_propensities_of_the_policy() -> None:
    of, quality = pair(strength=1.0), {"a": 0.5, "b": 0.9}
    alone = turn(of, quality, None)
    for seed in range(30):
        left = turn(of, quality, Turn("a", 0.0), seed=f"d{seed}")
        assert not left.sticky
        assert 0.0 < candidate(left, "a").probability < 1.0
        assert left.probability == candidate(left, left.model).probability
        assert [each.probability for each in left.candidates] == [each.probability for each in alone.candidates]


def test_conversations_cost_less_with_sessions_than_with_a_draw_for_each_turn() -> None:
    """Two models alike: without a session each turn is a toss, and the other's cache is of no use."""
    of, quality = pair(strength=1.0), {"a": 0.8, "b": 0.8}
    bills = {True: 0.0, False: 0.0}
    for with_sessions in bills:
        for conversation in range(20):
            last: Turn | None = None
            for number in range(1, 11):
                tokens = 20_000 * number
                seen = last if with_sessions else None
                made = turn(of, quality, seen, seed=f"{conversation}-{number}", input_tokens=tokens)
                cached = last.input_tokens if last and last.model == made.model else 0
                bills[with_sessions] += of.models[0].spec.prices.cost_usd(tokens, 0, cached)
                last = Turn(made.model, tokens)
    assert bills[True] < 0.6 * bills[False]
