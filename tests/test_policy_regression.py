"""Ridge regression by recursion: the exact solution, one example at a time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.domain import FloatArray
from policy.regression import RecursiveLeastSquares, learn_both, precisions


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


class Both:
    """A shared regression and one's own on what it leaves, with the examples that each has had.

    With `longer` the shared one has no intercept, and the own one what that predicts as its first feature.
    """

    def __init__(self, size: int, *, longer: bool = False, slope: float = 10.0, prior: float = 1.0) -> None:
        self._longer, self._features = longer, size - longer
        self.shared = RecursiveLeastSquares(precisions(self._features, slope, 1.0), 0.5)
        self.own = RecursiveLeastSquares(precisions(size + longer, slope, 1.0), prior)
        self.rows: list[FloatArray] = []
        self.targets: list[float] = []

    def learn(self, rows: FloatArray, targets: FloatArray) -> None:
        for row, target in zip(rows, targets, strict=True):
            learn_both(self.shared, self.own, row, target, target)
            predicted = self.shared.predict(row[: self._features])
            self.rows.append(np.append(predicted, row) if self._longer else row)
            self.targets.append(target - predicted)

    def weights(self) -> list[float]:
        return [*self.shared.weights.tolist(), *self.own.weights.tolist()]


@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 70),
    size=st.integers(2, 14),
    slope=st.floats(0.5, 50),
    prior=st.floats(-1, 1),
    longer=st.booleans(),
)
def test_recursion_gives_the_closed_form_solution(
    seed: int, count: int, size: int, slope: float, prior: float, longer: bool
) -> None:
    rows, targets = examples(seed, count, size)
    both = Both(size, longer=longer, slope=slope, prior=prior)
    both.learn(rows, targets)
    features = size - longer
    assert both.shared.weights == pytest.approx(
        closed_form(rows[:, :features], targets, slope, 1.0, 0.5), abs=1e-8
    )
    own = closed_form(np.array(both.rows), np.array(both.targets), slope, 1.0, prior)
    assert both.own.weights == pytest.approx(own, abs=1e-8)


@given(
    seed=st.integers(0, 2**32 - 1),
    before=st.integers(1, 40),
    after=st.integers(0, 40),
    size=st.integers(1, 12),
)
def test_revised_targets_give_what_learning_them_from_the_start_gives(
    seed: int, before: int, after: int, size: int
) -> None:
    rows, targets = examples(seed, before + after, size)
    generator = np.random.default_rng(seed)
    changed = generator.integers(before, size=3)
    revised, relearned = Both(size), Both(size)
    final = targets.copy()
    revised.learn(rows[:before], targets[:before])
    for each in changed:
        value = generator.uniform()
        revised.shared.revise(rows[each], final[each], value)
        final[each] = value
    revised.learn(rows[before:], targets[before:])
    last = generator.uniform()
    revised.shared.revise(rows[0], final[0], last)
    final[0] = last
    relearned.learn(rows, final)
    assert revised.shared.weights == pytest.approx(relearned.shared.weights, abs=1e-9)


@pytest.mark.parametrize("longer", [False, True])
def test_recursion_is_still_exact_after_thousands_of_examples(longer: bool) -> None:
    rows, targets = examples(1, 5000, 20)
    both = Both(20, longer=longer)
    both.learn(rows, targets)
    own = closed_form(np.array(both.rows), np.array(both.targets), 10.0, 1.0, 1.0)
    assert both.own.weights == pytest.approx(own, abs=1e-8)


def test_without_examples_the_prior_is_predicted() -> None:
    learner = RecursiveLeastSquares(precisions(3, 10.0, 1.0), 0.75)
    assert learner.predict(np.array([5.0, -3.0, 1.0])) == 0.75


@pytest.mark.parametrize("learned", range(0, 40, 3))
def test_a_restored_regression_goes_on_to_the_same_bits_wherever_it_was_saved(learned: int) -> None:
    rows, targets = examples(2, 80, 6)
    whole, saved, restored = Both(6), Both(6), Both(6)
    whole.learn(rows[:learned], targets[:learned])
    saved.learn(rows[:learned], targets[:learned])
    restored.shared.restore(saved.shared.state())
    restored.own.restore(saved.own.state())
    whole.learn(rows[learned:], targets[learned:])
    restored.learn(rows[learned:], targets[learned:])
    assert restored.weights() == whole.weights()


def test_a_restored_regression_shares_nothing_with_the_state_it_came_from() -> None:
    rows, targets = examples(3, 40, 4)
    source, restored = Both(4), Both(4)
    source.learn(rows[:5], targets[:5])
    restored.shared.restore(source.shared.state())
    restored.own.restore(source.own.state())
    before = restored.weights()
    source.learn(rows[5:], targets[5:])
    assert restored.weights() == before
