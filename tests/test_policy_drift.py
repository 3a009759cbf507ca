"""Changes are found where there are some, and seldom where there are none."""

from __future__ import annotations

import math

import numpy as np
import pytest
from builders import model, models, random_vector, router, teach

from policy.domain import FloatArray, LearnerKind
from policy.drift import ChangeTest, Level
from policy.learner import RouterLearner
from policy.log import Usage
from policy.simulation import Arrival, Outcome, Round, World, simulate
from policy.view import ModelRecord


def alarms(misses: FloatArray) -> int:
    test = ChangeTest(variance=0.05)
    found = 0
    for miss in misses:
        if test.add(float(miss)):
            found += 1
            test.forget()
    return found


def test_while_nothing_changes_there_is_hardly_an_alarm() -> None:
    """40,000 misses of each kind; an alarm in 20,000 by chance makes more than 10 of them incredible."""
    generator = np.random.default_rng(1)
    assert alarms(generator.normal(size=40_000) * 0.3) <= 10
    assert alarms(generator.uniform(-0.5, 0.5, size=40_000)) <= 10
    for good in (0.5, 0.8, 0.95, 0.99):
        assert alarms((generator.uniform(size=40_000) < good) - good) <= 10


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize(("shift", "within"), [(-1.0, 70), (1.0, 70), (0.5, 250), (-3.0, 20)])
def test_a_change_is_found_soon_and_dated(seed: int, shift: float, within: int) -> None:
    generator = np.random.default_rng(seed)
    test = ChangeTest(variance=0.05)
    assert not any(test.add(float(each)) for each in generator.normal(size=300) * 0.3)
    changed = (generator.normal(size=within) + shift) * 0.3
    since = next(since for since in (test.add(float(miss)) for miss in changed) if since)
    assert 0 < since <= 2 * within
    assert test.mean(since) == pytest.approx(0.3 * shift, abs=0.35)


def test_what_was_forgotten_raises_no_second_alarm() -> None:
    test = ChangeTest(variance=0.05)
    found = [test.add(miss) for miss in [0.0] * 40 + [0.5] * 9]
    assert any(found)
    test.forget()
    assert test.add(0.0) == 0


def follow(level: Level, quality: float, count: int, generator: np.random.Generator) -> int:
    """Feeds rewards around a quality that the learner takes for 0.8; returns how many changes there were."""
    rewards = quality + generator.normal(size=count) * 0.2
    return sum(level.learn(float(each) - 0.8 - level.offset) for each in rewards)


@pytest.mark.parametrize("seed", range(20))
def test_a_return_brings_the_level_to_where_it_was_and_no_higher(seed: int) -> None:
    """Also where it came back in part before that was noticed; a false alarm leaves no trace."""
    generator = np.random.default_rng(seed)
    level = Level()
    follow(level, 0.8, 300, generator)
    assert follow(level, 0.5, 60, generator) >= 1
    assert level.fallen == pytest.approx(0.3, abs=0.12)
    follow(level, 0.8, 300, generator)
    assert level.fallen == pytest.approx(0.0, abs=0.1)
    assert abs(level.offset) < 0.1


def test_a_return_that_was_none_is_followed_down_again_and_still_known_for_a_fall() -> None:
    level = Level()
    generator = np.random.default_rng(9)  # One in which it happens.
    follow(level, 0.8, 300, generator)
    assert follow(level, 0.5, 60, generator) == 2
    assert level.offset < -0.2
    assert level.fallen == pytest.approx(-level.offset)


def test_a_few_bad_answers_in_a_row_move_the_level_by_part_of_what_they_say() -> None:
    """Of a model that is right or wrong, five wrong ones in a row come by chance."""
    level = Level()
    generator = np.random.default_rng(5)
    for right in generator.random(400) < 0.85:
        level.learn(float(right) - 0.85 - level.offset)
    assert level.offset == 0.0
    fell = next(number for number in range(1, 20) if level.learn(-0.85 - level.offset))
    assert fell <= 8
    assert -0.7 < level.offset < -0.2


def test_a_fallen_model_is_tried_the_more_the_better_its_trials_turn_out() -> None:
    level, record = Level(), ModelRecord(changed_at=1000)
    for _ in range(100):
        level.learn(0.0)
    while not level.fallen:
        level.learn(-0.4)
    record.follow(level)
    before = record.retrial(3500)
    assert before == pytest.approx(1.0 / math.sqrt(2501.0))
    level.learn(level.fallen)
    record.follow(level)
    assert record.fallen
    better = record.retrial(3500)
    assert before < better <= 0.1
    level.learn(-0.4)
    record.follow(level)
    assert record.retrial(3500) < better


@pytest.mark.parametrize("seed", range(5))
def test_a_level_follows_a_fall_and_a_return(seed: int) -> None:
    generator = np.random.default_rng(seed)
    level = Level()
    assert follow(level, 0.8, 300, generator) == 0
    assert follow(level, 0.55, 100, generator) >= 1
    assert level.offset == pytest.approx(-0.25, abs=0.08)
    assert level.fallen == pytest.approx(0.25, abs=0.15)
    assert follow(level, 0.8, 30, generator) >= 1
    assert level.offset == pytest.approx(0.0, abs=0.15)
    follow(level, 0.8, 300, generator)
    assert level.offset == pytest.approx(0.0, abs=0.06)
    assert level.fallen < 0.1


def test_a_model_that_becomes_better_has_not_fallen() -> None:
    generator = np.random.default_rng(3)
    level = Level()
    follow(level, 0.6, 300, generator)
    assert follow(level, 0.9, 100, generator) >= 1
    assert level.fallen == 0.0


@pytest.mark.parametrize("learned", [10, 40, 320, 360, 420])
def test_a_restored_level_goes_on_to_the_same_bits(learned: int) -> None:
    generator = np.random.default_rng(4)
    misses = np.concatenate(
        [generator.normal(size=310), generator.normal(size=60) - 1.5, generator.normal(size=90)]
    )
    whole, restored = Level(), Level()
    for miss in misses[:learned]:
        whole.learn(float(miss) * 0.2)
    restored.restore(whole.state())
    for miss in misses[learned:]:
        assert whole.learn(float(miss) * 0.2) == restored.learn(float(miss) * 0.2)
    assert whole.state().tobytes() == restored.state().tobytes()


@pytest.mark.parametrize("kind", list(LearnerKind))
def test_a_fallen_model_is_predicted_lower_everywhere_and_the_others_as_before(kind: LearnerKind) -> None:
    """The first feature says what `a` is good at, before its fall and after."""
    generator = np.random.default_rng(6)
    learner = RouterLearner(router(models("a", "b"), learner=kind))
    good, bad = (random_vector(np.random.default_rng(1)) for _ in range(2))
    good, bad = good.copy(), bad.copy()
    good[:8], bad[:8] = 0.0, 0.0
    good[0], bad[0] = 1.0, -1.0

    def quality(key: str) -> tuple[float, float]:
        view = learner.view(0)
        predicted = [float(view.quality.predict(each.astype(np.float64), [key])[0]) for each in (good, bad)]
        return predicted[0] + view.models[key].offset, predicted[1] + view.models[key].offset

    def rewards(chosen: str, fallen: float, count: int, seq: int) -> None:
        for number in range(count):
            features, usual = ((good, 0.9), (bad, 0.5))[number % 2]
            reward = float(np.clip(usual - fallen + generator.normal() * 0.1, 0, 1))
            teach(learner, chosen, seq + number, features=features, reward=reward)

    rewards("b", 0.0, 200, 1000)
    rewards("a", 0.0, 200, 2000)
    before, other = quality("a#1"), quality("b#2")
    rewards("a", 0.3, 40, 3000)
    after = quality("a#1")
    assert [x - y for x, y in zip(before, after, strict=True)] == pytest.approx([0.3, 0.3], abs=0.1)
    assert quality("b#2") == pytest.approx(other, abs=0.05)


class Regression(World):
    """`a` answers with 0.9 but between two rounds with 0.5; `b` always with 0.7. Both cost the same."""

    first, last = 400, 1000

    def arrivals(self, position: int, model: str) -> tuple[Arrival, ...]:
        good = self.rounds[position].outcomes[model].quality
        fallen = 0.4 if model == "a" and self.first <= position < self.last else 0.0
        return (Arrival(reward=good - fallen, usage=Usage(cost_usd=0.001)),)


def test_a_model_that_falls_is_left_and_found_again_when_it_is_back() -> None:
    generator = np.random.default_rng(9)
    rounds = []
    for _ in range(1800):
        a, b = np.clip([0.9, 0.7] + generator.normal(size=2) * 0.1, 0, 1).tolist()
        rounds.append(Round(random_vector(generator), 20.0, {"a": Outcome(a, 0.001), "b": Outcome(b, 0.001)}))
    chosen = [each.model for each in simulate(Regression(router([model("a", 0), model("b", 1)]), rounds), 1)]

    def share(first: int, last: int) -> float:
        return chosen[first:last].count("a") / (last - first)

    assert share(200, 400) > 0.9
    assert 0.0 < share(450, 1000) < 0.15
    assert share(1300, 1800) > 0.9
