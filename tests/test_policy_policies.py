"""The policies: the learned one with its burn-in, and the baselines."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shares import burn_in_of, retrials_of, trials_of

from policy.domain import Exploration, InvalidFieldError
from policy.exploration import Rules
from policy.policies import (
    Fixed,
    Outlook,
    cheapest,
    dearest,
    greedy,
    learned,
    parse_policy,
    uniform,
)
from policy.policy_name import NAMED
from policy.shares import Known
from policy.view import ModelRecord


def outlook(scores: list[float], **changes: Any) -> Outlook:
    """Models that are well known, alike in cost, under a price of money of nothing."""
    count = len(scores)
    rewards = changes.pop("rewards", [1000] * count)
    known = {
        Known.REWARDS: rewards,
        Known.TRIED: changes.pop("tried", rewards),
        Known.FALLEN: changes.pop("fallen", [0.0] * count),
        Known.RETRIAL: changes.pop("retrial", [0.0] * count),
        Known.DOUBT: changes.pop("doubts", [0.0] * count),
        Known.COST: changes.pop("costs_known", [True] * count),
    }
    fields: dict[str, Any] = {
        "ids": tuple("abcdefghijklmnopqrst"[:count]),
        "scores": scores,
        "costs_usd": [0.001] * count,
        "experience": np.ascontiguousarray(np.array([known[each] for each in Known], dtype=np.float64).T),
        "money": 0.0,
        "unit_usd": 0.001,
        "rules": Rules.of(
            changes.pop("exploration", Exploration()),
            changes.pop("rewards_total", 1000 * count),
            changes.pop("loss_max", math.inf),
        ),
    }
    return Outlook(**{**fields, **changes})


@st.composite
def outlooks(draw: st.DrawFn) -> Outlook:
    count = draw(st.integers(1, 12))

    def column(values: st.SearchStrategy[Any]) -> Any:
        return draw(st.lists(values, min_size=count, max_size=count))

    scores = column(st.floats(-10, 1) | st.just(-math.inf))
    scores[draw(st.integers(0, count - 1))] = draw(st.floats(-10, 1))
    return outlook(
        scores,
        costs_usd=column(st.floats(0, 10)),
        costs_known=column(st.booleans()),
        rewards=column(st.integers(0, 60)),
        tried=column(st.integers(0, 60)),
        fallen=column(st.floats(0, 1)),
        retrial=column(st.floats(0, 0.1)),
        money=draw(st.floats(0, 100)),
        unit_usd=draw(st.floats(1e-6, 10)),
        rewards_total=draw(st.integers(0, 10_000)),
        exploration=Exploration(
            draw(st.floats(0, 10)), draw(st.integers(0, 20)), draw(st.floats(0, 1)), draw(st.integers(0, 50))
        ),
    )


NAMES = [*NAMED, "fixed:a", "fixed:not-there"]


@pytest.mark.parametrize("name", NAMES)
@given(which=outlooks())
def test_every_policy_gives_a_distribution_over_the_eligible_models(name: str, which: Outlook) -> None:
    found = parse_policy(name)(which)
    assert len(found) == len(which.scores)
    assert sum(found) == pytest.approx(1.0, abs=1e-9)
    assert all(0.0 <= each <= 1.0 + 1e-9 for each in found)
    assert not any(each for index, each in enumerate(found) if not which.eligible(index))


def test_greedy_always_takes_the_best_score() -> None:
    assert greedy(outlook([0.1, 0.9, 0.5])) == [0.0, 1.0, 0.0]


def test_uniform_takes_every_eligible_model_alike() -> None:
    assert uniform(outlook([0.1, -math.inf, 0.5])) == [0.5, 0.0, 0.5]


def test_cheapest_takes_the_cheapest_that_is_eligible() -> None:
    costs = [0.1, 0.001, 0.01]
    assert cheapest(outlook([0.9, 0.1, 0.5], costs_usd=costs)) == [0.0, 1.0, 0.0]
    assert cheapest(outlook([0.9, -math.inf, 0.5], costs_usd=costs)) == [0.0, 0.0, 1.0]


def test_dearest_takes_the_dearest_that_is_eligible() -> None:
    costs = [0.003, 0.001, 0.002]
    assert dearest(outlook([0.1, 0.1, 0.5], costs_usd=costs)) == [1.0, 0.0, 0.0]
    assert dearest(outlook([-math.inf, 0.9, 0.5], costs_usd=costs)) == [0.0, 0.0, 1.0]


def test_fixed_takes_its_model_though_another_is_better() -> None:
    assert Fixed("a")(outlook([0.1, 0.9])) == [1.0, 0.0]


@pytest.mark.parametrize(("name", "scores"), [("a", [-math.inf, 0.2, 0.9]), ("gone", [0.1, 0.2, 0.9])])
def test_fixed_takes_the_best_where_its_model_cannot_be_chosen(name: str, scores: list[float]) -> None:
    assert Fixed(name)(outlook(scores)) == [0.0, 0.0, 1.0]


def test_the_learned_policy_takes_mostly_the_best_and_tries_the_others() -> None:
    found = learned(outlook([0.9, 0.7]))
    assert found[0] > 0.9
    assert found[1] > 0.0


def test_the_learned_policy_with_no_strength_and_no_burn_in_is_greedy() -> None:
    exploration = Exploration(strength=0.0, burn_in_rewards=0)
    assert learned(outlook([0.9, 0.7], exploration=exploration)) == [1.0, 0.0]


def test_a_new_model_is_tried_more_often_than_a_known_one_with_its_score() -> None:
    new = learned(outlook([0.9, 0.5, 0.5], rewards=[1000.0, 1000.0, 0.0]))
    assert new[2] > 2 * new[1]


def test_the_burn_in_ends_with_the_rewards_it_asks_for() -> None:
    exploration = Exploration(burn_in_rewards=5)
    during = burn_in_of(outlook([0.9, 0.5], rewards=[1000.0, 4.0], exploration=exploration))
    after = burn_in_of(outlook([0.9, 0.5], rewards=[1000.0, 5.0], exploration=exploration))
    assert during[1] > 0.0
    assert not any(after)


def test_a_new_model_too_dear_to_be_the_best_even_if_perfect_is_not_burned_in() -> None:
    rewards, costs = [1000.0, 0.0], [0.001, 0.5]
    assert not any(burn_in_of(outlook([0.9, 0.4], rewards=rewards, costs_usd=costs, money=1.0)))
    assert any(burn_in_of(outlook([0.9, 0.4], rewards=rewards, costs_usd=costs, money=0.1)))


def test_an_excluded_new_model_is_not_burned_in() -> None:
    assert not any(burn_in_of(outlook([0.9, -math.inf], rewards=[1000.0, 0.0])))


@given(st.floats(1, 1e6))
def test_a_dear_new_model_is_tried_so_rarely_that_it_takes_a_small_part_of_a_usual_cost(relative: float) -> None:
    costs = [0.001, 0.001 * relative]
    trial = burn_in_of(outlook([0.5, 0.4], rewards=[1000.0, 0.0], costs_usd=costs))
    assert trial[1] > 0.0
    assert trial[1] * relative <= 0.5


def test_the_cheaper_of_two_new_models_is_tried_more_often() -> None:
    trial = burn_in_of(outlook([0.9, 0.5, 0.5], rewards=[1000, 0, 0], costs_usd=[1e-3, 1e-3, 1e-2]))
    assert trial[1] > trial[2] > 0.0


def test_a_model_that_joined_late_is_tried_while_it_may_well_be_the_best() -> None:
    likely = burn_in_of(outlook([0.7, 0.65, 0.5], doubts=[0.0, 0.1, 0.1]))
    assert likely[0] == likely[2] == 0.0
    assert likely[1] == 0.5
    assert burn_in_of(outlook([0.65, 0.7], doubts=[0.0, 0.1])) == [0.0, 0.0]  # it is the best known


def test_of_a_late_ones_cost_counts_what_it_is_dearer_than_the_best_known() -> None:
    dear = outlook([0.7, 0.65], doubts=[0.0, 0.1], costs_usd=[0.01, 0.02], unit_usd=0.01)
    assert burn_in_of(dear)[1] == pytest.approx(0.05)


def test_a_model_of_unknown_cost_is_tried_until_its_cost_is_known() -> None:
    unknown = learned(outlook([0.9, 0.1], costs_known=[True, False]))
    assert unknown[1] > 0.05
    assert unknown[0] > unknown[1]


def test_models_that_are_all_of_unknown_cost_are_tried_alike() -> None:
    assert learned(outlook([0.9, 0.1], costs_known=[False, False])) == pytest.approx([0.5, 0.5])


@pytest.mark.parametrize("name", ["", "Learned", "fixed", "fixed:", "fixed:a b", "ucb"])
def test_a_policy_that_does_not_exist_is_refused(name: str) -> None:
    with pytest.raises(InvalidFieldError) as caught:
        parse_policy(name)
    assert caught.value.field == "policy"


def test_a_model_that_looks_worse_is_drawn_at_a_known_rate_until_it_has_the_rewards_asked_for() -> None:
    exploration = Exploration(burn_in_rewards=10, trial_rewards=50)
    for rewards, expected in ((9, 0.0), (10, 0.2), (49, 0.2), (50, 0.0)):
        which = outlook([0.9, 0.5], rewards=[1000, rewards], unit_usd=0.01, exploration=exploration)
        assert trials_of(which) == [0.0, expected]
    assert learned(outlook([0.9, 0.5], rewards=[1000, 10], unit_usd=0.01))[1] >= 0.2


def test_a_model_most_of_whose_rewards_never_come_is_not_on_trial_for_longer_than_twice_as_many_calls() -> None:
    exploration = Exploration(burn_in_rewards=10, trial_rewards=50)
    for decisions, expected in ((99, 0.2), (100, 0.0)):
        tried = ModelRecord(decisions=decisions, rewards=12).tried
        which = outlook(
            [0.9, 0.5], rewards=[1000, 12], tried=[1000, tried], unit_usd=0.01, exploration=exploration
        )
        assert trials_of(which) == [0.0, expected]


def test_models_on_trial_share_a_fifth_of_the_requests_and_4_percent_of_a_usual_requests_cost() -> None:
    which = outlook([0.9, 0.5, 0.5], rewards=[1000, 20, 20], costs_usd=[0.001, 0.0, 0.01])
    assert trials_of(which) == pytest.approx([0.0, 0.1, 0.002])


def test_only_a_model_of_known_cost_that_would_be_the_best_if_it_were_perfect_is_on_trial() -> None:
    rewards = [1000, 20]
    assert not any(trials_of(outlook([0.9, 0.4], rewards=rewards, costs_usd=[0.001, 0.5], money=1.0)))
    assert any(trials_of(outlook([0.9, 0.4], rewards=rewards, costs_usd=[0.001, 0.5], money=0.1)))
    assert not any(trials_of(outlook([0.9, 0.4], rewards=rewards, costs_known=[True, False])))
    assert not any(trials_of(outlook([0.9, -math.inf], rewards=rewards)))
    assert not any(trials_of(outlook([0.4, 0.9], rewards=rewards)))


def test_without_exploration_nothing_is_on_trial_and_with_little_seldom() -> None:
    for strength, expected in ((0.0, 0.0), (0.25, 0.05), (1.0, 0.2), (9.0, 0.2)):
        which = outlook([0.8, 0.6], rewards=[1000, 20], unit_usd=0.01, exploration=Exploration(strength))
        assert trials_of(which)[1] == pytest.approx(expected)


def test_a_fallen_model_is_tried_where_it_would_be_the_best_if_it_were_back() -> None:
    fallen, retrial = [0.0, 0.3, 0.3], [0.0, 0.04, 0.04]
    assert retrials_of(outlook([0.8, 0.6, 0.4], fallen=fallen, retrial=retrial)) == [0.0, 0.04, 0.0]


def test_fallen_models_share_a_tenth_of_what_a_usual_request_may_cost() -> None:
    fallen, retrial = [0.0, 0.5, 0.5], [0.0, 0.1, 0.1]
    which = outlook([0.8, 0.6, 0.6], fallen=fallen, retrial=retrial, costs_usd=[0.001, 0.02, 0.0])
    assert retrials_of(which) == pytest.approx([0.0, 0.0025, 0.05])


def test_without_exploration_no_fallen_model_is_tried_and_with_little_seldom() -> None:
    fallen, retrial = [0.0, 0.5], [0.0, 0.08]
    for strength, expected in ((0.0, 0.0), (0.25, 0.02), (1.0, 0.08), (9.0, 0.08)):
        which = outlook([0.8, 0.6], fallen=fallen, retrial=retrial, exploration=Exploration(strength))
        assert retrials_of(which)[1] == pytest.approx(expected)
