"""Thresholds that give a wanted share."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.calibration import calibrate
from policy.domain import InvalidFieldError


@given(st.lists(st.integers(-900, 900), min_size=1, max_size=200, unique=True), st.floats(0.01, 0.99))
def test_the_share_is_the_nearest_that_there_is(thousandths: list[int], share: float) -> None:
    gaps = np.array(thousandths) / 1000.0
    weak = np.zeros(len(gaps))
    (found,) = calibrate(gaps, weak, weak, weak, [share])
    assert found.share == (gaps >= found.gap).mean()
    assert abs(found.share - share) <= 0.5 / len(gaps) + 1e-9


def test_quality_and_cost_are_those_of_what_is_called_then() -> None:
    strong, weak = np.array([0.9, 0.9, 0.5, 0.9]), np.array([0.1, 0.5, 0.6, 0.8])
    (found,) = calibrate(strong, weak, np.full(4, 0.01), np.full(4, 0.001), [0.5])
    assert 0.1 < found.gap <= 0.4
    assert found.quality == pytest.approx((0.9 + 0.9 + 0.6 + 0.8) / 4)
    assert found.cost_usd == pytest.approx((0.02 + 0.002) / 4)


def test_where_all_are_alike_it_is_all_or_nothing() -> None:
    same = np.full(10, 0.5)
    low, high = calibrate(same, same - 0.1, same, same, [0.3, 0.7])
    assert (low.share, high.share) == (0.0, 1.0)


def test_what_cannot_be_calibrated_is_refused() -> None:
    one = np.ones(1)
    with pytest.raises(InvalidFieldError, match="share"):
        calibrate(one, one, one, one, [0.0])
    with pytest.raises(InvalidFieldError, match="decisions"):
        calibrate(one[:0], one[:0], one[:0], one[:0], [0.5])
