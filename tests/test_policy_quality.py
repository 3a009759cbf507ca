"""The contract of every learner of quality."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from policy.domain import FloatArray
from policy.quality import QualityLearner
from policy.ridge import RidgeQuality
from policy.vowpal import VowpalQuality

SIZE = 9
MODELS = ["gpt-4o#1", "meta-llama/Llama-3:free@2#2", "a#33"]

Make = Callable[[int], QualityLearner]


@pytest.fixture(params=[RidgeQuality, VowpalQuality])
def make(request: pytest.FixtureRequest) -> Make:
    return request.param


def learner_of(make: Make, models: Sequence[str] = MODELS) -> QualityLearner:
    learner = make(SIZE)
    for each in models:
        learner.add(each)
    return learner


def contexts(seed: int, count: int) -> FloatArray:
    """Rows as the featuriser makes them: float32 values as float64, the last entry 1."""
    rows = np.random.default_rng(seed).normal(size=(count, SIZE)) / 3
    rows[:, -1] = 1.0
    return rows.astype(np.float32).astype(np.float64)


def good_at(row: FloatArray, model: str) -> float:
    """A model's true quality: each is good at what another feature says."""
    return float(np.clip(0.5 + row[MODELS.index(model)], 0, 1))


def learn(learner: QualityLearner, rows: FloatArray, models: Sequence[str] = MODELS) -> None:
    for number, row in enumerate(rows):
        model = models[number % len(models)]
        learner.learn(row, model, good_at(row, model))


PROBES = contexts(99, 40)
NEUTRAL = np.array([0.0] * (SIZE - 1) + [1.0])
"""A query that says nothing: what is left is the level of each model."""


def test_it_learns_which_model_is_good_at_what(make: Make) -> None:
    learner = learner_of(make)
    learn(learner, contexts(1, 3000))
    truth = np.array([[good_at(row, model) for model in MODELS] for row in PROBES])
    found = learner.predict(PROBES, MODELS)
    assert np.abs(found - truth).mean() < 0.1
    assert np.abs(truth - 0.5).mean() > 0.15


def test_a_model_without_rewards_is_taken_to_be_as_good_as_can_be(make: Make) -> None:
    learner = learner_of(make)
    assert learner.predict(PROBES[0], MODELS) == pytest.approx([1.0, 1.0, 1.0])


def test_one_row_gives_one_prediction_a_model_and_many_rows_the_same_ones(make: Make) -> None:
    learner = learner_of(make)
    learn(learner, contexts(2, 30))
    for source in (learner, learner.predictor()):
        many = source.predict(PROBES, MODELS)
        assert source.predict(PROBES[0], MODELS).shape == (3,)
        assert many.shape == (len(PROBES), 3)
        assert many == pytest.approx(np.array([source.predict(row, MODELS) for row in PROBES]), abs=1e-12)


def test_predictions_follow_the_order_that_is_asked_for(make: Make) -> None:
    learner = learner_of(make)
    learn(learner, contexts(2, 30))
    for source in (learner, learner.predictor()):
        asked, reverse = source.predict(PROBES[0], MODELS), source.predict(PROBES[0], MODELS[::-1])
        assert reverse == pytest.approx(asked[::-1], abs=1e-12)
        assert source.predict(PROBES[0], MODELS[1:2]) == pytest.approx(asked[1:2], abs=1e-12)


def test_a_predictor_says_what_the_learner_says_and_stays_while_the_learner_goes_on(make: Make) -> None:
    learner = learner_of(make)
    learn(learner, contexts(3, 20))
    predictor = learner.predictor()
    then = learner.predict(PROBES, MODELS)
    learn(learner, contexts(4, 60))
    learner.remove(MODELS[0])
    assert predictor.predict(PROBES, MODELS) == pytest.approx(then, abs=1e-6)
    assert np.abs(learner.predict(PROBES, MODELS[1:]) - then[:, 1:]).max() > 1e-3


def test_a_predictor_gives_a_model_it_does_not_know_the_prior(make: Make) -> None:
    learner = learner_of(make)
    learn(learner, contexts(5, 60))
    found = learner.predictor().predict(NEUTRAL, [MODELS[0], "new#77"])
    assert found[1] == pytest.approx(1.0)
    assert found[0] == pytest.approx(learner.predict(NEUTRAL, MODELS)[0], abs=1e-6)


def test_a_predictor_of_no_models_answers_too(make: Make) -> None:
    assert make(SIZE).predictor().predict(PROBES[0], ["new#77"]) == pytest.approx([1.0])


def test_adding_and_removing_models_leaves_the_others_as_they_were_to_the_bit(make: Make) -> None:
    learner = learner_of(make)
    learn(learner, contexts(6, 60))
    others = MODELS[:2]
    before = learner.predict(PROBES, others).tobytes()
    learner.add("new#78")
    assert learner.predict(PROBES, others).tobytes() == before
    learner.remove(MODELS[2])
    assert learner.predict(PROBES, others).tobytes() == before


def test_a_model_added_later_begins_at_the_prior(make: Make) -> None:
    learner = learner_of(make)
    learn(learner, contexts(7, 60))
    learner.add("a#34")
    assert learner.predict(NEUTRAL, ["a#34"]) == pytest.approx([1.0])


def test_revised_rewards_move_predictions_towards_the_new_ones_and_leave_the_level_of_others(make: Make) -> None:
    learner, rows = learner_of(make), contexts(16, 200)
    learn(learner, rows[:60], MODELS[1:])
    others = learner.predict(NEUTRAL, MODELS[1:]).tobytes()
    for row in rows:
        learner.learn(row, MODELS[0], 0.75)
    before = learner.predict(PROBES, MODELS[:1])
    for row in rows:
        learner.revise(row, MODELS[0], 0.75, 0.25)
    after = learner.predict(PROBES, MODELS[:1])
    assert before.mean() == pytest.approx(0.75, abs=0.05)
    assert 0.2 < after.mean() < 0.6
    assert learner.predict(NEUTRAL, MODELS[1:]).tobytes() == others


@pytest.mark.parametrize("saved_after", [1, 16, 37])
def test_revisions_go_on_to_the_same_bits_after_a_restore(make: Make, saved_after: int) -> None:
    rows = contexts(17, 60)
    whole, restored = learner_of(make), make(SIZE)
    learn(whole, rows[:saved_after])
    restored.restore(whole.state())
    for learner in (whole, restored):
        learner.revise(rows[0], MODELS[0], good_at(rows[0], MODELS[0]), 0.125)
        learn(learner, rows[saved_after:])
    assert evidence(restored) == evidence(whole)


@pytest.mark.parametrize("model", ["never-added#5", "removed#6"])
def test_learning_about_a_model_that_is_not_there_is_refused(make: Make, model: str) -> None:
    learner = learner_of(make, [*MODELS, "removed#6"])
    learner.remove("removed#6")
    with pytest.raises(KeyError):
        learner.learn(PROBES[0], model, 0.5)
    with pytest.raises(KeyError):
        learner.revise(PROBES[0], model, 0.5, 0.25)


@pytest.mark.parametrize("saved_after", [0, 1, 16, 37])
def test_a_restored_learner_goes_on_to_the_same_bits_as_one_never_interrupted(
    make: Make, saved_after: int
) -> None:
    rows = contexts(8, 80)
    whole = learner_of(make)
    learn(whole, rows[:saved_after])
    restored = make(SIZE)
    restored.restore(whole.state())
    for learner in (whole, restored):
        learner.add("new#79")
        learn(learner, rows[saved_after:])
        learner.learn(rows[0], "new#79", 0.25)
    models = [*MODELS, "new#79"]
    assert restored.predict(PROBES, models).tobytes() == whole.predict(PROBES, models).tobytes()
    assert evidence(restored) == evidence(whole)


def test_restoring_forgets_what_the_learner_knew_before(make: Make) -> None:
    source, target = learner_of(make, MODELS[:1]), learner_of(make)
    learn(source, contexts(9, 20), MODELS[:1])
    learn(target, contexts(10, 20))
    target.restore(source.state())
    assert evidence(target) == evidence(source)
    with pytest.raises(KeyError):
        target.learn(PROBES[0], MODELS[1], 0.5)


def test_a_state_that_was_taken_stays_while_the_learner_goes_on_from_it(make: Make) -> None:
    learner = learner_of(make)
    learn(learner, contexts(11, 20))
    then = evidence(learner)
    first, second = make(SIZE), make(SIZE)
    state = learner.state()
    first.restore(state)
    learn(first, contexts(12, 40))
    second.restore(state)
    assert evidence(second) == then


def test_evidence_is_equal_exactly_when_the_same_was_learned(make: Make) -> None:
    one, same, other = (learner_of(make) for _ in range(3))
    for learner in (one, same, other):
        learn(learner, contexts(13, 20))
    assert evidence(one) == evidence(same)
    other.learn(PROBES[0], MODELS[0], 0.9)
    assert evidence(one) != evidence(other)


def evidence(learner: QualityLearner) -> dict[str, bytes]:
    return {name: np.ascontiguousarray(array).tobytes() for name, array in learner.evidence().items()}
