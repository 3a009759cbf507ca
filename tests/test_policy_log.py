"""The records of the log."""

from __future__ import annotations

import numpy as np
from builders import decision, raw_report, vector


def test_a_decision_gives_back_the_query_that_the_learner_needs() -> None:
    made = decision(features=vector(1.0, 2.0), prompt_tokens=12.5, input_tokens=40)
    assert np.array_equal(made.query.features, vector(1.0, 2.0))
    assert made.query.input_tokens == 40
    assert made.query.prompt_tokens == 12.5
    assert made.query.constraints.max_cost_usd is None


def test_a_report_as_it_arrives_has_no_part_in_the_join_yet() -> None:
    arrived = raw_report(decision(), reward=0.5)
    assert (arrived.learned_reward, arrived.replaces_reward, arrived.replaces_seq) == (None, None, 0)
    assert arrived.charged_usd is None
    assert not arrived.settles
    assert not arrived.activates
    assert not arrived.late
