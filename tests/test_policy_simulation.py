"""Replay with bandit feedback: its order, its yardsticks, and that the policy learns on a small problem."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from builders import model, random_vector, router
from hypothesis import given
from hypothesis import strategies as st

from policy.domain import InvalidFieldError, LearnerKind, Router
from policy.simulation import Outcome, Round, Table, World, measure, schedule, simulate


def table(*points: tuple[float, float]) -> Table:
    """One round; each model's (cost, quality)."""
    names = tuple(f"m{number}" for number in range(len(points)))
    costs, qualities = zip(*points, strict=True)
    return Table(names, np.array([qualities], dtype=float), np.array([costs], dtype=float))


def test_the_hull_leaves_out_what_a_mixture_beats() -> None:
    costs, qualities = table((1, 0.2), (2, 0.3), (3, 0.8), (4, 0.7), (5, 0.9)).hull()
    assert costs.tolist() == [1, 3, 5]
    assert qualities.tolist() == [0.2, 0.8, 0.9]


def test_a_mixture_has_the_quality_between_its_corners_and_more_money_than_the_last_buys_nothing() -> None:
    found = table((1, 0.2), (3, 0.8))
    assert found.hull_quality(2.0) == pytest.approx(0.5)
    assert found.hull_quality(9.0) == pytest.approx(0.8)
    assert found.hull_quality(0.5) == pytest.approx(0.2)


@given(st.lists(st.tuples(st.floats(0, 10), st.floats(0, 1)), min_size=1, max_size=12), st.data())
def test_no_mixture_of_two_models_lies_above_the_hull(
    points: list[tuple[float, float]], data: st.DataObject
) -> None:
    found = table(*points)
    one, other = data.draw(st.sampled_from(points)), data.draw(st.sampled_from(points))
    share = data.draw(st.floats(0, 1))
    cost, quality = (share * x + (1 - share) * y for x, y in zip(one, other, strict=True))
    assert found.hull_quality(cost) >= quality - 1e-9
    corners = list(zip(*found.hull(), strict=True))
    assert all(corner in points for corner in corners)


def test_lift_is_quality_above_the_hull_at_the_same_spend() -> None:
    found = Table(
        ("cheap", "dear"),
        quality=np.array([[1.0, 1.0], [0.0, 1.0], [1.0, 0.0], [0.0, 0.0]]),
        cost_usd=np.array([[1.0, 3.0]] * 4),
    )
    result = measure(found, ["cheap", "dear", "cheap", "cheap"])
    assert (result.n, result.quality, result.cost_usd) == (4, 0.75, 1.5)
    assert result.share == {"cheap": 0.75, "dear": 0.25}
    assert result.hull_quality == 0.5
    assert result.lift == 0.25
    assert result.oracle_quality == 0.75
    assert found.random() == (2.0, 0.5)
    assert found.fixed() == {"cheap": (1.0, 0.5), "dear": (3.0, 0.5)}


def test_always_the_same_model_of_the_hull_has_no_lift() -> None:
    found = table((1, 0.2), (3, 0.8))
    assert measure(found, ["m0"]).lift == measure(found, ["m1"]).lift == 0.0


def test_without_splits_all_rows_are_shuffled_and_the_second_half_is_measured() -> None:
    plan = schedule([None] * 101, seed=1)
    assert sorted(plan.order.tolist()) == list(range(101))
    assert plan.order.tolist() != list(range(101))
    assert plan.measured_from == 50


def test_with_splits_all_of_learn_is_played_before_measure() -> None:
    splits = ["measure", "learn"] * 30
    plan = schedule(splits, seed=1)
    assert sorted(plan.order.tolist()) == list(range(60))
    assert [splits[row] for row in plan.order] == ["learn"] * 30 + ["measure"] * 30
    assert plan.measured_from == 30


def test_a_seed_gives_one_order_and_another_seed_another() -> None:
    for splits in ([None] * 50, ["learn", "measure"] * 25):
        one, same, other = (schedule(splits, seed).order.tolist() for seed in (1, 1, 2))
        assert one == same != other


@pytest.mark.parametrize("splits", [["learn", None], ["test", "learn"]])
def test_rows_with_a_split_of_no_meaning_or_only_some_with_one_are_refused(splits: Sequence[str | None]) -> None:
    with pytest.raises(InvalidFieldError) as caught:
        schedule(splits, seed=1)
    assert caught.value.field == "split"


def problem(seed: int, rows: int, count: int) -> tuple[list[Round], Table]:
    """Each model is good (0.9) where its own direction of the embedding says so, else bad (0.1).

    All cost the same.
    """
    generator = np.random.default_rng(seed)
    directions = generator.normal(size=(count, 8))
    names = tuple(f"m{number}" for number in range(count))
    rounds = []
    for _ in range(rows):
        features = random_vector(generator)
        good = directions @ features[:8] > 0
        rounds.append(
            Round(features, 20.0, {n: Outcome(0.9 if g else 0.1, 0.001) for n, g in zip(names, good, strict=True)})
        )
    quality = np.array([[each.outcomes[name].quality for name in names] for each in rounds])
    return rounds, Table(names, quality, np.full_like(quality, 0.001))


def play(rounds: list[Round], found: Table, seed: int, **spec: object) -> list[str]:
    of = router([model(name, uid) for uid, name in enumerate(found.models)], **spec)
    return [choice.model for choice in simulate(World(of, rounds), seed)]


@pytest.mark.parametrize(
    ("kind", "seed"),
    [(LearnerKind.RIDGE, 1), (LearnerKind.RIDGE, 2), (LearnerKind.RIDGE, 3), (LearnerKind.VOWPAL_WABBIT, 1)],
)
def test_it_learns_to_beat_random_and_every_fixed_model(kind: LearnerKind, seed: int) -> None:
    """Random's mean over 400 measured rounds has a standard error of 0.02, and so chance passes the
    bound of 0.1 above it less than once in 1,000,000 seeds.
    """
    rounds, found = problem(seed, 800, 3)
    chosen = play(rounds, found, seed, learner=kind)
    half = Table(found.models, found.quality[400:], found.cost_usd[400:])
    result = measure(half, chosen[400:])
    assert result.quality > half.random()[1] + 0.1
    assert result.lift > 0.0


def test_the_same_seed_plays_the_same_game_and_another_seed_another() -> None:
    rounds, found = problem(4, 120, 4)
    once = play(rounds, found, 4)
    assert play(rounds, found, 4) == once
    assert play(rounds, found, 5) != once


def test_only_the_outcomes_of_chosen_models_can_have_any_effect() -> None:
    rounds, found = problem(5, 120, 3)
    chosen = play(rounds, found, 5)
    blinded = [
        Round(
            each.features,
            each.prompt_tokens,
            {**{n: Outcome(0.5, 9.9) for n in found.models}, name: each.outcomes[name]},
        )
        for each, name in zip(rounds, chosen, strict=True)
    ]
    assert play(blinded, found, 5) == chosen


def test_one_model_is_always_chosen() -> None:
    rounds, found = problem(6, 30, 1)
    assert play(rounds, found, 6) == ["m0"] * 30


def test_twenty_models_are_all_tried_and_the_good_ones_found() -> None:
    rounds, found = problem(7, 600, 20)
    chosen = play(rounds, found, 7)
    assert set(chosen) == set(found.models)
    half = Table(found.models, found.quality[300:], found.cost_usd[300:])
    assert measure(half, chosen[300:]).quality > half.random()[1] + 0.1


@pytest.mark.parametrize("seed", [1, 2])
def test_a_budget_between_two_models_is_met(seed: int) -> None:
    """Mean spend over 500 draws of costs 1 and 5 has a standard error of 4 % of the budget if nothing
    corrected it, and less as debts are repaid: chance passes 15 % at most twice in 10,000 seeds.
    """
    generator = np.random.default_rng(seed)
    outcomes = {"cheap": Outcome(0.4, 0.001), "dear": Outcome(0.8, 0.005)}
    rounds = [Round(random_vector(generator), 20.0, outcomes) for _ in range(1000)]
    of = router([model("cheap", 0), model("dear", 1)], budget=0.002)
    chosen = [choice.model for choice in simulate(World(of, rounds), seed)]
    spent = float(np.mean([outcomes[name].cost_usd for name in chosen[500:]]))
    assert spent == pytest.approx(0.002, rel=0.15)


class Joining(World):
    """At round 600 a model joins that is as good as the favourite and half as dear, or one that is no good."""

    def __init__(self, rounds: list[Round], newcomer: str) -> None:
        prices = {"fine": 0.002, "poor": 0.001, "twin": 0.001, "dud": 0.001}
        models = [model(name, uid, per_request=usd) for uid, (name, usd) in enumerate(prices.items())]
        super().__init__(router(models[:2], value=0.02), rounds)
        self._after = router([*models[:2], next(each for each in models if each.id == newcomer)], value=0.02)

    def router(self, position: int) -> Router:
        return super().router(position) if position < 600 else self._after


def joined(newcomer: str, seed: int) -> list[str]:
    """The choices after a model joined; rewards are 0 or 1, so that a burn-in of ten tells little."""
    generator = np.random.default_rng(seed)
    rounds = []
    for _ in range(1100):
        fine, twin, poor, dud = (generator.uniform(size=4) < (0.85, 0.85, 0.5, 0.3)).astype(float)
        rounds.append(
            Round(
                random_vector(generator),
                20.0,
                {
                    "fine": Outcome(fine, 0.002),
                    "twin": Outcome(twin, 0.001),
                    "poor": Outcome(poor, 0.001),
                    "dud": Outcome(dud, 0.001),
                },
            )
        )
    return [choice.model for choice in simulate(Joining(rounds, newcomer), seed)][600:]


def test_a_better_deal_that_joins_late_is_adopted_though_it_was_unlucky_at_first() -> None:
    """Of these seeds, 9 is one in which it was never called again when the burn-in was all that it had."""
    shares = [joined("twin", seed)[-200:].count("twin") / 200 for seed in range(6, 12)]
    assert min(shares) > 0.3
    assert np.mean(shares) > 0.5


def test_a_bad_model_that_joins_late_is_soon_left_alone() -> None:
    for seed in range(4):
        chosen = joined("dud", seed)
        assert 10 <= chosen.count("dud") <= 60
        assert chosen[-200:].count("dud") <= 5
