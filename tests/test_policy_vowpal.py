"""Vowpal Wabbit as a learner of quality: what is its own beside the contract."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest

from policy.vowpal import VowpalQuality

SIZE = 5
ROW = np.array([0.5, -0.25, 0.0, 0.125, 1.0])


def learned(name: str = "a#1", reward: float = 0.5) -> VowpalQuality:
    learner = VowpalQuality(SIZE)
    learner.add(name)
    for _ in range(30):
        learner.learn(ROW, name, reward)
    return learner


@pytest.mark.parametrize("name", ["a:b/c@d#1", "x|y z#1", "nul\0l\n#1"])
def test_a_name_with_signs_of_vowpals_format_learns_like_any_other(name: str) -> None:
    assert learned(name).predict(ROW, [name]) == learned("plain#1").predict(ROW, ["plain#1"])


def test_a_model_added_again_under_its_name_knows_nothing_of_the_first() -> None:
    learner = learned("a#1", 0.0)
    learner.remove("a#1")
    learner.add("a#2")
    assert learner.predict(ROW, ["a#2"]) == pytest.approx([1.0])


def weights(learner: VowpalQuality) -> list[tuple[int, int, float]]:
    """All that is not zero in the table: place, offset, value."""
    table, stride = learner._workspace, learner._workspace.get_stride()
    places = [place for place in range(table.num_weights()) if table.get_weight(place) != 0.0]
    return [(place, offset, table.get_weight(place, offset)) for place in places for offset in range(stride)]


def busy(size: int, *names: str) -> VowpalQuality:
    """Has learned of these models, each from rows in which every feature has a value."""
    learner = VowpalQuality(size)
    for name in names:
        learner.add(name)
        for row in np.random.default_rng(size).normal(size=(20, size)):
            learner.learn(row, name, 0.25)
    return learner


@pytest.mark.parametrize("size", [1, 5, 1100])
@pytest.mark.parametrize("name", ["a#1", "a:b|c d#123456789012"])
def test_a_removed_model_leaves_no_weights_and_is_new_if_it_is_added_again(name: str, size: int) -> None:
    learner = busy(size, name)
    assert len(weights(learner)) >= size
    learner.remove(name)
    assert weights(learner) == []
    learner.add(name)
    assert learner.predict(np.eye(size), [name]) == pytest.approx(1.0, abs=0.0)


def test_with_a_model_no_weight_of_another_is_removed() -> None:
    names = [f"m#{number}" for number in range(9)]
    learner, others = busy(1100, *names), names[1:]
    before = learner.predict(np.eye(1100), others).tobytes()
    learner.remove(names[0])
    assert learner.predict(np.eye(1100), others).tobytes() == before
    restored = VowpalQuality(1100)
    restored.restore(learner.state())
    assert restored.predict(np.eye(1100), others).tobytes() == before
    left = learner._places(names[0])
    taken = np.concatenate([learner._places(each) for each in others])
    kept = [place for place in left.tolist() if learner._workspace.get_weight(place) != 0.0]
    assert set(kept) <= set(taken.tolist())
    assert len(kept) < 0.1 * len(left)


@pytest.mark.parametrize("reward", [0.0, 0.25, 1.0])
def test_a_reward_told_again_and_again_is_predicted(reward: float) -> None:
    assert learned(reward=reward).predict(ROW, ["a#1"]) == pytest.approx([reward], abs=0.1)


def test_a_revised_reward_leaves_the_prediction_between_the_old_and_the_new() -> None:
    learner = VowpalQuality(SIZE)
    learner.add("a#1")
    for _ in range(50):
        learner.learn(ROW, "a#1", 0.25)
        learner.revise(ROW, "a#1", 0.25, 0.75)
    assert 0.4 < float(learner.predict(ROW, ["a#1"])[0]) < 0.75


def test_saving_and_loading_leave_no_files_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    learner = learned()
    learner.restore(learner.state())
    learner.predictor().predict(ROW, ["a#1"])
    assert list(tmp_path.iterdir()) == []


def test_two_learners_share_nothing() -> None:
    learned("a#1", 0.0)
    fresh = VowpalQuality(SIZE)
    fresh.add("a#1")
    assert fresh.predict(ROW, ["a#1"]) == pytest.approx([1.0])
