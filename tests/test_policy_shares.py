"""The compiled distribution, and what it spends, are those of the same written in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from reference_price import solver
from reference_shares import LearnedShares, Outlooks

from policy.domain import Exploration, FloatArray
from policy.exploration import Rules
from policy.shares import shares_of_one, solved


@settings(max_examples=200)
@given(
    seed=st.integers(0, 10_000),
    money=st.floats(1e-3, 100),
    strength=st.floats(0, 10),
    burn_in=st.integers(0, 20),
    trial=st.integers(0, 50),
    cap=st.floats(0, 1),
    unknown=st.floats(0, 1),
    fallen=st.floats(0, 1),
    late=st.floats(0, 1),
)
@example(seed=0, money=1.0, strength=1e-304, burn_in=0, trial=0, cap=0.0, unknown=0.0, fallen=0.0, late=0.0)
def test_shares_and_spend_are_those_of_the_reference(
    seed: int,
    money: float,
    strength: float,
    burn_in: int,
    trial: int,
    cap: float,
    unknown: float,
    fallen: float,
    late: float,
) -> None:
    draw = np.random.default_rng(seed)
    queries, models = int(draw.integers(1, 20)), int(draw.integers(1, 12))
    known = draw.uniform(size=models) >= unknown
    rewards = draw.integers(0, 60, models).tolist()
    tried = draw.integers(0, 60, models).tolist()
    lost = draw.uniform(size=models) * (draw.uniform(size=models) < fallen)
    retrial = draw.uniform(0, 0.1, models)
    doubts = draw.uniform(size=models) * (draw.uniform(size=models) < late)
    exploration = Exploration(strength, burn_in, trial_rewards=trial)
    quality, costs = draw.uniform(size=(models, queries)), draw.uniform(0, 0.1, (models, queries))
    reference = LearnedShares(
        Outlooks(quality, costs, known, rewards, tried, lost, retrial, doubts, 0.01, 500, cap, exploration)
    )
    expected = reference(money)
    columns = np.array([rewards, tried, lost, retrial, doubts, known], dtype=np.float64)
    experience, rules = np.ascontiguousarray(columns.T), Rules.of(exploration, 500, cap)
    scores = quality - money * costs
    for query in range(queries):
        alone = [np.ascontiguousarray(each[:, query]) for each in (scores, costs)]
        found = shares_of_one(*alone, experience, rules, money, 0.01)
        assert found == pytest.approx(expected[:, query], abs=1e-12)
    assert solved(quality, costs, experience, rules, 0.01, 1.0 / money, np.inf, 0.0) == pytest.approx(
        (0.0, *spent(expected, costs / 0.01)), rel=1e-9, abs=1e-12
    )
    for target, last in ((0.5, 0.0), (2.0, 0.01), (4.0, 1.0)):
        by_reference = solver(lambda price: spent(reference(price / 0.01 + money), costs / 0.01))(target, last)
        found = solved(quality, costs, experience, rules, 0.01, 1.0 / money, target, last)
        # On a cliff of the spend a last bit of the price is much; the search is content within 0.2 %.
        assert found == pytest.approx(by_reference, rel=0.01, abs=1e-9)


def spent(shares: FloatArray, budgets: FloatArray) -> tuple[float, float]:
    """Mean and mean square of what a query costs."""
    mean, square = (float((shares * each).sum(axis=0).mean()) for each in (budgets, budgets * budgets))
    return mean, square
