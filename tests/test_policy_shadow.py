"""Shadow mode: the incumbent is left for the policy's draw as often as is logged, and no dearer than agreed."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from builders import choice, decision, models, query, report, router, view
from hypothesis import given
from hypothesis import strategies as st

from policy.books import Explored, expected_loss, gives_up
from policy.choices import Choice
from policy.decide import decide
from policy.domain import Exploration, Router
from policy.exploration import draw, unit_draw
from policy.learner import RouterLearner
from policy.log import DecisionRecord, Usage
from policy.shadow import Compared, affordable_share, explores, mixed

NOW_US = 1
QUALITY = {"a": 0.9, "b": 0.6, "c": 0.3}
SHARES = st.floats(0, 1)


@st.composite
def proposals(draws: st.DrawFn) -> list[float]:
    """A distribution over one to six models, some of which it never draws."""
    weights = draws(st.lists(st.integers(0, 1000), min_size=1, max_size=6).filter(any))
    return [each / sum(weights) for each in weights]


def shadow(of: Router, incumbent: str, decision_id: str = "d", quality: dict[str, float] = QUALITY) -> Choice:
    return decide(view(of, quality), of, query(), decision_id, NOW_US, None, incumbent)


def exploring(share: float, policy: str = "uniform", loss_max: float = 1.0) -> Router:
    """A router of three models that explores in shadow mode."""
    found = router(models(*QUALITY), policy=policy, shadow_explore_share=share)
    spec = replace(found.spec, exploration=Exploration(max_utility_loss=loss_max))
    return replace(found, spec=spec)


@given(proposals(), SHARES, st.integers(0, 5), st.text(max_size=40))
def test_the_mixture_is_a_distribution_and_what_is_drawn_has_a_part_in_it(
    proposal: list[float], share: float, incumbent: int, decision_id: str
) -> None:
    incumbent %= len(proposal)
    probabilities = mixed(proposal, incumbent, share)
    assert sum(probabilities) == pytest.approx(1.0, abs=1e-12)
    assert all(0.0 <= each <= 1.0 + 1e-12 for each in probabilities)
    chosen = draw(decision_id, proposal) if explores(decision_id, share) else incumbent
    assert probabilities[chosen] > 0.0
    again = draw(decision_id, proposal) if explores(decision_id, share) else incumbent
    assert (again, mixed(proposal, incumbent, share)) == (chosen, probabilities)


@given(proposals(), SHARES, st.integers(0, 5), st.floats(0, 1), st.data())
def test_the_share_that_explores_is_what_is_wanted_or_what_can_be_afforded(
    proposal: list[float], wanted: float, incumbent: int, loss_max: float, data: st.DataObject
) -> None:
    scores = data.draw(st.lists(st.floats(-1, 1), min_size=len(proposal), max_size=len(proposal)))
    incumbent %= len(proposal)
    share = affordable_share(wanted, proposal, scores, incumbent, loss_max)
    pairs = list(zip(proposal, scores, strict=True))
    loss = sum(part * max(0.0, scores[incumbent] - score) for part, score in pairs)
    assert 0.0 <= share <= wanted
    assert share * loss <= loss_max + 1e-12
    assert share == wanted or share * loss == pytest.approx(loss_max)


def test_both_draws_of_a_decision_are_independent_and_as_probable_as_logged() -> None:
    """Of 40,000 ids; each bound is five standard errors, a false alarm in a million or fewer."""
    ids = [f"{number:032x}" for number in range(40_000)]
    explored = np.array([explores(each, 0.3) for each in ids])
    drawn = np.array([draw(each, [0.25, 0.75]) for each in ids])
    slack = 5 * 0.5 / math.sqrt(len(ids))
    assert explored.mean() == pytest.approx(0.3, abs=slack)
    assert (explored & (drawn == 0)).mean() == pytest.approx(0.3 * 0.25, abs=slack)
    assert abs(np.corrcoef(explored, [unit_draw(each) for each in ids])[0, 1]) < 5 / math.sqrt(len(ids))


def test_without_a_share_only_the_incumbent_can_be_drawn_and_the_proposal_is_kept() -> None:
    made = shadow(exploring(0.0), "c")
    assert (made.model, made.probability) == ("c", 1.0)
    assert [each.probability for each in made.candidates] == [0.0, 0.0, 1.0]
    assert made.shadow is not None
    assert made.shadow.proposal == pytest.approx([1 / 3] * 3)
    assert made.proposed_model in QUALITY


def test_with_a_share_every_model_that_is_proposed_can_be_drawn() -> None:
    found = {shadow(exploring(0.5), "a", f"d{number}").model for number in range(40)}
    made = shadow(exploring(0.5), "a")
    assert found == set(QUALITY)
    assert [each.probability for each in made.candidates] == pytest.approx([4 / 6, 1 / 6, 1 / 6])
    assert made.probability == next(each.probability for each in made.candidates if each.model == made.model)


def test_a_request_that_wants_no_exploration_has_its_incumbent() -> None:
    of = exploring(1.0)
    asked = query(preference={"exploit_only": True})
    made = decide(view(of, QUALITY), of, asked, "d", NOW_US, None, "c")
    assert (made.model, made.probability, made.proposed_model) == ("c", 1.0, "a")


def test_leaving_a_good_incumbent_is_limited_and_leaving_a_poor_one_is_free() -> None:
    limit = exploring(1.0, loss_max=0.001)
    good, poor = shadow(limit, "a"), shadow(limit, "c")
    assert good.shadow is not None
    assert poor.shadow is not None
    # 500 decisions' worth, a fiftieth of it a decision: of 0.3 that a uniform draw gives up against a.
    assert good.shadow.explore_share == pytest.approx(0.01 / 0.3)
    assert expected_loss(good) == pytest.approx(0.01)
    assert poor.shadow.explore_share == 1.0
    assert expected_loss(poor) == 0.0


def test_the_books_hold_a_draw_against_the_incumbent() -> None:
    left = next(made for number in range(99) if (made := shadow(exploring(0.5), "b", f"d{number}")).model == "c")
    assert gives_up(left) == Explored(1, pytest.approx(0.3), pytest.approx(0.3), 0.0)
    better = next(made for number in range(99) if (made := shadow(exploring(0.5), "b", f"d{number}")).model == "a")
    assert gives_up(better) is None


def named(made: Choice, incumbent: str, seq: int = 1000) -> DecisionRecord:
    return decision(seq=seq, choice=made, incumbent_model=incumbent)


def test_the_proposal_is_compared_with_the_incumbent_where_that_can_be_told() -> None:
    only = exploring(0.0, policy="fixed:a")
    agreed, unsupported = named(shadow(only, "a"), "a"), named(shadow(only, "c"), "c", 1002)
    supported = named(shadow(exploring(0.5, policy="fixed:a"), "c"), "c", 1004)
    found = Compared()
    for each in (agreed, unsupported, supported):
        found = found.entered(each)
    assert (found.decisions, found.agreed, found.unsupported) == (3, 1, 1)
    assert (found.proposed_quality, found.incumbent_quality) == pytest.approx((0.9 * 3, 0.9 + 0.3 * 2))
    assert (found.proposed_cost_usd, found.incumbent_cost_usd) == pytest.approx((0.003, 0.003))


def test_what_the_incumbent_earned_is_counted_where_it_served_and_revised_with_its_reward() -> None:
    of = exploring(0.0, policy="fixed:a")
    made = named(shadow(of, "c"), "c")
    first = report(made, of, reward=0.5, usage=Usage(cost_usd=0.25))
    second = replace(first, learned_reward=0.75, replaces_reward=0.5, charged_usd=None)
    elsewhere = report(made, of, reward=1.0, served_model="a")
    found = Compared()
    for each in (first, second, elsewhere):
        found = found.reported(each, made)
    assert (found.rewards, found.reward_sum, found.calls, found.cost_sum_usd) == (1, 0.75, 1, 0.25)


def test_a_live_router_is_compared_with_the_incumbent_that_is_named() -> None:
    of = router(models(*QUALITY), policy="uniform")
    learner = RouterLearner(of)
    for number in range(60):
        made = decide(view(of, QUALITY), of, query(), f"d{number}", NOW_US)
        learner.on_decision(named(made, "a", 1000 + number))
    found = learner.view(0).router.compared
    assert found.decisions == 60
    assert 0 < found.agreed < 60
    assert found.unsupported == 0
    learner.on_decision(named(choice("b"), "gone", 2000))
    assert learner.view(0).router.compared == found, "an incumbent that is no model here cannot be compared"
