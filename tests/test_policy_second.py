"""Second calls are drawn as often as is logged, of models that may be called, whatever model was chosen."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from builders import choice, close, decision, model, models, query, report, router, teach, view
from hypothesis import given
from hypothesis import strategies as st

from policy.choices import Choice, Second
from policy.circuit import Circuit
from policy.decide import decide
from policy.domain import InvalidFieldError, PaidShadow, Router
from policy.exploration import unit_draw
from policy.join import joined
from policy.learner import RouterLearner
from policy.log import ReportRecord, Usage
from policy.second import drawn_second, offered
from policy.second_calls import SecondCalls
from policy.view import PolicyView

NOW_US = 1
QUALITY = {"a": 0.9, "b": 0.6, "c": 0.3}


def paying(*only: str, **spec: Any) -> Router:
    """A router of a, b and c that offers second calls in a fifth of the decisions."""
    return router(models(*QUALITY), policy="uniform", paid_shadow=PaidShadow(0.2, 1.0, only), **spec)


def routed(of: Router, decision_id: str = "d", seen: PolicyView | None = None, **asked: Any) -> Choice:
    """A choice with its offer of a second call."""
    known, asking = seen or view(of, QUALITY), query(**asked)
    made = decide(known, of, asking, decision_id, NOW_US)
    return replace(made, second=offered(known, of, asking, made, decision_id, NOW_US))


def called(of: Router, count: int = 300, **asked: Any) -> set[tuple[str, str]]:
    """The own and the second models of so many decisions with a second call."""
    found = (routed(of, f"d{number}", **asked) for number in range(count))
    return {(each.model, each.second_model) for each in found if each.second_model}


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=6).filter(any), st.floats(0.001, 0.2), st.text(max_size=40)
)
def test_what_is_drawn_has_a_probability_and_is_drawn_again(weights: list[int], share: float, of: str) -> None:
    pool = [each / sum(weights) for each in weights]
    index = drawn_second(of, share, pool)
    assert index is None or pool[index] > 0.0
    assert drawn_second(of, share, pool) == index


def test_draws_are_as_frequent_as_logged_and_independent_of_the_decisions_own() -> None:
    """Of 40,000 ids; each bound is five standard errors, a false alarm in a million or fewer."""
    ids = [f"{number:032x}" for number in range(40_000)]
    pool = (0.25, 0.0, 0.75)
    found = [drawn_second(each, 0.2, pool) for each in ids]
    for index, probability in enumerate(pool):
        slack = 5 * math.sqrt(0.2 * probability / len(ids))
        assert found.count(index) / len(ids) == pytest.approx(0.2 * probability, abs=slack)
    numbers = np.array([unit_draw(each) for each in ids])
    drawn = np.array([each is not None for each in found], dtype=float)
    assert abs(np.corrcoef(numbers, drawn)[0, 1]) < 5 / math.sqrt(len(ids))


def test_every_other_model_alike_may_be_called() -> None:
    made = routed(paying())
    chances = dict(zip(QUALITY, made.second.pool, strict=True)) if made.second else {}
    assert chances.pop(made.model) == 0.0
    assert list(chances.values()) == [0.5, 0.5]
    assert called(paying()) == {(own, second) for own in QUALITY for second in QUALITY if own != second}


def test_without_a_share_there_is_no_offer() -> None:
    assert routed(router(models(*QUALITY))).second is None


def test_neither_what_wants_no_exploration_nor_a_session_that_keeps_its_model_is_offered_one() -> None:
    assert routed(paying(), preference={"exploit_only": True}).second is None
    of = paying()
    kept = replace(routed(of), sticky=True)
    assert offered(view(of, QUALITY), of, query(), kept, "d", NOW_US) is None


def test_models_that_are_excluded_out_of_order_or_of_unknown_cost_are_not_called() -> None:
    assert {second for _, second in called(paying(), constraints={"denied_models": frozenset("c")})} == {"a", "b"}
    of = paying()
    seen = view(of, QUALITY)
    broken = replace(seen.models["b#2"], circuit=Circuit(opened=1, retry_us=10 * NOW_US))
    without_b = replace(seen, models={**seen.models, "b#2": broken})
    found = {routed(of, f"d{number}", without_b).second_model for number in range(300)}
    assert found == {"", "a", "c"}
    unpriced = replace(of, models=(*of.models[:2], model("c", 3)))
    assert {second for _, second in called(unpriced)} == {"a", "b"}


def test_whether_there_is_an_offer_and_what_it_may_cost_is_the_same_whichever_model_was_chosen() -> None:
    of = replace(paying("b"), models=tuple(model(each, uid, per_request=uid) for uid, each in enumerate("abc", 1)))
    made = [routed(of, f"d{number}") for number in range(60)]
    assert {each.model for each in made} == set(QUALITY)
    assert {(each.second.share, each.second.most_usd) for each in made if each.second} == {(0.2, 2.0)}
    for each in made:
        assert each.second is not None
        assert each.second.pool == (0.0, 1.0, 0.0)
        assert each.second_model in (("",) if each.model == "b" else ("", "b"))
        assert each.second_probability == (0.2 if each.second_model else 0.0)


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ((0.21, 1.0), "share"),
        ((math.nan, 1.0), "share"),
        ((0.1, 0.0), "max_usd_per_day"),
        ((0.0, -1.0), "max_usd_per_day"),
        ((0.1, 1.0, ("",)), "models[0]"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_by_its_field(given: tuple[Any, ...], field: str) -> None:
    with pytest.raises(InvalidFieldError) as refused:
        PaidShadow(*given)
    assert refused.value.field == f"paid_shadow.{field}"


def with_second(chosen: str = "a", second: str = "b", *, capped: bool = False) -> Choice:
    """A choice that was certain, with a second call predicted to cost 0.002 USD."""
    own = choice(chosen)
    other = replace(own.candidates[0], model=second, probability=0.0, cost_usd=0.002)
    offer = Second(0.2, (0.0, 1.0), 0.002, "" if capped else second, capped)
    return replace(own, candidates=(*own.candidates, other), second=offer)


def test_the_second_call_is_learned_from_and_charges_no_budget() -> None:
    of = router(models("a", "b"), budget=0.001)
    learner, alone = RouterLearner(of), RouterLearner(of)
    made = decision(choice=with_second())
    for each in (learner, alone):
        each.on_decision(made)
    told = second_report(of, reward=0.75, usage=Usage(cost_usd=0.5), latency_seconds=2.0)
    learner.on_report(told, made)
    known, without = learner.view(0), alone.view(0)
    assert (known.models["b#2"].rewards, known.models["b#2"].reward_sum) == (1, 0.75)
    assert (known.models["b#2"].cost_sum_usd, known.models["b#2"].latency_seconds) == (0.5, 2.0)
    assert known.models["a#1"] == without.models["a#1"]
    assert (known.router.spent_usd, known.router.charged) == (0.0, 0)
    assert known.router.second == SecondCalls(offers=1, calls=1, rewards=1, charged=1, spent_usd=0.5)
    assert learner.view(0).standing == alone.view(0).standing
    restored = RouterLearner.restore(of, learner.state())
    assert restored.fingerprint() == learner.fingerprint()


def second_report(of: Router, **said: Any) -> ReportRecord:
    """A report on the second call of such a decision, as it is stored."""
    made = decision("b")
    return replace(report(made, of, **said), second=True)


def test_a_closed_window_charges_a_second_call_that_was_made_and_none_that_nothing_is_known_of() -> None:
    of = router(models("a", "b"))
    made, untold = decision(choice=with_second()), decision(seq=2000, choice=with_second())
    learner = RouterLearner(of)
    for each in (made, untold):
        learner.on_decision(each)
    told = second_report(of, reward=0.5)
    learner.on_report(told, made)
    close(learner, made, told)
    close(learner, untold)
    found = learner.view(0).router.second
    assert (found.calls, found.charged, found.untold, found.spent_usd) == (2, 0, 1, 0.002)


def test_a_day_without_money_is_counted() -> None:
    learner = RouterLearner(router(models("a", "b")))
    learner.on_decision(decision(choice=with_second(capped=True)))
    assert learner.view(0).router.second == SecondCalls(capped=1)


def test_what_is_told_of_a_second_call_is_no_part_of_the_decisions_own() -> None:
    of = router(models("a", "b"))
    own = report(decision("a"), of, reward=0.25, usage=Usage(cost_usd=1.0))
    second = second_report(of, reward=0.75, usage=Usage(cost_usd=2.0))
    state = joined(True, [own, second])
    assert (state.active, state.reward, state.charged_usd) == (True, 0.25, 1.0)
    assert (state.call(True).reward, state.call(True).charged_usd) == (0.75, 2.0)
    only = joined(True, [second])
    assert (only.active, only.reward, only.charged_usd, only.served_model) == (True, None, None, "")
    assert joined(False, [own]).call(True).reports == ()


def test_a_model_that_is_called_second_learns_as_fast_as_one_that_serves() -> None:
    of = router(models("a", "b"))
    serving, second = RouterLearner(of), RouterLearner(of)
    teach(serving, "b", reward=1.0)
    made = decision("a", choice=with_second())
    second.on_decision(made)
    second.on_report(second_report(of, reward=1.0), made)
    features = made.features.astype(float)
    predicted = [each.view(0).quality.predict(features, ["b#2"])[0] for each in (serving, second)]
    assert predicted[0] == predicted[1]
