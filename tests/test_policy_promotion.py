"""When a candidate may become a router's own policy, and when the former one is to be taken back."""

from __future__ import annotations

from dataclasses import replace

import pytest
from builders import models, router

from policy.candidates import CandidateSpec, FeaturePart, Rule, Threshold
from policy.confidence import Contrast
from policy.domain import Exploration, InvalidFieldError, LearnerKind, Objective, RouterSpec
from policy.evaluation import Evaluation
from policy.evidence import Interval, Metric
from policy.league import CandidateResult
from policy.promotion import (
    better_fixed,
    former,
    is_former,
    live_spec,
    other_policy,
    reason_to_go_back,
    require_candidate_id,
)
from policy.verdict import Requirements


def result(**intervals: tuple[float, float]) -> CandidateResult:
    """The result of a model alone whose differences to the live policy lie there."""
    of = router(models("a"))
    found = Evaluation(of).results().candidate("fixed:a")
    told = {Contrast(Metric(name)): Interval(*ends) for name, ends in intervals.items()}
    return replace(found, sequences={**found.sequences, **told})


@pytest.mark.parametrize(
    ("intervals", "says"),
    [
        ({}, ""),
        ({"utility": (-0.1, 0.3)}, ""),
        ({"utility": (0.02, 0.3)}, "its utility is higher by at least 0.02"),
        ({"utility": (0.3, 0.02)}, ""),
        ({"quality": (0.005, 0.3)}, ""),
        ({"quality": (0.02, 0.3)}, "its quality is higher by at least 0.02"),
        ({"error": (-0.3, -0.005)}, ""),
        ({"error": (-0.3, -0.05)}, "its calls fail less by at least 0.05"),
    ],
)
def test_the_former_policy_is_taken_back_only_with_confidence(
    intervals: dict[str, tuple[float, float]], says: str
) -> None:
    assert reason_to_go_back(result(**intervals), Requirements()).startswith(says)
    assert bool(reason_to_go_back(result(**intervals), Requirements())) is bool(says)


def test_a_guardrail_that_is_not_asked_for_takes_nothing_back() -> None:
    lax = Requirements(quality_loss_max=None, error_increase_max=None)
    assert not reason_to_go_back(result(quality=(0.5, 0.9), error=(-0.9, -0.5)), lax)


def test_the_best_of_the_models_that_are_better_with_confidence_is_named() -> None:
    found = Evaluation(router(models("a", "b", "c"))).results()
    gains = {"fixed:a": (0.1, 0.5), "fixed:b": (0.2, 0.3), "fixed:c": (-0.1, 0.9), "uniform": (0.4, 0.5)}

    def told(each: CandidateResult) -> CandidateResult:
        ends = gains.get(each.id)
        known = {Contrast(Metric.UTILITY): Interval(*ends)} if ends else {}
        return replace(each, sequences={**each.sequences, **known})

    assert better_fixed(found) == ""
    assert better_fixed(replace(found, candidates=tuple(map(told, found.candidates)))) == "fixed:b"


@pytest.mark.parametrize(
    "own",
    [
        {"rules": (Rule("x", "a", equals="y"),)},
        {"threshold": Threshold("a", "b", 0.1)},
        {"features": (FeaturePart.CALLER,)},
        {"policy": "incumbent"},
    ],
)
def test_what_a_router_cannot_have_as_its_own_stays_a_canary(own: dict[str, object]) -> None:
    assert live_spec(CandidateSpec("x", **own), RouterSpec()) is None


@pytest.mark.parametrize("policy", ["learned", "greedy", "uniform", "fixed:a"])
def test_going_back_to_the_former_policy_gives_the_spec_that_was_before(policy: str) -> None:
    before = RouterSpec(
        policy=policy,
        learner=LearnerKind.VOWPAL_WABBIT,
        exploration=Exploration(strength=0.25),
        objective=Objective(budget_usd_per_day=3.0),
        display_name="mine",
    )
    kept = former(17, before)
    assert (kept.id, is_former(kept.id)) == ("previous-17", True)
    candidate = CandidateSpec("x", policy="learned", learner=LearnerKind.RIDGE, objective=Objective())
    after = live_spec(candidate, before)
    assert after is not None
    assert other_policy(before, after)
    back = live_spec(kept, after)
    assert back is not None
    if kept.learns:
        assert back == before
        assert not other_policy(before, back)
    else:
        assert (back.policy, back.display_name) == (policy, "mine")


@pytest.mark.parametrize("name", ["cheapest", "uniform", "incumbent", "fixed:a", "previous-3"])
def test_a_name_that_the_evaluation_gives_is_no_candidates(name: str) -> None:
    with pytest.raises(InvalidFieldError, match="policy_id"):
        require_candidate_id("policy_id", name)
