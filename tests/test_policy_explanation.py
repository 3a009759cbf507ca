"""Explanations: exact sums whatever was learned, from the typical query, silent where nothing is known."""

from __future__ import annotations

from dataclasses import replace

import builders
import numpy as np
import pytest
from builders import DIMENSIONS, SIZE
from hypothesis import given, settings
from hypothesis import strategies as st

from policy.decide import decide
from policy.domain import LearnerKind, Router
from policy.explanation import CandidateExplanation, Explanation, Source, explain
from policy.layout import FEATURE_VERSION, HASHED, STRUCTURE, STRUCTURE_NAMES
from policy.learner import RouterLearner
from policy.log import DecisionRecord
from policy.view import PolicyView

NAMES = ("a", "b", "c")


def taught(seed: int, rewards: int, **spec: object) -> RouterLearner:
    """A learner of three models, of which rewards tell of the first two only."""
    learner = RouterLearner(builders.router(builders.models(*NAMES), **spec))
    generator = np.random.default_rng(seed)
    for number in range(rewards):
        name = NAMES[int(generator.integers(2))]
        made = builders.decision(name, 1000 + 2 * number, features=full_vector(generator))
        learner.on_decision(made)
        told = builders.report(made, learner.router, reward=float(generator.uniform()))
        learner.on_report(told, made)
    return learner


def full_vector(generator: np.random.Generator) -> np.ndarray:
    result = builders.random_vector(generator)
    result[-1 - HASHED : -1] = generator.normal(size=HASHED)
    return result


def decided(
    learner: RouterLearner, features: np.ndarray, view: PolicyView | None = None
) -> tuple[DecisionRecord, PolicyView]:
    """A decision as it is logged, and the view that it was made with."""
    view = view or learner.view(7)
    choice = decide(view, learner.router, builders.query(features), "0" * 32, 0)
    made = builders.decision(choice.model, 5000, features=features, feature_version=FEATURE_VERSION)
    return replace(made, choice=choice, router_uid=learner.router.uid), view


def drifted(view: PolicyView, offset: float) -> PolicyView:
    return replace(view, models={key: replace(each, offset=offset) for key, each in view.models.items()})


def by_source(candidate: CandidateExplanation) -> dict[str, float]:
    return {each.feature or each.source.value: each.quality for each in candidate.terms}


@settings(deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    rewards=st.integers(0, 60),
    offset=st.sampled_from([0.0, -0.37, 0.2]),
    learner=st.sampled_from(LearnerKind),
)
def test_the_terms_sum_to_what_the_decision_would_predict_now(
    seed: int, rewards: int, offset: float, learner: LearnerKind
) -> None:
    known = taught(seed, rewards, learner=learner)
    features = full_vector(np.random.default_rng([seed, 1]))
    made, view = decided(known, features, drifted(known.view(7), offset))
    found = explain(made, known.router, view)
    assert found.snapshot == made.choice.snapshot == 7
    assert [each.model for each in found.candidates] == list(NAMES)
    for candidate, explained in zip(made.choice.candidates, found.candidates, strict=True):
        assert explained.quality == candidate.quality
        assert sum(each.quality for each in explained.terms) == pytest.approx(candidate.quality, abs=1e-9)
        assert by_source(explained)["drift"] == offset


def test_every_candidate_has_the_same_terms_in_the_same_order() -> None:
    known = taught(1, 40)
    made, view = decided(known, full_vector(np.random.default_rng(2)))
    for candidate in explain(made, known.router, view).candidates:
        names = [each.feature or each.source.value for each in candidate.terms]
        assert names == ["level", "difficulty", "embedding", *STRUCTURE_NAMES, "caller", "drift"]
        assert all((each.value is not None) is (each.source is Source.STRUCTURE) for each in candidate.terms)


def test_on_the_typical_query_all_is_in_the_level() -> None:
    known = taught(3, 50)
    typical = known.view(7).typical_features
    made, view = decided(known, typical.astype(np.float32))
    for candidate in explain(made, known.router, view).candidates:
        terms = by_source(candidate)
        assert terms.pop("level") == pytest.approx(candidate.quality, abs=1e-6)
        assert list(terms.values()) == pytest.approx([0.0] * len(terms), abs=1e-6)


def test_the_typical_query_is_the_mean_of_the_recent_ones_and_blank_before_the_first() -> None:
    known = taught(4, 0)
    blank = np.zeros(SIZE)
    blank[-1] = 1.0
    assert known.view(0).typical_features.tolist() == blank.tolist()
    rows = [full_vector(np.random.default_rng(seed)) for seed in range(300)]
    for number, row in enumerate(rows):
        known.on_decision(builders.decision("a", 1000 + number, features=row))
    recent = np.array(rows[-256:], dtype=np.float64)
    assert known.view(0).typical_features == pytest.approx(recent.mean(axis=0))


@pytest.mark.parametrize(
    ("place", "term"),
    [(0, "embedding"), (DIMENSIONS + 2, "digits"), (DIMENSIONS + STRUCTURE - 1, "commas"), (SIZE - 2, "caller")],
)
def test_the_feature_that_tells_two_models_apart_is_the_one_that_speaks(place: int, term: str) -> None:
    known = RouterLearner(builders.router(builders.models(*NAMES)))
    generator = np.random.default_rng(5)
    for number in range(400):
        row, name = builders.vector(), NAMES[number % 2]
        row[place] = sign = generator.choice([-1.0, 1.0])
        made = builders.decision(name, 1000 + 2 * number, features=row)
        known.on_decision(made)
        reward = 0.5 + 0.3 * sign * (1 if name == "a" else -1)
        known.on_report(builders.report(made, known.router, reward=float(reward)), made)
    row = builders.vector()
    row[place] = 1.0
    made, view = decided(known, row)
    first, second, _ = map(by_source, explain(made, known.router, view).candidates)
    speaks = {name: first[name] - second[name] for name in first}
    assert max(speaks, key=lambda name: abs(speaks[name])) == term
    assert speaks[term] > 0.4


def test_a_model_without_rewards_has_its_prior_for_a_level_and_minds_what_the_others_do() -> None:
    known = taught(6, 50)
    made, view = decided(known, full_vector(np.random.default_rng(7)))
    terms = by_source(explain(made, known.router, view).candidates[2])
    assert terms["difficulty"] != 0.0
    assert [terms[name] for name in ("embedding", *STRUCTURE_NAMES, "caller")] == [0.0] * (STRUCTURE + 2)
    assert explain(made, known.router, view).candidates[2].quality == made.choice.candidates[2].quality


def test_vowpal_wabbits_predictions_are_one_term() -> None:
    known = taught(8, 20, learner=LearnerKind.VOWPAL_WABBIT)
    made, view = decided(known, full_vector(np.random.default_rng(9)))
    for candidate in explain(made, known.router, view).candidates:
        assert [each.source for each in candidate.terms] == [Source.WHOLE, Source.DRIFT]


def reasons(found: Explanation) -> list[str]:
    assert all(bool(each.terms) is not bool(each.detail) for each in found.candidates)
    return [each.detail for each in found.candidates]


def test_a_model_that_was_removed_has_no_terms_and_says_so() -> None:
    known = taught(10, 30)
    made, _ = decided(known, full_vector(np.random.default_rng(11)))
    first, _, third = known.router.models
    other = builders.model("b", uid=6000)
    known.on_registry(replace(known.router, models=(first, other, third)))
    found = explain(made, known.router, known.view(8))
    assert reasons(found) == ["", "it was removed since, and another was added by its name", ""]
    known.on_registry(replace(known.router, models=(first, third)))
    assert reasons(explain(made, known.router, known.view(8))) == ["", "it was removed since", ""]


def test_a_model_that_the_learner_has_yet_to_hear_of_is_explained_by_the_prior() -> None:
    known = taught(12, 30)
    made, view = decided(known, full_vector(np.random.default_rng(13)))
    heard = replace(view, models={}, quality=RouterLearner(builders.router()).view(7).quality)
    found = explain(made, known.router, heard)
    assert [by_source(each)["level"] for each in found.candidates] == [1.0, 1.0, 1.0]
    assert [each.quality for each in found.candidates] == [1.0, 1.0, 1.0]


def gone() -> dict[str, tuple[Router | None, dict[str, object], str]]:
    router = builders.router(builders.models(*NAMES))
    return {
        "router deleted": (None, {}, "was deleted"),
        "router created again": (replace(router, uid=9000), {}, "was deleted"),
        "older features": (router, {"feature_version": "v0"}, "version v0"),
        "other dimensions": (router, {"features": np.ones(12, dtype=np.float32)}, "12 features"),
    }


@pytest.mark.parametrize("what", gone())
def test_of_a_decision_that_nothing_is_known_of_any_more_there_are_no_terms(what: str) -> None:
    known = taught(14, 10)
    made, view = decided(known, full_vector(np.random.default_rng(15)))
    router, fields, said = gone()[what]
    found = explain(replace(made, **fields), router, view if router else None)
    assert found.snapshot is None
    assert len(found.candidates) == 3
    assert all(said in each for each in reasons(found))
