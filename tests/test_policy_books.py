"""The books of exploration, and the cap that they keep."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.books import Explored, expected_loss, gives_up, loss_limit, owed_after
from policy.choices import Candidate, Choice, Exclusion, Query
from policy.decide import decide
from policy.domain import Exploration, Model, ModelSpec, Objective, Prices, Router, RouterMode, RouterSpec
from policy.learner import RouterLearner
from policy.log import DecisionRecord, ReportRecord, Usage

GOOD = Candidate("good", 0.8, quality=0.9, cost_usd=0.001, latency_seconds=0.0, score=0.8)
POOR = Candidate("poor", 0.2, quality=0.6, cost_usd=0.003, latency_seconds=0.0, score=0.3)
GONE = Candidate("gone", 0.0, 1.0, 0.0, 0.0, 1.0, Exclusion.DISABLED)


def choice(model: str, probability: float) -> Choice:
    return Choice(model, probability, (GOOD, POOR, GONE), (), "learned", 0, 100.0)


def test_a_draw_other_than_the_best_known_is_entered_with_what_it_gave_up() -> None:
    given_up = gives_up(choice("poor", 0.2))
    assert given_up is not None
    assert given_up.decisions == 1
    assert (given_up.utility, given_up.quality, given_up.cost_usd) == pytest.approx((0.5, 0.3, 0.002))
    assert Explored().plus(given_up) == given_up
    assert gives_up(choice("good", 0.8)) is None
    assert expected_loss(choice("good", 0.8)) == pytest.approx(0.2 * 0.5)


def test_what_was_not_drawn_is_no_exploration() -> None:
    sure = choice("poor", 1.0)  # a session kept it, or the caller's rule in shadow mode
    assert gives_up(sure) is None
    assert expected_loss(sure) == 0.0


@given(st.lists(st.floats(0, 5), min_size=1, max_size=300), st.floats(0, 1))
def test_whatever_is_asked_the_cap_is_kept_over_any_stretch(asked: list[float], loss_max: float) -> None:
    owed, given_up = 0.0, []
    for each in asked:
        given_up.append(min(each, loss_limit(owed, loss_max)))
        owed = owed_after(owed, given_up[-1], loss_max)
    ends = np.cumsum([0.0, *given_up])
    for start in range(0, len(asked), 7):
        lengths = np.arange(len(ends) - start)
        assert (ends[start:] - ends[start] <= (lengths + 501) * loss_max + 1e-9).all()


def test_in_the_long_run_a_decision_may_give_up_the_cap() -> None:
    owed = 0.0
    for _ in range(5000):
        limit = loss_limit(owed, 0.01)
        owed = owed_after(owed, limit, 0.01)
    assert limit == pytest.approx(0.01)


@pytest.mark.parametrize("cap", [0.0, 0.0005, 0.01])
def test_a_router_whose_models_are_as_uncertain_as_can_be_keeps_its_cap(cap: float) -> None:
    """Rewards are a coin's, models come and go, and money is dear: all kinds of exploration want their share."""
    spec = RouterSpec(objective=Objective(quality_value_usd=0.02), exploration=Exploration(max_utility_loss=cap))
    prices = [Prices(usd_per_request=each) for each in (0.0002, 0.001, 0.004, 0.01)]
    models = tuple(Model(f"m{at}", at + 1, ModelSpec(prices=each)) for at, each in enumerate(prices))
    router = Router("default", spec, models[:3])
    learner = RouterLearner(router)
    draw = np.random.default_rng(0)
    width = len(learner._window.features[0])
    losses, drawn = [], 0.0
    for step in range(1500):
        if step == 500:
            router = Router("default", spec, models)
            learner.on_registry(router)
        seq = 10 + 2 * step
        features = draw.normal(size=width).astype(np.float32) / 16
        found = decide(learner.view(seq), router, Query(features), f"d{step}", 0)
        losses.append(expected_loss(found))
        best = max(each.score for each in found.candidates)
        drawn += best - next(each.score for each in found.candidates if each.model == found.model)
        record = DecisionRecord(seq, 0, 10**12, "default", f"d{step}", found, features, 0.0, 0, 0)
        learner.on_decision(record)
        paid = next(each for each in models if each.id == found.model).spec.prices.usd_per_request
        worse = step > 900 and found.model == "m1"
        learner.on_report(
            ReportRecord(
                seq + 1,
                0,
                f"d{step}",
                usage=Usage(cost_usd=paid),
                charged_usd=paid,
                settles=True,
                subject=found.model,
                learned_reward=float(draw.uniform() < (0.1 if worse else 0.6)),
            ),
            record,
        )
    stretches = np.cumsum(losses)
    assert (stretches <= (np.arange(1500) + 501) * cap + 1e-9).all()
    explored = learner.view(0).router.explored
    assert explored.utility == pytest.approx(drawn)
    assert explored.decisions > 0 if cap else explored == Explored()
    by_model = [each.explored for each in learner.view(0).models.values()]
    assert sum(each.decisions for each in by_model) == explored.decisions
    assert sum(each.cost_usd for each in by_model) == pytest.approx(explored.cost_usd)


def test_shadow_mode_costs_nothing() -> None:
    spec = RouterSpec(mode=RouterMode.SHADOW)
    router = Router("default", spec, (Model("a", 1, ModelSpec()), Model("b", 2, ModelSpec())))
    learner = RouterLearner(router)
    features = np.zeros(len(learner._window.features[0]), np.float32)
    found = decide(learner.view(5), router, Query(features), "d", 0, incumbent_model="b")
    learner.on_decision(DecisionRecord(6, 0, 10**12, "default", "d", found, features, 0.0, 0, 0))
    assert learner.view(6).router.explored == Explored()
