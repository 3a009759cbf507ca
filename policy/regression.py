"""Ridge regression, one example at a time: one that all models share, and on what it leaves one of each model."""

from __future__ import annotations

import math

import numpy as np

from policy.compiled import compiled, part_of_compiled
from policy.domain import FloatArray


class RecursiveLeastSquares:
    """The exact ridge solution, updated with each example by `learn_both` (Sherman and Morrison 1950).

    The inverse is `base - outer(pending, pending)`, of which the base is kept below its diagonal only and is
    symmetric: what the last example takes from it is taken when the next one reads it, since most of what
    learning takes is reading a matrix that does not fit the cache.
    Axes: features. `precision` is how strongly each weight is shrunk, the last one, the intercept's,
    towards `prior` and the others towards 0.
    """

    def __init__(self, precision: FloatArray, prior: float) -> None:
        size = len(precision)
        # The base, pending and the weights in one array: each that compiled code is given takes time.
        self.block: FloatArray = np.zeros((size + 2, size))
        self.block[:size] = np.diag(1.0 / precision)
        self.weights = self.block[-1]
        self.weights[-1] = prior

    def predict(self, x: FloatArray) -> float:
        """The prediction for one example."""
        return float(self.weights @ x)

    def revise(self, x: FloatArray, old: float, new: float) -> None:
        """Makes `new` the target of an example that was learned with `old`, whatever was learned since.

        The weights are P (L w0 + X' y), with the inverse P = (L + X' X)^-1, the prior's precision L and
        mean w0, the examples X and their targets y. P does not depend on y, so that one target more by
        d adds P x d. While all examples weigh the same, the result is what relearning would give; of an
        example that has been discounted since, d counts in full.
        """
        _revise(self.block, x, new - old)

    def state(self) -> FloatArray:
        """Everything, for `restore`; of the base its triangle, which is half of what a snapshot takes."""
        size = len(self.weights)
        return np.concatenate([self.block[:size][np.tri(size, dtype=bool)], self.block[size:].ravel()])

    def restore(self, state: FloatArray) -> None:
        """Takes back what `state` gave."""
        size = len(self.weights)
        rest = self.block[size:]
        self.block[:size][np.tri(size, dtype=bool)] = state[: -rest.size]
        rest[:] = state[-rest.size :].reshape(rest.shape)


def learn_both(
    shared: RecursiveLeastSquares, own: RecursiveLeastSquares, x: FloatArray, shared_target: float, target: float
) -> None:
    """One example for two: `shared` learns `shared_target`, and `own` what is left of `target` when what `shared`
    predicts from here on is taken from it.

    `shared` has as many of the features x (features,) as it has weights, from the first on. `own` has all of them;
    one that has a weight more than that has what `shared` predicts before them.
    """
    _learn_both(shared.block, own.block, x, shared_target, target)


@part_of_compiled(sums_in_any_order=True)
def _gain(block: FloatArray, x: FloatArray, gain: FloatArray) -> None:
    """Takes what is pending from the base, and makes of `gain` (features,) the base times x.

    What lies left of the diagonal counts twice, for its own row and mirrored for that of its column. Four rows
    at a time, or the vectors would be read from the cache for each of them.
    """
    size = len(x)
    pending = block[size]
    gain[:] = 0.0
    _corner(block, x, gain, 0, size % 4)
    for row in range(size % 4, size, 4):
        one, two, three, four = block[row], block[row + 1], block[row + 2], block[row + 3]
        x_one, x_two, x_three, x_four = x[row], x[row + 1], x[row + 2], x[row + 3]
        by_one, by_two, by_three, by_four = pending[row], pending[row + 1], pending[row + 2], pending[row + 3]
        first = second = third = fourth = 0.0
        for left in range(row):
            x_left, by_left = x[left], pending[left]
            in_one, in_two = one[left] - by_one * by_left, two[left] - by_two * by_left
            in_three, in_four = three[left] - by_three * by_left, four[left] - by_four * by_left
            one[left], two[left], three[left], four[left] = in_one, in_two, in_three, in_four
            first += in_one * x_left
            second += in_two * x_left
            third += in_three * x_left
            fourth += in_four * x_left
            gain[left] += in_one * x_one + in_two * x_two + in_three * x_three + in_four * x_four
        gain[row], gain[row + 1], gain[row + 2], gain[row + 3] = first, second, third, fourth
        _corner(block, x, gain, row, row + 4)


@part_of_compiled(sums_in_any_order=True)
def _corner(block: FloatArray, x: FloatArray, gain: FloatArray, start: int, stop: int) -> None:
    """As `_gain`, of the part of the triangle that these rows and columns share, added to the gain."""
    pending = block[len(x)]
    for row in range(start, stop):
        for left in range(start, row):
            block[row, left] -= pending[row] * pending[left]
            gain[row] += block[row, left] * x[left]
            gain[left] += block[row, left] * x[row]
        block[row, row] -= pending[row] * pending[row]
        gain[row] += block[row, row] * x[row]


@part_of_compiled(sums_in_any_order=True)
def _learn(block: FloatArray, x: FloatArray, target: float) -> float:
    """Moves the weights by an example, whose new prediction is returned, and leaves pending what it takes."""
    size = len(x)
    gain, pending, weights = np.empty(size), block[size], block[size + 1]
    _gain(block, x, gain)
    scale, miss = 1.0, target
    for index in range(size):
        scale += x[index] * gain[index]
        miss -= weights[index] * x[index]
    step, root = miss / scale, math.sqrt(scale)
    for index in range(size):
        weights[index] += step * gain[index]
        pending[index] = gain[index] / root
    return target - step


@compiled("void(f8[:, ::1], f8[:, ::1], f8[::1], f8, f8)", sums_in_any_order=True)
def _learn_both(shared: FloatArray, own: FloatArray, x: FloatArray, shared_target: float, target: float) -> None:
    predicted = _learn(shared, x[: shared.shape[1]], shared_target)
    if own.shape[1] == len(x):
        _learn(own, x, target - predicted)
    else:
        _learn(own, np.append(predicted, x), target - predicted)


@compiled("void(f8[:, ::1], f8[::1], f8)", sums_in_any_order=True)
def _revise(block: FloatArray, x: FloatArray, change: float) -> None:
    size = len(x)
    gain, pending, weights = np.empty(size), block[size], block[size + 1]
    _gain(block, x, gain)
    pending[:] = 0.0
    for index in range(size):
        weights[index] += change * gain[index]


def precisions(size: int, slope: float, intercept: float) -> FloatArray:
    """The same precision for every weight but the intercept's: (size,)."""
    result = np.full(size, slope)
    result[-1] = intercept
    return result
