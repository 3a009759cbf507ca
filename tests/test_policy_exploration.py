"""Exploration: the distribution over models, and the draw from it."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shares import inverse_gap_weighting, limited

from policy.exploration import draw, gap_weight, unit_draw

score = st.floats(-1e6, 1.0) | st.just(-math.inf)
rows_of_scores = st.lists(score, min_size=1, max_size=20).filter(
    lambda row: any(math.isfinite(each) for each in row)
)
gammas = st.floats(1e-4, 1e9) | st.just(math.inf)  # what the bounds of Exploration.strength allow
caps = st.floats(0, 1) | st.just(math.inf)


@given(rows_of_scores, gammas, caps)
def test_it_is_a_distribution(scores: list[float], gamma: float, cap: float) -> None:
    found = limited(inverse_gap_weighting(scores, gamma), scores, cap)
    assert sum(found) == pytest.approx(1.0, abs=1e-12)
    assert all(0.0 <= each <= 1.0 + 1e-12 for each in found)


@given(rows_of_scores, gammas, caps)
def test_the_best_has_the_most_mass_and_a_model_that_cannot_be_chosen_has_none(
    scores: list[float], gamma: float, cap: float
) -> None:
    found = limited(inverse_gap_weighting(scores, gamma), scores, cap)
    assert found[scores.index(max(scores))] >= max(found) - 1e-12
    assert not any(each for each, score in zip(found, scores, strict=True) if score == -math.inf)


@given(rows_of_scores, gammas, st.floats(0, 1))
def test_it_gives_up_no_more_utility_than_the_cap(scores: list[float], gamma: float, cap: float) -> None:
    found = limited(inverse_gap_weighting(scores, gamma), scores, cap)
    best = max(scores)
    loss = sum(each * (best - score) for each, score in zip(found, scores, strict=True) if each)
    assert loss <= cap * (1 + 1e-9) + 1e-12


@given(rows_of_scores, st.floats(1, 1e6))
def test_a_better_model_is_never_tried_less_often_than_a_worse_one(scores: list[float], gamma: float) -> None:
    found = inverse_gap_weighting(scores, gamma)
    tried = [each for _, each in sorted(zip(scores, found, strict=True))]
    assert all(worse <= better + 1e-12 for worse, better in pairwise(tried))


def test_it_is_the_published_distribution() -> None:
    scores = [0.9, 0.7, 0.4]
    second, third = 1 / (3 + 10 * 0.2), 1 / (3 + 10 * 0.5)
    assert inverse_gap_weighting(scores, 10.0) == pytest.approx([1 - second - third, second, third])


def test_only_the_models_that_can_be_chosen_are_counted() -> None:
    best, excluded, other = inverse_gap_weighting([0.9, -math.inf, 0.7], 10.0)
    assert [best, other] == pytest.approx(inverse_gap_weighting([0.9, 0.7], 10.0))
    assert excluded == 0.0


def test_without_strength_only_the_best_is_chosen() -> None:
    found = inverse_gap_weighting([0.5, 0.7, 0.7], gap_weight(0, 0.0))
    assert found == [0.0, 1.0, 0.0]


def test_with_a_cap_of_nothing_no_utility_is_given_up() -> None:
    assert limited([0.4, 0.6], [0.5, 0.7], 0.0) == [0.0, 1.0]


@given(st.integers(0, 10**6), st.floats(0.01, 100))
def test_exploration_shrinks_with_rewards_and_grows_with_strength(rewards: int, strength: float) -> None:
    assert gap_weight(rewards + 1, strength) > gap_weight(rewards, strength)
    assert gap_weight(rewards, 2 * strength) < gap_weight(rewards, strength)


@given(st.text(st.characters(exclude_categories=("Cs",))))
def test_the_number_of_a_decision_is_its_own_and_lies_from_0_to_below_1(decision_id: str) -> None:
    assert 0.0 <= unit_draw(decision_id) < 1.0
    assert unit_draw(decision_id) == unit_draw(decision_id)
    assert unit_draw(decision_id) != unit_draw(decision_id + "x")


def test_the_number_of_a_decision_is_the_same_in_every_version() -> None:
    """Else no decision that was logged by an earlier version could be replayed."""
    assert unit_draw("decision-1") == 0.01760622375469101


def test_numbers_are_uniform() -> None:
    """Kolmogorov's distance over 20,000 ids: 2.7 / sqrt(n) is passed by chance once in 1,000,000."""
    numbers = np.sort([unit_draw(f"uniform-{each}") for each in range(20_000)])
    even = (np.arange(20_000) + 0.5) / 20_000
    assert np.abs(numbers - even).max() < 2.7 / math.sqrt(20_000)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_models_are_drawn_as_often_as_their_probabilities_say(seed: int) -> None:
    """Five standard deviations either way for each of five models: a false alarm in 300,000 seeds."""
    probabilities = np.random.default_rng(seed).dirichlet([0.5] * 5)
    n = 20_000
    counts = np.bincount([draw(f"{seed}/{each}", probabilities) for each in range(n)], minlength=5)
    deviation = np.sqrt(n * probabilities * (1 - probabilities)) + 1
    assert (np.abs(counts - n * probabilities) < 5 * deviation).all()


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8).filter(lambda row: sum(row) > 1e-3), st.integers())
def test_a_model_of_probability_0_is_never_drawn_even_where_rounding_leaves_a_gap(
    weights: list[float], number: int
) -> None:
    probabilities = np.array(weights) / sum(weights) * (1 - 1e-3)
    assert probabilities[draw(f"decision-{number}", probabilities)] > 0.0


def test_the_last_possible_model_takes_what_rounding_leaves() -> None:
    assert {draw(f"id-{each}", np.array([1e-9, 1e-9, 0.0])) for each in range(20)} == {1}


def test_the_same_decision_draws_the_same_model() -> None:
    probabilities = np.array([0.3, 0.3, 0.4])
    draws = [draw(f"again-{each}", probabilities) for each in range(50)]
    assert draws == [draw(f"again-{each}", probabilities) for each in range(50)]
    assert set(draws) == {0, 1, 2}
