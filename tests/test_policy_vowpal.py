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
