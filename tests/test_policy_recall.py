"""Going back: what was learned of the models is as it was, what happened in the world stays."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from builders import DIMENSIONS, model, models, random_history, random_vector, report, router, teach

from policy.domain import LearnerKind, RewardJoin, RewardRule, Router
from policy.learner import STATE_VERSION, RouterLearner
from policy.recall import misfits, state_version

KINDS = list(LearnerKind)


def taught(of: Router, seed: int, count: int = 60) -> RouterLearner:
    learner = RouterLearner(of)
    random_history(learner, seed, 0, count)
    return learner


def restored(of: Router, state: bytes) -> RouterLearner:
    return RouterLearner.restore(of, state)


def qualities(learner: RouterLearner, *keys: str) -> list[float]:
    x = random_vector(np.random.default_rng(99)).astype(np.float64)
    return [float(each) for each in learner.view(0).quality.predict(x, list(keys))]


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_learned_goes_back_and_what_happened_stays(kind: LearnerKind) -> None:
    of = router(models("a", "b"), budget=0.005, learner=kind)
    learner = taught(of, 1)
    then, state = learner.view(0), learner.state()
    random_history(learner, 1, 60, 80)
    now = learner.view(0)
    learner.recall(of, restored(of, state), own=True)
    after = learner.view(0)
    keys = [each.key for each in of.models]
    assert qualities(learner, *keys) == qualities(restored(of, state), *keys)
    for key in keys:
        for name in (
            "rewards",
            "reward_sum",
            "latencies",
            "latency_seconds",
            "offset",
            "fallen",
            "variance",
            "tried",
        ):
            assert getattr(after.models[key], name) == getattr(then.models[key], name), name
        for name in ("decisions", "calls_charged", "cost_sum_usd", "closed", "errors", "circuit", "explored"):
            assert getattr(after.models[key], name) == getattr(now.models[key], name), name
        assert after.cost.token_scales == then.cost.token_scales
    assert after.router.rewards == then.router.rewards
    assert (after.router.spent_usd, after.router.decisions) == (now.router.spent_usd, now.router.decisions)
    assert after.router.exploration_owed == now.router.exploration_owed
    assert np.array_equal(after.typical_features, now.typical_features)


@pytest.mark.parametrize("kind", KINDS)
def test_it_goes_on_to_the_same_bits_after_a_restart(kind: LearnerKind) -> None:
    of = router(models("a", "b"), budget=0.005, learner=kind)
    learner = taught(of, 2)
    state = learner.state()
    random_history(learner, 2, 60, 40)
    learner.recall(of, restored(of, state), own=True)
    again = RouterLearner.restore(of, learner.state())
    assert again.fingerprint() == learner.fingerprint()
    for each in (learner, again):
        random_history(each, 2, 100, 40)
    assert again.fingerprint() == learner.fingerprint()


@pytest.mark.parametrize("kind", KINDS)
def test_models_of_another_router_are_matched_by_id(kind: LearnerKind) -> None:
    theirs = router((model("a", 3), model("b", 4), model("gone", 5)), learner=kind)
    known = taught(theirs, 3)
    ours = router((model("new", 3), model("b", 40), model("a", 50)), learner=kind)
    assert misfits(theirs, ours) == {}
    learner = taught(ours, 4)
    learner.recall(ours, restored(theirs, known.state()), own=False)
    assert qualities(learner, "a#50", "b#40") == pytest.approx(qualities(known, "a#3", "b#4"), abs=1e-12)
    records = learner.view(0).models
    assert records["new#3"].rewards == 0
    assert records["a#50"].rewards == known.view(0).models["a#3"].rewards
    made = teach(learner, "new", 9000, features=random_vector(np.random.default_rng(5)), reward=0.0)
    assert made.choice.model == "new"
    assert learner.view(0).models["new#3"].rewards == 1


def test_a_model_that_was_removed_and_added_again_is_not_the_one_it_was() -> None:
    of = router((model("a", 1), model("b", 2)))
    learner = taught(of, 5)
    state = learner.state()
    other = replace(of, models=(of.models[0], model("b", 700)))
    learner.on_registry(other)
    learner.recall(other, restored(of, state), own=True)
    assert learner.view(0).models["b#700"].rewards == 0
    assert learner.view(0).models["a#1"].rewards > 0


def test_a_revision_of_a_reward_that_is_not_known_any_more_is_as_new_as_a_first() -> None:
    of = router(models("a", "b"), reward_rule=RewardRule(join=RewardJoin.LAST))
    learner, same = RouterLearner(of), RouterLearner(of)
    early = teach(learner, "a", 1000, reward=1.0)
    teach(same, "a", 1000, reward=1.0)
    state = learner.state()
    late = teach(learner, "a", 1010, reward=1.0)
    learner.recall(of, restored(of, state), own=True)
    assert learner.view(0).models["a#1"].rewards == 1
    first = report(late, of, reward=1.0)
    learner.on_report(report(late, of, [first], seq=1020, reward=0.0), late)
    assert learner.view(0).models["a#1"].rewards == 2
    assert learner.view(0).models["a#1"].reward_sum == 1.0
    first = report(early, of, reward=1.0)
    learner.on_report(report(early, of, [first], seq=1022, reward=0.0), early)
    assert learner.view(0).models["a#1"].rewards == 2
    assert learner.view(0).models["a#1"].reward_sum == 0.0


def test_another_kind_of_learner_comes_back_with_all_it_knew() -> None:
    of = router(models("a", "b"))
    learner = taught(of, 6)
    state = learner.state()
    other = replace(of, spec=replace(of.spec, learner=LearnerKind.VOWPAL_WABBIT))
    learner.on_registry(other)
    random_history(learner, 6, 60, 20)
    learner.recall(of, restored(of, state), own=True)
    assert qualities(learner, "a#1", "b#2") == qualities(restored(of, state), "a#1", "b#2")
    assert learner.router == of


@pytest.mark.parametrize(
    ("theirs", "differs"),
    [
        (router(models("a"), learner=LearnerKind.VOWPAL_WABBIT), {"learner"}),
        (router(models("x", "y")), {"models"}),
        (
            replace(
                router(models("a")),
                spec=replace(router(models("a")).spec, embedding_dimensions=DIMENSIONS + 1),
            ),
            {"embedding_dimensions"},
        ),
    ],
)
def test_what_does_not_fit_is_named(theirs: Router, differs: set[str]) -> None:
    found = misfits(theirs, router(models("a", "b")))
    assert set(found) == differs
    assert all("in the snapshot" in each and "in the router" in each for each in found.values())


def test_a_state_says_by_which_version_it_was_saved() -> None:
    assert state_version(RouterLearner(router(models("a"))).state()) == STATE_VERSION
    with pytest.raises((ValueError, OSError)):
        state_version(b"nothing of the kind")
