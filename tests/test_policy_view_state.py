"""A view that was written and read decides exactly as the learner's own, to the last bit."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from builders import decision, models, query, random_history, random_vector, report, router
from hypothesis import given, settings
from hypothesis import strategies as st

import policy.view_state
from policy.canary import Canary, RouteRequest
from policy.candidates import CandidateSpec
from policy.decide import decide
from policy.domain import LearnerKind, ModelError, Objective
from policy.learner import RouterLearner
from policy.view_state import ViewVersionError, dump_view, load_view

NOW_US = 1_700_000_000_000_000
OBJECTIVES = {
    "no budget": Objective(quality_value_usd=0.05),
    "a budget": Objective(budget_usd_per_request=0.002),
    "a period": Objective(budget_usd_per_day=5.0),
}
FAILING = 4


@pytest.mark.parametrize("kind", list(LearnerKind))
@pytest.mark.parametrize("objective", OBJECTIVES)
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 1 << 30), count=st.integers(0, 40), broken=st.booleans(), canary=st.booleans())
def test_it_decides_alike(
    kind: LearnerKind, objective: str, seed: int, count: int, broken: bool, canary: bool
) -> None:
    blank = router(models("a", "b", "c"), learner=kind)
    mine = replace(blank, spec=replace(blank.spec, objective=OBJECTIVES[objective]))
    learner = RouterLearner(mine)
    random_history(learner, seed, 0, count)
    if broken:
        for number in range(FAILING):
            made = decision("a", 5000 + 2 * number)
            learner.on_decision(made)
            learner.on_report(report(made, mine, error=ModelError.UNAVAILABLE), made)
    own = learner.view(9000)
    read = load_view(dump_view(own))
    assert dump_view(read) == dump_view(own)
    generator = np.random.default_rng(seed)
    served = Canary(CandidateSpec("rival", "learned"), 0.3, mine)
    for number in range(20):
        asked = query(random_vector(generator), input_tokens=50 * number)
        choices = []
        for view in (own, read):
            blend = None
            if canary:
                blend = partial(served.mixed, view, asked, RouteRequest())
            choices.append(decide(view, mine, asked, f"{seed}-{number}", NOW_US, blend=blend))
        assert choices[0] == choices[1]


def test_one_of_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    written = dump_view(RouterLearner(router(models("a"))).view(1))
    monkeypatch.setattr(policy.view_state, "VIEW_VERSION", policy.view_state.VIEW_VERSION + 1)
    with pytest.raises(ViewVersionError):
        load_view(written)
