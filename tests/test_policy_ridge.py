"""Ridge regression by recursion: the exact solution, one example at a time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.domain import FloatArray
from policy.ridge import RecursiveLeastSquares, RidgeQuality


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
    learner = RecursiveLeastSquares(size, slope, intercept, prior)
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
    revised, relearned = (RecursiveLeastSquares(size, 10.0, 1.0, prior) for _ in range(2))
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
    learner = RecursiveLeastSquares(20, 10.0, 1.0, 1.0)
    for row, target in zip(rows, targets, strict=True):
        learner.learn(row, target)
    expected = rows[:50] @ closed_form(rows, targets, 10.0, 1.0, 1.0)
    assert [learner.predict(row) for row in rows[:50]] == pytest.approx(expected, abs=1e-8)


def test_without_examples_the_prior_is_predicted() -> None:
    learner = RecursiveLeastSquares(3, 10.0, 1.0, 0.75)
    assert learner.predict(np.array([5.0, -3.0, 1.0])) == 0.75


@pytest.mark.parametrize("learned", range(0, 40, 3))
def test_a_restored_regression_goes_on_to_the_same_bits_wherever_it_was_saved(learned: int) -> None:
    rows, targets = examples(2, 80, 6)
    whole, saved = (RecursiveLeastSquares(6, 10.0, 1.0, 1.0) for _ in range(2))
    for row, target in zip(rows[:learned], targets[:learned], strict=True):
        whole.learn(row, target)
        saved.learn(row, target)
    restored = RecursiveLeastSquares(6, 10.0, 1.0, 1.0)
    restored.restore(saved.state())
    for row, target in zip(rows[learned:], targets[learned:], strict=True):
        whole.learn(row, target)
        restored.learn(row, target)
    assert [restored.predict(row) for row in rows] == [whole.predict(row) for row in rows]


def test_a_restored_regression_shares_nothing_with_the_state_it_came_from() -> None:
    rows, targets = examples(3, 40, 4)
    source = RecursiveLeastSquares(4, 10.0, 1.0, 1.0)
    for row, target in zip(rows[:5], targets[:5], strict=True):
        source.learn(row, target)
    restored = RecursiveLeastSquares(4, 10.0, 1.0, 1.0)
    restored.restore(source.state())
    before = restored.predict(rows[0])
    for row, target in zip(rows[5:], targets[5:], strict=True):
        source.learn(row, target)
    assert restored.predict(rows[0]) == before


def test_what_is_learned_of_one_model_changes_no_other() -> None:
    quality = RidgeQuality(3)
    quality.add("a#1")
    quality.add("b#2")
    row = np.array([0.5, -0.5, 1.0])
    before = quality.predict(row, ["b#2"])
    quality.learn(row, "a#1", 0.0)
    assert quality.predict(row, ["b#2"]) == before
    assert quality.predict(row, ["a#1"]) < before
