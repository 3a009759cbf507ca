"""Quality by ridge regression: what one model teaches of the others, and of itself."""

from __future__ import annotations

import numpy as np
import pytest

from policy.ridge import RidgeQuality


def test_what_is_learned_of_one_model_tells_of_hard_queries_for_all_and_of_the_level_of_no_other() -> None:
    quality = RidgeQuality(3)
    quality.add("a#1")
    quality.add("b#2")
    hard, neutral = np.array([0.5, -0.5, 1.0]), np.array([0.0, 0.0, 1.0])
    quality.learn(hard, "a#1", 0.0)
    assert quality.predict(neutral, ["b#2"]) == 1.0
    assert quality.predict(neutral, ["a#1"]) < 1.0
    assert quality.predict(hard, ["a#1"]) < quality.predict(hard, ["b#2"]) < 1.0


def test_rewards_of_all_models_teach_what_is_hard_for_one_that_has_few() -> None:
    """Quality is the model's level less what the first feature says, for each of five models."""
    generator = np.random.default_rng(5)
    models = [f"m{number}#{number}" for number in range(5)]
    quality = RidgeQuality(4)
    for each in models:
        quality.add(each)
    for number in range(2000):
        row = np.append(generator.normal(size=3) / 2, 1.0)
        model = models[-1] if number < 10 else models[number % 4]
        level = 0.4 + 0.1 * models.index(model)
        quality.learn(row, model, float(np.clip(level - 0.2 * row[0] + generator.normal() * 0.05, 0, 1)))
    easy, hard = np.array([-1.0, 0.0, 0.0, 1.0]), np.array([1.0, 0.0, 0.0, 1.0])
    assert quality.predict(easy, models) - quality.predict(hard, models) == pytest.approx(
        np.full(5, 0.4), abs=0.08
    )
