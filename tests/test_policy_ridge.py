"""Ridge regression by recursion: the exact solution, one example at a time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.domain import FloatArray
from policy.ridge import RecursiveLeastSquares, RidgeQuality, precisions


def closed_form(rows: FloatArray, targets: FloatArray, slope: float, intercept: float, prior: float) -> FloatArray:
    """argmin |rows @ w - targets|^2 + slope |w[:-1]|^2 + intercept (w[-1] - prior)^2."""
    size = rows.shape[1]
    precision = np.diag([slope] * (size - 1) + [intercept])
    centre = np.zeros(size)
    centre[-1] = prior
    return centre + np.linalg.solve(precision + rows.T @ rows, rows.T @ (targets - rows @ centre))


def examples(seed: int, count: int, size: int) -> tuple[FloatArray, FloatArray]:
    generator = np.random.default_rng(seed)
    rows = generator.normal(size=(count, size))
    rows[:, -1] = 1.0
    return rows, generator.uniform(size=count)


@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(0, 70),
    size=st.integers(1, 12),
    slope=st.floats(0.5, 50),
    intercept=st.floats(0.1, 10),
    prior=st.floats(-1, 1),
)
def test_recursion_gives_the_closed_form_solution(
    seed: int, count: int, size: int, slope: float, intercept: float, prior: float
) -> None:
    rows, targets = examples(seed, count, size)
    learner = RecursiveLeastSquares(precisions(size, slope, intercept), prior)
    for row, target in zip(rows, targets, strict=True):
        learner.learn(row, target)
    expected = closed_form(rows, targets, slope, intercept, prior)
    probes = np.eye(size)
    found = np.array([learner.predict(probe) for probe in probes])
    assert found == pytest.approx(expected, abs=1e-8)


@given(
    seed=st.integers(0, 2**32 - 1),
    before=st.integers(1, 40),
    after=st.integers(0, 40),
    size=st.integers(1, 12),
    prior=st.floats(-1, 1),
)
def test_revised_targets_give_what_learning_them_from_the_start_gives(
    seed: int, before: int, after: int, size: int, prior: float
) -> None:
    rows, targets = examples(seed, before + after, size)
    generator = np.random.default_rng(seed)
    changed = generator.integers(before, size=3)
    revised, relearned = (RecursiveLeastSquares(precisions(size, 10.0, 1.0), prior) for _ in range(2))
    final = targets.copy()
    for number, (row, target) in enumerate(zip(rows, targets, strict=True)):
        revised.learn(row, target)
        if number == before - 1:
            for each in changed:
                value = generator.uniform()
                revised.revise(rows[each], final[each], value)
                final[each] = value
    last = generator.uniform()
    revised.revise(rows[0], final[0], last)
    final[0] = last
    for row, target in zip(rows, final, strict=True):
        relearned.learn(row, target)
    assert revised.weights == pytest.approx(relearned.weights, abs=1e-9)
    assert revised.predict(rows[0]) == pytest.approx(relearned.predict(rows[0]), abs=1e-9)


def test_recursion_is_still_exact_after_thousands_of_examples() -> None:
    rows, targets = examples(1, 5000, 20)
    learner = RecursiveLeastSquares(precisions(20, 10.0, 1.0), 1.0)
    for row, target in zip(rows, targets, strict=True):
        learner.learn(row, target)
    expected = rows[:50] @ closed_form(rows, targets, 10.0, 1.0, 1.0)
    assert [learner.predict(row) for row in rows[:50]] == pytest.approx(expected, abs=1e-8)


def test_without_examples_the_prior_is_predicted() -> None:
    learner = RecursiveLeastSquares(precisions(3, 10.0, 1.0), 0.75)
    assert learner.predict(np.array([5.0, -3.0, 1.0])) == 0.75


@pytest.mark.parametrize("learned", range(0, 40, 3))
def test_a_restored_regression_goes_on_to_the_same_bits_wherever_it_was_saved(learned: int) -> None:
    rows, targets = examples(2, 80, 6)
    whole, saved = (RecursiveLeastSquares(precisions(6, 10.0, 1.0), 1.0) for _ in range(2))
    for row, target in zip(rows[:learned], targets[:learned], strict=True):
        whole.learn(row, target)
        saved.learn(row, target)
    restored = RecursiveLeastSquares(precisions(6, 10.0, 1.0), 1.0)
    restored.restore(saved.state())
    for row, target in zip(rows[learned:], targets[learned:], strict=True):
        whole.learn(row, target)
        restored.learn(row, target)
    assert [restored.predict(row) for row in rows] == [whole.predict(row) for row in rows]


def test_a_restored_regression_shares_nothing_with_the_state_it_came_from() -> None:
    rows, targets = examples(3, 40, 4)
    source = RecursiveLeastSquares(precisions(4, 10.0, 1.0), 1.0)
    for row, target in zip(rows[:5], targets[:5], strict=True):
        source.learn(row, target)
    restored = RecursiveLeastSquares(precisions(4, 10.0, 1.0), 1.0)
    restored.restore(source.state())
    before = restored.predict(rows[0])
    for row, target in zip(rows[5:], targets[5:], strict=True):
        source.learn(row, target)
    assert restored.predict(rows[0]) == before


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
