"""Rewards that are revised: the learner ends where it would have, had it known the last value from the start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from builders import close, decision, model, models, random_vector, report, router
from hypothesis import given
from hypothesis import strategies as st

from policy.domain import FloatArray, LearnerKind, RewardJoin, RewardRule, Router
from policy.learner import RouterLearner
from policy.log import DecisionRecord, ReportRecord
from policy.view import ModelRecord

LAST = RewardRule(join=RewardJoin.LAST)
PROBES = np.array([random_vector(np.random.default_rng([7, row])) for row in range(20)], dtype=np.float64)


def router_by(rule: RewardRule, **spec: Any) -> Router:
    return router(models("a", "b"), reward_rule=rule, **spec)


def decisions(seed: int, count: int) -> list[DecisionRecord]:
    """Decisions for `a` and `b` in turn, with random features."""
    return [
        decision("ab"[row % 2], 1000 + row, features=random_vector(np.random.default_rng([seed, row])))
        for row in range(count)
    ]


class Told:
    """A learner with what it was told of each decision, so that the next report can be joined to it."""

    def __init__(self, of: Router) -> None:
        self.learner = RouterLearner(of)
        self.reports: dict[str, list[ReportRecord]] = {}
        self._seq = 2000

    def tell(self, made: DecisionRecord, **told: Any) -> ReportRecord:
        earlier = self.reports.setdefault(made.decision_id, [])
        self._seq += 1
        arrived = report(made, self.learner.router, earlier, self._seq, **told)
        earlier.append(arrived)
        self.learner.on_report(arrived, made)
        return arrived

    def quality(self, *keys: str) -> FloatArray:
        return self.learner.view(0).quality.predict(PROBES, keys or ("a#1", "b#2"))

    def records(self) -> Mapping[str, ModelRecord]:
        return self.learner.view(0).models


def telling(of: Router, made: Sequence[DecisionRecord]) -> Told:
    told = Told(of)
    for each in made:
        told.learner.on_decision(each)
    return told


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(RewardJoin),
    st.lists(st.tuples(st.integers(0, 9), st.floats(0, 1)), min_size=1, max_size=40),
)
def test_after_any_revisions_ridge_knows_nearly_what_it_would_had_each_reward_come_once(
    seed: int, join: RewardJoin, arrivals: list[tuple[int, float]]
) -> None:
    made = decisions(seed, 10)
    revised = telling(router_by(RewardRule(join=join)), made)
    final: dict[int, float] = {}
    for row, reward in arrivals:
        learned = revised.tell(made[row], reward=reward).learned_reward
        final[row] = final[row] if learned is None else learned
    once = telling(router_by(RewardRule()), made)
    for row, reward in final.items():
        once.tell(made[row], reward=reward)
    # A revision leaves the difficulty as the first rewards taught it, and the own regression fits what is left.
    assert revised.quality() == pytest.approx(once.quality(), abs=0.25)
    for key, record in revised.records().items():
        assert record.rewards == once.records()[key].rewards
        assert record.reward_sum == pytest.approx(once.records()[key].reward_sum, abs=1e-9)
    assert revised.learner.view(0).router.rewards == len(final)


def test_little_remains_of_rewards_that_were_all_revised() -> None:
    made = decisions(11, 300)
    revised, once = telling(router_by(LAST), made), telling(router_by(LAST), made)
    right = np.random.default_rng(12).uniform(size=len(made)).tolist()
    for each, reward in zip(made, right, strict=True):
        revised.tell(each, reward=1.0 - reward)
        once.tell(each, reward=reward)
    before = np.abs(revised.quality() - once.quality()).mean()
    for each, reward in zip(made, right, strict=True):
        revised.tell(each, reward=reward)
    assert np.abs(revised.quality() - once.quality()).mean() < before / 3


def test_a_revision_is_learned_of_the_model_that_served_alone() -> None:
    (made,) = decisions(1, 1)
    told = telling(router_by(LAST), [made])
    told.tell(made, reward=0.25)
    told.tell(made, reward=1.0, served_model="b")
    told.tell(made, reward=0.5, served_model="b")
    sums = {key: (each.rewards, each.reward_sum) for key, each in told.records().items()}
    assert sums == {"a#1": (1, 0.25), "b#2": (1, 0.5)}


def test_a_revised_decision_is_not_missing_when_its_window_closes() -> None:
    (made,) = decisions(1, 1)
    told = telling(router_by(replace(LAST, missing_reward=0.0)), [made])
    told.tell(made, reward=1.0)
    told.tell(made, reward=0.5)
    close(told.learner, made, *told.reports[made.decision_id])
    record = told.records()["a#1"]
    assert (record.closed, record.missing, record.rewards, record.reward_sum) == (1, 0, 1, 0.5)


@pytest.mark.parametrize("kind", list(LearnerKind))
def test_a_revision_of_what_a_learner_before_this_one_knew_is_learned_as_a_first(kind: LearnerKind) -> None:
    before = next(each for each in LearnerKind if each is not kind)
    made = decisions(2, 6)
    revised = telling(router_by(LAST, learner=before), made)
    for each in made:
        revised.tell(each, reward=0.75)
    of = router_by(LAST, learner=kind)
    revised.learner.on_registry(of)
    once = telling(of, made)
    for each in made:
        revised.tell(each, reward=0.25)
        once.tell(each, reward=0.25)
    assert revised.quality().tobytes() == once.quality().tobytes()
    for each in made:
        revised.tell(each, reward=0.5)
    assert [each.rewards for each in revised.records().values()] == [3, 3]
    assert [each.reward_sum for each in revised.records().values()] == [1.5, 1.5]


def test_a_revision_of_a_reward_that_did_not_fit_is_learned_as_a_first() -> None:
    """It was told while the router had other features, and so it never was learned."""
    made = decisions(3, 2)
    of = router_by(LAST)
    told = telling(of, made)
    told.learner.on_registry(replace(of, spec=replace(of.spec, embedding_dimensions=4)))
    told.tell(made[0], reward=0.75)
    told.learner.on_registry(of)
    told.tell(made[0], reward=0.25)
    assert (told.records()["a#1"].rewards, told.records()["a#1"].reward_sum) == (1, 0.25)


def test_a_revision_about_a_model_that_was_removed_does_not_reach_its_namesake() -> None:
    (made,) = decisions(4, 1)
    of = router_by(LAST)
    told = telling(of, [made])
    told.tell(made, reward=1.0)
    told.learner.on_registry(replace(of, models=(of.models[1],)))
    told.tell(made, reward=0.5)
    told.learner.on_registry(replace(of, models=(model("a", 1500), of.models[1])))
    told.tell(made, reward=0.0)
    assert told.records()["a#1500"] == ModelRecord(joined_at=1)
    assert told.quality("a#1500") == pytest.approx(np.ones((len(PROBES), 1)))


@pytest.mark.parametrize("kind", list(LearnerKind))
def test_a_learner_restored_between_a_reward_and_its_revision_goes_on_to_the_same_bits(kind: LearnerKind) -> None:
    made = decisions(5, 30)
    of = router_by(LAST, learner=kind)
    whole = telling(of, made)
    for each in made:
        whole.tell(each, reward=0.75)
    restored = RouterLearner.restore(of, whole.learner.state())
    for each in made[::3]:
        restored.on_report(whole.tell(each, reward=0.25), each)
    assert restored.fingerprint() == whole.learner.fingerprint()
