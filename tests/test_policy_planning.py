"""The plan's shares are what the learned policy would do, query by query."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy.domain import Exploration
from policy.planning import LearnedShares, Outlooks
from policy.policies import Outlook, learned


@settings(max_examples=200)
@given(
    seed=st.integers(0, 10_000),
    money=st.floats(0, 100),
    strength=st.floats(0, 10),
    burn_in=st.integers(0, 20),
    trial=st.integers(0, 50),
    cap=st.floats(0, 1),
    unknown=st.floats(0, 1),
    fallen=st.floats(0, 1),
    late=st.floats(0, 1),
)
def test_planned_shares_are_the_policy_of_each_query(
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
    queries, models = int(draw.integers(1, 6)), int(draw.integers(1, 12))
    known = draw.uniform(size=models) >= unknown
    rewards = draw.integers(0, 60, models).tolist()
    tried = draw.integers(0, 60, models).tolist()
    lost = draw.uniform(size=models) * (draw.uniform(size=models) < fallen)
    retrial = draw.uniform(0, 0.1, models)
    doubts = draw.uniform(size=models) * (draw.uniform(size=models) < late)
    exploration = Exploration(strength, burn_in, trial_rewards=trial)
    quality, costs = draw.uniform(size=(models, queries)), draw.uniform(0, 0.1, (models, queries))
    planned = LearnedShares(
        Outlooks(quality, costs, known, rewards, tried, lost, retrial, doubts, 0.01, 500, cap, exploration)
    )
    found = planned(money)
    assert (planned(2.0 * money + 1.0) >= 0.0).all()
    assert found.tolist() == planned(money).tolist()
    for row in range(queries):
        scores = (quality[:, row] - money * costs[:, row]).tolist()
        ids = tuple(str(each) for each in range(models))
        one = Outlook(
            ids=ids,
            scores=scores,
            costs_usd=costs[:, row].tolist(),
            costs_known=known.tolist(),
            rewards=rewards,
            tried=tried,
            fallen=lost.tolist(),
            retrial=retrial.tolist(),
            doubts=doubts.tolist(),
            money=money,
            unit_usd=0.01,
            rewards_total=500,
            loss_max=cap,
            exploration=exploration,
        )
        assert found[:, row].tolist() == pytest.approx(learned(one), abs=1e-12)
