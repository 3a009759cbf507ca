"""The search for the price of money in Python, for any curve of the spend."""

from __future__ import annotations

from collections.abc import Callable

from policy.pacer import Solve

SpendAt = Callable[[float], tuple[float, float]]
"""Mean and mean square of a request's spend, in budgets, at a price of money in utility per budget."""


def solver(spend_at: SpendAt) -> Solve:
    """As `policy.shares.solved` does it, on this curve."""

    def mean_at(price: float) -> float:
        return spend_at(price)[0]

    def solve(target: float, last: float) -> tuple[float, float, float]:
        price = _price(mean_at, target, last)
        return price, *spend_at(price)

    return solve


def _price(mean_at: Callable[[float], float], target: float, last: float) -> float:
    if mean_at(0.0) <= target:
        return 0.0
    low, high = _bracket(mean_at, target, last)
    if mean_at(low) <= target:
        return low
    for step in range(48):
        over, under = mean_at(low) - target, mean_at(high) - target
        if under >= -0.002 * target:
            break
        share = 0.5 if step % 2 else min(0.95, max(0.05, over / (over - under)))
        price = low * (high / low) ** share
        if mean_at(price) > target:
            low = price
        else:
            high = price
    return high


def _bracket(mean_at: Callable[[float], float], target: float, last: float) -> tuple[float, float]:
    if last <= 0.0:
        return 1e-7, 1e3
    if mean_at(last) > target:
        near = min(last * 1.5, 1e3)
        return (near, 1e3) if mean_at(near) > target else (last, near)
    near = last / 1.5
    return (near, last) if mean_at(near) > target else (1e-7, near)
