"""The decision: who is excluded and why, what is chosen, and what the log then says of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from builders import KnownQuality, decision, model, models, query, report, router, view

from policy.choices import Choice, Exclusion, Turn
from policy.circuit import BACK_OFF_US, FAILURES_TO_OPEN
from policy.decide import NoCandidateError, decide, reconsider
from policy.domain import Model, ModelError, ModelState, Router
from policy.exploration import draw
from policy.learner import RouterLearner
from policy.view import PolicyView

NOW_US = 10_000 * 1_000_000
GOOD = {"a": 0.9, "b": 0.6, "c": 0.3}


def choose(
    of: Router,
    quality: Mapping[str, float] = GOOD,
    decision_id: str = "d",
    *,
    latency: Mapping[str, float] | None = None,
    session: str = "",
    incumbent: str = "",
    **asked: Any,
) -> Choice:
    """What is decided for one query; `asked` are the query's own."""
    seen = view(of, quality, latency)
    last = Turn(session, 0.0) if session else None
    return decide(seen, of, query(**asked), decision_id, NOW_US, last, incumbent)


def exploiting(*of: Model, **objective: Any) -> Router:
    """A router that never explores, so that its choices are its preferences."""
    return router(of, strength=0.0, burn_in=0, **objective)


def exclusion(made: Choice, name: str) -> Exclusion | None:
    return next(each.exclusion for each in made.candidates if each.model == name)


def failing(of: Router, *names: str) -> PolicyView:
    """A view just after these models have failed again and again."""
    learner = RouterLearner(of)
    for name in names:
        for number in range(FAILURES_TO_OPEN):
            made = decision(name, 10_000 - FAILURES_TO_OPEN + number)
            learner.on_decision(made)
            learner.on_report(report(made, of, error=ModelError.UNAVAILABLE), made)
    return replace(learner.view(7), quality=KnownQuality(GOOD))


@pytest.mark.parametrize(
    ("spec", "asked", "latency", "why"),
    [
        ({"state": ModelState.DISABLED}, {}, 0.0, Exclusion.DISABLED),
        ({}, {"constraints": {"allowed_models": frozenset({"b"})}}, 0.0, Exclusion.NOT_ALLOWED),
        ({}, {"constraints": {"denied_models": frozenset({"a"})}}, 0.0, Exclusion.DENIED),
        (
            {"capabilities": ("tools",)},
            {"constraints": {"required_capabilities": frozenset({"tools", "vision"})}},
            0.0,
            Exclusion.MISSING_CAPABILITY,
        ),
        (
            {"context_window_tokens": 1000},
            {"input_tokens": 900, "max_output_tokens": 101},
            0.0,
            Exclusion.CONTEXT_WINDOW,
        ),
        ({"per_request": 0.5}, {"constraints": {"max_cost_usd": 0.4}}, 0.0, Exclusion.COST_LIMIT),
        ({}, {"constraints": {"max_latency_seconds": 2.0}}, 3.0, Exclusion.LATENCY_LIMIT),
    ],
)
def test_a_model_is_excluded_for_a_reason_that_the_answer_shows(
    spec: dict[str, Any], asked: dict[str, Any], latency: float, why: Exclusion
) -> None:
    b = model("b", 2, context_window_tokens=2000, capabilities=("tools", "vision"))
    of = router([model("a", 1, **spec), b])
    made = choose(of, latency={"a": latency} if latency else None, **asked)
    assert made.model == "b"
    assert made.probability == 1.0
    assert made.fallbacks == ()
    assert exclusion(made, "a") is why
    assert exclusion(made, "b") is None
    assert made.candidates[0].exclusion_detail
    assert made.candidates[0].probability == 0.0


def test_a_model_at_exactly_every_limit_is_a_candidate() -> None:
    a = model("a", 1, per_request=0.5, context_window_tokens=1000, capabilities=("tools",))
    constraints = {
        "allowed_models": frozenset({"a"}),
        "required_capabilities": frozenset({"tools"}),
        "max_cost_usd": 0.5,
        "max_latency_seconds": 2.0,
    }
    asked = {"input_tokens": 900, "max_output_tokens": 100, "constraints": constraints}
    assert choose(router([a]), latency={"a": 2.0}, **asked).model == "a"


def test_a_model_whose_context_window_is_not_known_takes_any_length() -> None:
    assert choose(router(models("a")), input_tokens=10**9).model == "a"


def test_a_model_that_has_been_failing_is_left_out() -> None:
    of = router(models("a", "b"))
    made = decide(failing(of, "a"), of, query(), "d", NOW_US)
    assert made.model == "b"
    assert exclusion(made, "a") is Exclusion.UNHEALTHY
    assert made.fallbacks == ()


def test_a_model_that_has_been_failing_is_tried_again_after_a_while_by_the_request_that_draws_it() -> None:
    of = router(models("a", "b"), policy="uniform")
    seen, later_us = failing(of, "a"), NOW_US + BACK_OFF_US
    made = {each: decide(seen, of, query(), f"d{each}", later_us) for each in range(40)}
    assert {each.model for each in made.values()} == {"a", "b"}
    for number, each in made.items():
        probabilities = [candidate.probability for candidate in each.candidates]
        assert (each.probability, probabilities) == (0.5, [0.5, 0.5])
        assert each.model == "ab"[draw(f"d{number}", probabilities)]
        assert each.probe == (each.model == "a")
        assert each.fallbacks == (("b",) if each.model == "a" else ())


def test_until_its_back_off_has_passed_a_model_that_has_been_failing_is_not_tried() -> None:
    of = exploiting(*models("a", "b"))
    made = decide(failing(of, "a"), of, query(), "d", NOW_US + BACK_OFF_US - 1)
    assert (made.model, made.probe) == ("b", False)


def test_while_a_probe_is_in_flight_no_other_request_is_one() -> None:
    of = exploiting(*models("a", "b"))
    made = decide(failing(of, "a"), of, query(), "d", NOW_US + BACK_OFF_US, probed={"a#1"})
    assert (made.model, exclusion(made, "a"), made.fallbacks) == ("b", Exclusion.UNHEALTHY, ())


def test_a_session_may_be_the_probe_of_its_model_and_is_no_probe_of_one_that_works() -> None:
    of = router(models("a", "b"), strength=0.0, burn_in=0, session_switch_gain=1.0)
    seen, later_us = failing(of, "a"), NOW_US + BACK_OFF_US
    kept = {each: decide(seen, of, query(), "d", later_us, session=Turn(each, 0.0)) for each in "ab"}
    assert [(each.model, each.probability, each.probe) for each in kept.values()] == [
        ("a", 1.0, True),
        ("b", 1.0, False),
    ]


def test_where_no_model_is_known_to_work_all_are_called_as_if_they_did_and_none_is_a_probe() -> None:
    of = exploiting(*models("a", "b", "c"))
    seen = failing(of, "a", "b", "c")
    for now_us in (NOW_US, NOW_US + BACK_OFF_US):
        made = decide(seen, of, query(), "d", now_us, probed={"a#1"})
        assert (made.model, made.fallbacks, made.probe) == ("a", ("b", "c"), False)


def test_health_is_ignored_where_it_alone_speaks_against_all_that_are_left() -> None:
    of = exploiting(*models("a", "b", "c"))
    denied = query(constraints={"denied_models": frozenset({"a"})})
    made = decide(failing(of, "b", "c"), of, denied, "d", NOW_US)
    assert made.model == "b"
    assert exclusion(made, "a") is Exclusion.DENIED
    assert exclusion(made, "b") is None


def test_where_no_model_is_left_the_error_says_why_for_each() -> None:
    of = router([model("a", 1, state=ModelState.DISABLED), model("b", 2)])
    with pytest.raises(NoCandidateError) as caught:
        choose(of, constraints={"denied_models": frozenset({"b"})})
    assert caught.value.reasons.keys() == {"a", "b"}
    assert "DISABLED" in caught.value.reasons["a"]
    assert "DENIED" in caught.value.reasons["b"]
    assert "routers/support" in str(caught.value)


def test_a_router_without_models_has_no_candidate() -> None:
    with pytest.raises(NoCandidateError, match="no models") as caught:
        choose(router())
    assert caught.value.reasons == {}


def test_the_best_utility_is_chosen_and_the_others_are_fallbacks_best_first() -> None:
    made = choose(exploiting(*models("c", "a", "b")))
    assert made.model == "a"
    assert made.fallbacks == ("b", "c")


def test_to_exploit_only_is_to_take_the_best_for_certain_whatever_the_policy() -> None:
    of = router(models("a", "b"), strength=100.0, policy="uniform")
    for number in range(20):
        made = choose(of, decision_id=f"d{number}", preference={"exploit_only": True})
        assert (made.model, made.probability, made.policy) == ("a", 1.0, "exploit_only")


def test_what_quality_is_worth_to_one_request_changes_its_choice_at_once() -> None:
    of = exploiting(model("a", 1, per_request=0.1), model("b", 2, per_request=0.001), value=1.0)
    assert choose(of).model == "a"
    assert choose(of, preference={"quality_value_usd": 0.01}).model == "b"
    assert choose(of).model == "a"


def test_a_changed_price_changes_the_choice_at_once() -> None:
    cheap, dear = (
        exploiting(model("a", 1, per_request=price), *models("b")[:0], model("b", 2), value=1.0)
        for price in (0.01, 0.9)
    )
    seen = view(cheap, GOOD)
    assert decide(seen, cheap, query(), "d", NOW_US).model == "a"
    assert decide(seen, dear, query(), "d", NOW_US).model == "b"


def test_a_slow_model_is_worth_less_where_time_has_a_price() -> None:
    latency = {"a": 10.0, "b": 1.0}
    of = exploiting(*models("a", "b"), value=1.0)
    hurried = exploiting(*models("a", "b"), value=1.0, latency_price=0.1)
    assert choose(of, latency=latency).model == "a"
    assert choose(hurried, latency=latency).model == "b"
    assert choose(of, latency=latency, preference={"latency_usd_per_second": 0.1}).model == "b"
    assert choose(hurried, latency=latency, preference={"latency_usd_per_second": 0.0}).model == "a"


def test_utility_is_quality_less_cost_and_latency_in_units_of_what_quality_is_worth() -> None:
    of = exploiting(model("a", 1, per_request=0.1), value=2.0, latency_price=0.05)
    candidate = choose(of, latency={"a": 4.0}).candidates[0]
    assert candidate.quality == 0.9
    assert candidate.cost_usd == pytest.approx(0.1)
    assert candidate.latency_seconds == 4.0
    assert candidate.score == pytest.approx(0.9 - 0.1 / 2.0 - 4.0 * 0.05 / 2.0)


def test_under_a_budget_alone_money_and_time_have_the_pacers_price() -> None:
    of = exploiting(model("a", 1, per_request=0.1), budget=0.5, latency_price=0.05)
    seen = replace(view(of, GOOD, {"a": 4.0}), pacer_price=2.0)
    made = decide(seen, of, query(), "d", NOW_US)
    assert made.price_of_money == 2.0
    assert made.candidates[0].score == pytest.approx(0.9 - 2.0 * 0.1 - 2.0 * 4.0 * 0.05)


def test_a_session_keeps_its_model_for_certain() -> None:
    made = choose(router(models("a", "b", "c")), session="c")
    assert (made.model, made.probability, made.sticky) == ("c", 1.0, True)
    assert made.fallbacks == ("a", "b")
    assert [each.probability for each in made.candidates] == [0.0, 0.0, 1.0]


@pytest.mark.parametrize("session", ["b", "removed-since"])
def test_a_session_whose_model_cannot_be_chosen_gets_another(session: str) -> None:
    made = choose(exploiting(*models("a", "b")), session=session, constraints={"denied_models": frozenset({"b"})})
    assert (made.model, made.sticky) == ("a", False)


def test_in_shadow_mode_the_incumbent_is_obeyed_and_the_proposal_told_beside_it() -> None:
    made = choose(exploiting(*models("a", "b", "c")), incumbent="c", session="b")
    assert (made.model, made.probability, made.sticky) == ("c", 1.0, False)
    assert made.proposed_model == "a"


def test_the_incumbent_is_obeyed_even_where_it_would_be_excluded() -> None:
    made = choose(exploiting(*models("a", "b")), incumbent="b", constraints={"denied_models": frozenset({"b"})})
    assert (made.model, made.probability, made.proposed_model) == ("b", 1.0, "a")


def test_without_an_incumbent_nothing_is_proposed_beside_the_choice() -> None:
    assert choose(router(models("a", "b"))).proposed_model == ""


@pytest.mark.parametrize("policy", ["learned", "uniform", "greedy", "cheapest", "fixed:b"])
def test_the_propensity_is_the_chosen_candidates_probability_and_the_logged_draw_can_be_replayed(
    policy: str,
) -> None:
    of = router(models("a", "b", "c"), policy=policy, strength=50.0)
    for number in range(30):
        made = choose(of, decision_id=f"d{number}")
        probabilities = np.array([each.probability for each in made.candidates])
        names = [each.model for each in made.candidates]
        assert made.probability == probabilities[names.index(made.model)] > 0.0
        assert probabilities.sum() == pytest.approx(1.0)
        assert names[draw(f"d{number}", probabilities)] == made.model
        assert made.policy == policy


def test_the_same_arguments_give_the_same_choice_and_other_ids_explore() -> None:
    of = router(models("a", "b", "c"), policy="uniform")
    seen = view(of, GOOD)
    made = [decide(seen, of, query(), f"d{number}", NOW_US) for number in range(40)]
    assert made == [decide(seen, of, query(), f"d{number}", NOW_US) for number in range(40)]
    assert {each.model for each in made} == {"a", "b", "c"}


def test_the_choice_names_the_snapshot_it_was_made_with() -> None:
    assert choose(router(models("a"))).snapshot == 7


def test_a_model_added_since_the_view_was_made_can_be_chosen() -> None:
    before, after = exploiting(*models("a")), exploiting(*models("a", "b"))
    seen = RouterLearner(before).view(0)
    made = decide(seen, after, query(constraints={"denied_models": frozenset({"a"})}), "d", NOW_US)
    assert made.model == "b"


def test_a_router_that_the_learner_has_not_seen_yet_decides_too() -> None:
    of = router(models("a", "b"))
    assert decide(RouterLearner(of).view(0), of, query(), "d", NOW_US).model in {"a", "b"}


def test_a_decision_is_reconsidered_by_what_was_excluded_then_and_nothing_else() -> None:
    disabled = model("c", 3, state=ModelState.DISABLED)
    of = exploiting(*models("a", "b"), disabled)
    outlook, candidates = reconsider(view(of, GOOD), of, query(), {"a"})
    assert [outlook.eligible(index) for index in range(3)] == [False, True, True]
    assert [each.probability for each in candidates] == [0.0] * 3
    assert outlook.scores[1] == candidates[1].score
    with pytest.raises(NoCandidateError):
        reconsider(view(of, GOOD), of, query(), {"a", "b", "c"})
