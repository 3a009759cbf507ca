"""Events are made from what both policies thought of all models; those that cannot be are refused."""

from __future__ import annotations

import math
from dataclasses import replace

import bandit_logs
import numpy as np
import pytest
from bandit_logs import EVEN, GOOD

from policy.domain import InvalidFieldError
from policy.evidence import Metric, settled

QUALITY = Metric.QUALITY


def test_events_are_made_from_what_both_policies_thought_of_all_models() -> None:
    """Three models, of which the live policy never draws the last, and then only two."""
    (events,) = settled(
        (QUALITY, Metric.COST_USD),
        propensities=np.array([[0.8, 0.2, 0.0], [0.5, 0.5, 0.0]]),
        probabilities=np.array([[[0.2, 0.7, 0.1], [0.1, 0.9, 0.0]]]),
        chosen=np.array([0, 1]),
        observed=np.array([[1.0, np.nan], [0.0, 2.0]]),
        predictions=np.array([[[0.5, 2.0], [0.7, 1.0], [0.9, 3.0]], [[0.5, 2.0], [0.7, 1.0], [0.0, 0.0]]]),
    )
    assert events.weights == pytest.approx([0.25, 1.8])
    assert events.weight_max == pytest.approx([3.5, 1.8])
    assert events.unsupported == pytest.approx([0.1, 0.0])
    assert events.predicted.tolist() == [[0.5, 2.0], [0.7, 1.0]]
    assert events.baseline.ravel() == pytest.approx([0.68, 1.4, 0.68, 1.1])
    assert events.live_baseline.ravel() == pytest.approx([0.54, 1.8, 0.6, 1.5])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("propensity", 0.0),
        ("propensity", 1.5),
        ("propensity", math.nan),
        ("probability", -0.1),
        ("unsupported", 1.2),
        ("weight_max", 0.1),
        ("observed", math.inf),
        ("predicted", math.nan),
        ("baseline", math.inf),
    ],
)
def test_events_that_cannot_be_are_refused(field: str, value: float) -> None:
    events = bandit_logs.log(13, 3, EVEN, GOOD).events
    wrong = getattr(events, field).copy()
    wrong[1] = value
    with pytest.raises(InvalidFieldError, match=field):
        replace(events, **{field: wrong})
