"""A canary's share of a decision: one draw from the mixture, logged with the probabilities it was drawn by."""

from __future__ import annotations

from collections import Counter
from functools import partial

import pytest
from builders import models, query, router, vector, view

from policy.canary import Canary, RouteRequest
from policy.candidates import CandidateSpec, FeaturePart, Rule, Threshold
from policy.choices import Choice
from policy.decide import decide
from policy.domain import Router, RouterSpec
from policy.exploration import draw
from policy.learner import RouterLearner
from policy.view import PolicyView

QUALITY = {"a": 0.9, "b": 0.5, "c": 0.1}


def three(**spec: object) -> Router:
    return router(models("a", "b", "c"), policy=str(spec.pop("policy", "fixed:a")), **spec)


def made(
    spec: CandidateSpec,
    share: float = 0.25,
    request: RouteRequest | None = None,
    own: PolicyView | None = None,
    of: Router | None = None,
    decision_id: str = "d",
    **asked: object,
) -> Choice:
    of = of or three()
    asking = query(**asked)
    canary = Canary(spec, share, spec.router(of))
    blend = partial(canary.mixed, own, asking, request or RouteRequest())
    return decide(view(of, QUALITY), of, asking, decision_id, 0, blend=blend)


def shares(choice: Choice) -> dict[str, float]:
    return {each.model: each.probability for each in choice.candidates}


def test_the_probabilities_are_those_of_the_mixture_and_the_draw_is_by_them() -> None:
    spec = CandidateSpec("x", policy="uniform")
    choice = made(spec)
    assert shares(choice) == pytest.approx({"a": 0.75 + 0.25 / 3, "b": 0.25 / 3, "c": 0.25 / 3})
    chosen = Counter(made(spec, decision_id=f"d{number}").model for number in range(4000))
    for name, share in shares(choice).items():
        # Five standard deviations: a false alarm in a million.
        assert chosen[name] == pytest.approx(4000 * share, abs=5 * (4000 * share * (1 - share)) ** 0.5)
    for number in range(50):
        choice = made(spec, decision_id=f"d{number}")
        drawn = choice.candidates[draw(f"d{number}", [each.probability for each in choice.candidates])]
        assert (choice.model, choice.probability) == (drawn.model, drawn.probability)


def test_a_share_of_all_leaves_the_live_policy_nothing() -> None:
    assert shares(made(CandidateSpec("x", policy="fixed:c"), 1.0)) == {"a": 0.0, "b": 0.0, "c": 1.0}


def test_rules_and_the_incumbent_see_the_request() -> None:
    rules = CandidateSpec(
        "x", policy="cheapest", rules=(Rule("tier", "c", equals="gold"), Rule("n", "b", at_least=2))
    )
    gold = made(rules, request=RouteRequest(categorical={"tier": "gold"}))
    number = made(rules, request=RouteRequest(numeric={"n": 2.0}))
    incumbent = CandidateSpec("x", policy="incumbent")
    named = made(incumbent, request=RouteRequest(incumbent_model="b"))
    assert shares(gold) == {"a": 0.75, "b": 0.0, "c": 0.25}
    assert shares(number) == {"a": 0.75, "b": 0.25, "c": 0.0}
    assert shares(named) == {"a": 0.75, "b": 0.25, "c": 0.0}
    assert shares(made(incumbent)) == {"a": 1.0, "b": 0.0, "c": 0.0}


def test_an_excluded_model_is_given_nothing() -> None:
    denied = {"constraints": {"denied_models": frozenset({"c"})}}
    assert shares(made(CandidateSpec("x", policy="fixed:c"), **denied))["c"] == 0.0
    incumbent = made(CandidateSpec("x", policy="incumbent"), request=RouteRequest(incumbent_model="c"), **denied)
    assert shares(incumbent) == {"a": 1.0, "b": 0.0, "c": 0.0}
    learner = view(three(), {"a": 0.0, "b": 0.1, "c": 0.9})
    learned = made(CandidateSpec("x", policy="greedy"), own=learner, **denied)
    assert shares(learned) == {"a": 0.75, "b": 0.25, "c": 0.0}


def test_one_that_learns_decides_by_its_own_view_and_not_at_all_without_one() -> None:
    own = view(three(), {"a": 0.0, "b": 0.9, "c": 0.1})
    spec = CandidateSpec("x", policy="greedy")
    assert shares(made(spec, own=own)) == {"a": 0.75, "b": 0.25, "c": 0.0}
    assert shares(made(spec)) == {"a": 1.0, "b": 0.0, "c": 0.0}
    threshold = CandidateSpec("x", threshold=Threshold("b", "c", 0.85))
    assert shares(made(threshold, own=own)) == {"a": 0.75, "b": 0.0, "c": 0.25}
    wide = RouterLearner(Router("wide", RouterSpec(), three().models)).view(1)
    assert shares(made(spec, own=wide)) == {"a": 1.0, "b": 0.0, "c": 0.0}


def test_exploit_only_requests_are_the_live_policys() -> None:
    spec = CandidateSpec("x", policy="fixed:c")
    exploited = made(spec, 1.0, preference={"exploit_only": True})
    assert shares(exploited) == {"a": 1.0, "b": 0.0, "c": 0.0}


def test_what_a_candidate_does_not_see_is_hidden_from_its_learner() -> None:
    spec = CandidateSpec("x", policy="greedy", features=(FeaturePart.CALLER,))
    own = view(three(), {"a": 0.0, "b": 0.9, "c": 0.1})
    assert shares(made(spec, own=own, features=vector(1.0)))["b"] == 0.25
