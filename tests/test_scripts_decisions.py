"""The benchmark of decisions: its measures on examples by hand, its worlds, and its peers on a small problem."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from builders import random_vector
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from policy.domain import FloatArray, Model, ModelError
from policy.simulation import Outcome, Round
from scripts.decisions import change, pareto, plan, summary
from scripts.decisions.apgr import apgr
from scripts.decisions.ceiling import Scores, Seen, best_strength, choose_within, fit_scores
from scripts.decisions.command import main
from scripts.decisions.linear import DualPacer
from scripts.decisions.peer import Peer, Pick, play
from scripts.decisions.policies import PEERS, POINTSMAN, play_policy, why_skipped
from scripts.decisions.problem import Problem
from scripts.decisions.saving import spend_reaching
from scripts.decisions.worlds import LateRewards, Newcomer, Outage, PriceCut, Regression, Setting, Steady

CHEAP, GOOD, DEAR = "cheap", "good", "dear"


def problem(seed: int, rows: int) -> Problem:
    """Quality goes with the first features; costs are 1, 4 and 40 thousandths of a USD, a little scattered."""
    generator = np.random.default_rng(seed)
    rounds = []
    for _ in range(rows):
        features = random_vector(generator)
        lean = 0.3 * float(np.sign(features[0]))
        scatter = generator.uniform(0.8, 1.2)
        outcomes = {
            CHEAP: Outcome(0.5 + lean, 0.001 * scatter),
            GOOD: Outcome(0.7, 0.004 * scatter),
            DEAR: Outcome(0.8, 0.04 * scatter),
        }
        rounds.append(Round(features, 20.0, outcomes))
    return Problem("toy", (CHEAP, GOOD, DEAR), rounds, [None] * rows, ["text"] * rows, 0.001, 0.04)


def setting(of: Problem, budget_usd: float = 0.004, seed: int = 1, begin: int = 0) -> Setting:
    return Setting(of, list(range(len(of.rounds))), begin, budget_usd, seed)


def always(world: Steady, *models: str) -> None:
    """Plays the world with these models by turns."""
    for position in range(len(world.rounds)):
        world.router(position)
        world.arrivals(position, models[position % len(models)])


def test_apgr_is_the_area_under_the_gap_recovered() -> None:
    """By hand: the order is b, a, c; the gap of 1/3 is recovered by 2, then by 1 of 1 (c loses nothing)."""
    weak, strong = np.array([1.0, 0.0, 0.0]), np.array([1.0, 1.0, 0.0])
    assert apgr(np.array([0.2, 0.9, 0.1]), weak, strong) == pytest.approx((0.5 + 1 + 1) / 3)
    assert apgr(np.array([0.9, 0.2, 0.1]), weak, strong) == pytest.approx((0 + 0.5 + 1) / 3)


@given(st.integers(0, 1000))
def test_scores_and_their_opposites_have_apgrs_that_sum_to_one(seed: int) -> None:
    generator = np.random.default_rng(seed)
    gaps, weak, strong = generator.random(20), generator.random(20), generator.random(20) + 0.5
    assert apgr(gaps, weak, strong) + apgr(-gaps, weak, strong) == pytest.approx(1.0)


def test_apgr_is_not_defined_between_equal_models() -> None:
    assert math.isnan(apgr(np.zeros(2), np.array([0.0, 1.0]), np.array([1.0, 0.0])))


def test_the_cheapest_spend_lies_on_the_chord_between_two_points() -> None:
    points = [(3.0, 0.9), (1.0, 0.5), (5.0, 0.95)]
    assert spend_reaching(points, 0.7) == pytest.approx(2.0)
    assert spend_reaching(points, 0.5) == 1.0
    assert spend_reaching(points, 0.95) == pytest.approx(5.0)
    assert spend_reaching(points, 0.96) is None


def test_the_ceiling_learns_a_linear_problem_and_spends_its_budget() -> None:
    generator = np.random.default_rng(3)
    x = np.column_stack([generator.normal(size=(600, 4)), np.ones(600)])
    quality = np.column_stack([0.5 + 0.2 * x[:, 0], np.full(600, 0.6)])
    cost = np.column_stack([np.full(600, 1.0), np.full(600, 3.0)])
    scores = fit_scores(Seen(x[:300], quality[:300], cost[:300]), x[300:], np.arange(300.0), np.arange(300.0))
    assert np.abs(scores.quality - quality[300:]).max() < 0.02
    assert scores.cost_usd == pytest.approx(cost[300:])
    picked = choose_within(scores, cost[300:], budget_usd=1.5)
    rows = np.arange(300)
    assert cost[300:][rows, picked].mean() == pytest.approx(1.5, abs=0.01)
    # What it spends on, it spends where it gains most.
    gain = 0.6 - quality[300:, 0]
    dear = np.array(picked) == 1
    assert gain[dear].min() >= gain[~dear].max() - 0.02


def test_the_ceiling_takes_the_best_model_where_money_is_plenty_and_the_cheapest_where_none_will_do() -> None:
    scores = Scores(np.array([[0.5, 0.9], [0.8, 0.7]]), np.array([[1.0, 2.0], [1.0, 2.0]]))
    real = np.array([[1.0, 2.0], [1.0, 2.0]])
    assert choose_within(scores, real, budget_usd=5.0) == [1, 0]
    assert choose_within(scores, real, budget_usd=0.5) == [0, 0]


def test_noise_is_given_a_stronger_ridge_than_a_signal() -> None:
    generator = np.random.default_rng(4)
    x = np.column_stack([generator.normal(size=(200, 30)), np.ones(200)])
    noise = generator.normal(size=(200, 1))
    assert best_strength(x, noise) > best_strength(x, x[:, :1])


def test_a_dual_step_is_bounded_above_and_floored_at_nothing() -> None:
    pacer = DualPacer(1.0)
    pacer.charge(0.0)
    assert pacer.price == 0.0
    pacer.charge(1000.0)
    assert pacer.price == pytest.approx(0.002 * 19)


@pytest.mark.parametrize("told", [True, False])
def test_a_price_is_cut_in_the_middle_third_alone_and_the_registry_follows_if_told(told: bool) -> None:
    world = PriceCut(setting(problem(1, 90)), told=told)
    assert world.model == DEAR
    ratios = [
        world.outcome(at, DEAR).cost_usd / world.rounds[at].outcomes[DEAR].cost_usd for at in (0, 29, 30, 59, 60)
    ]
    assert ratios == pytest.approx([1, 1, 0.1, 0.1, 1])
    assert world.outcome(40, GOOD) == world.rounds[40].outcomes[GOOD]
    prices = [world.router(at).models[2].spec.prices.input_usd_per_million_tokens for at in (29, 30, 60)]
    assert prices[1] / prices[0] == pytest.approx(0.1 if told else 1.0)
    assert prices[2] == prices[0]


def test_a_regression_lowers_one_models_quality_in_the_middle_third_of_the_changing_part() -> None:
    world = Regression(setting(problem(1, 120), begin=60), GOOD, 0.75)
    assert [world.outcome(at, GOOD).quality for at in (79, 80, 99, 100)] == pytest.approx([0.7, 0.525, 0.525, 0.7])
    assert world.outcome(90, DEAR).quality == 0.8
    assert world.router(0) is world.router(90)


def test_a_newcomer_copies_the_favourite_at_half_its_price() -> None:
    world = Newcomer(setting(problem(1, 60)))
    for position in range(60):
        assert len(world.router(position).models) == (3 if position < 30 else 4)
        world.arrivals(position, GOOD if position % 3 else CHEAP)
    assert world.copied == GOOD
    assert world.models_at(30)[-1] == world.newcomer == "good-half-price"
    usual, new = world.rounds[40].outcomes[GOOD], world.outcome(40, world.newcomer)
    assert (new.quality, new.cost_usd) == (usual.quality, pytest.approx(usual.cost_usd / 2))
    assert world.table(30, 60).models == (CHEAP, GOOD, DEAR, "good-half-price")


def test_in_an_outage_every_call_to_the_favourite_fails_and_earns_nothing() -> None:
    world = Outage(setting(problem(1, 120)))
    for position in range(120):
        world.router(position)
        arrivals = world.arrivals(position, GOOD)
        down = 60 <= position < 80
        assert [each.error for each in arrivals] == [ModelError.UNAVAILABLE if down else None]
        assert (arrivals[0].reward is None) == (arrivals[0].usage is None) == down
    assert (world.model, world.first, world.last) == (GOOD, 60, 80)
    assert change.phase(world, 60, 80).quality == 0.0
    assert not world.down(70, CHEAP)


def test_most_rewards_never_come_and_the_others_late_while_usage_comes_at_once() -> None:
    """Of 1000 rewards 800 are missing, with a standard deviation of 13: 70 is passed once in 10,000,000 seeds."""
    world = LateRewards(setting(problem(1, 1000)))
    came = 0
    for position in range(1000):
        first, *later = world.arrivals(position, GOOD)
        assert first.usage is not None
        assert (first.delay, first.reward) == (0, None)
        came += len(later)
        assert all((each.delay, each.reward) == (200, 0.7) for each in later)
    assert came == pytest.approx(200, abs=70)
    again = LateRewards(setting(problem(1, 1000)))
    assert again.missing.tolist() == world.missing.tolist()


def test_phases_measure_quality_and_spend_against_the_hull_of_the_same_phase() -> None:
    world = Regression(setting(problem(1, 90)), GOOD, 0.5)
    always(world, GOOD)
    before, during = change.phase(world, 0, 30), change.phase(world, 30, 60)
    assert (before.quality, during.quality) == (pytest.approx(0.7), pytest.approx(0.35))
    assert before.lift > during.lift
    assert during.cost_usd == pytest.approx(0.004, rel=0.1)


def test_a_share_is_reached_when_the_last_fifty_rounds_have_it() -> None:
    chosen = ["a"] * 100 + ["b", "a"] * 50
    assert change.rounds_until_share(chosen, "b", 100, 0.25) == 25
    assert change.rounds_until_share(chosen, "b", 100, 0.9) is None
    assert change.former_share(chosen, "a", 100) == 1.0


def test_an_outage_is_left_when_twenty_rounds_go_by_without_a_call() -> None:
    during = ["a", "a", "b", "a", *["b"] * 36, "a", *["b"] * 39]
    found = change.bear(["a"] * 200 + during + ["a"] * 60, "a", 200, 280)
    assert (found.failed_calls, found.left_after_calls) == (4, 3)
    assert found.probes_share == pytest.approx(1 / 76)
    assert found.back_rounds == 25
    never = change.bear(["a"] * 400, "a", 200, 300)
    assert (never.failed_calls, never.left_after_calls, never.probes_share) == (100, None, None)


def test_a_rolling_mean_begins_with_what_there_is() -> None:
    assert change.rolling(np.array([1.0, 3.0, 5.0, 7.0]), window=2, points=4) == [1.0, 2.0, 4.0, 6.0]


@pytest.mark.parametrize("peer", [each for each in PEERS if each != pareto.WARM])
def test_a_peer_calls_models_that_are_present_and_learns_to_keep_to_a_budget(peer: str) -> None:
    """The budget is the good model's cost and a quarter; the dear one alone would spend eight times that."""
    reason = why_skipped(peer)
    if reason:
        pytest.skip(reason)
    of = problem(5, 1500)
    world = Newcomer(setting(of, budget_usd=0.005))
    play_policy(peer, world, of)
    assert len(world.chosen) == 1500
    assert all(model in world.models_at(at) for at, model in enumerate(world.chosen))
    _, cost = change.earned(world)
    assert cost[750:].mean() < 1.35 * 0.005


def test_the_same_seed_gives_a_peer_the_same_choices() -> None:
    of = problem(5, 100)
    for peer in ("LinTS", "epsilon-greedy", "VW-SquareCB"):
        one, same = Steady(setting(of)), Steady(setting(of))
        for world in (one, same):
            play_policy(peer, world, of)
        assert one.chosen == same.chosen


def test_rewards_reach_a_peer_when_they_are_due_with_the_cost_of_their_call() -> None:
    of = problem(6, 400)
    world = LateRewards(setting(of))
    told: list[tuple[int, float, float]] = []
    peer = _Listener(lambda reward, cost: told.append((len(world.chosen), reward, cost)))
    for _ in play(world, peer, of.features):
        pass
    due = [at for at in range(200) if not world.missing[at]]
    # A reward due in a round is learned before that round's choice.
    assert [at for at, _, _ in told] == [at + 200 for at in due]
    assert [cost for _, _, cost in told] == [world.outcome(at, GOOD).cost_usd for at in due]


class _Listener(Peer):
    """Always the good model; hands on the rewards it is told, with what their calls cost."""

    def __init__(self, on_reward: Callable[[float, float], object]) -> None:
        self._on_reward = on_reward

    def set_models(self, models: Sequence[Model]) -> None:
        self._models = models

    def choose(self, features: FloatArray) -> Pick:
        return Pick(features, GOOD)

    def charge(self, pick: Pick, cost_usd: float) -> None:
        assert cost_usd > 0

    def learn(self, pick: Pick, reward: float, cost_usd: float) -> None:
        self._on_reward(reward, cost_usd)


def test_principal_components_have_variance_one() -> None:
    of = problem(7, 300)
    found = of.components
    assert found.shape[1] <= 26
    assert found[:, -1].tolist() == [1.0] * 300
    assert found[:, :5].std(axis=0) == pytest.approx(np.ones(5))


def test_a_run_plans_each_job_once() -> None:
    of = problem(8, 50)
    cases = ("frontier", "saving", "apgr", "rewards", "price")
    options = plan.Options(seeds=2, peer_seeds=1, cases=cases, peers=("LinUCB", pareto.WARM))
    planned = plan.jobs([of], options)
    assert len(planned) == len(set(planned))
    assert pareto.WARM not in {each.policy for each in planned}
    assert sum(each.policy == "LinUCB" for each in planned) == 7
    assert sum((each.policy, each.case) == (POINTSMAN, "frontier") for each in planned) == 2 * (7 + 18)
    assert sum(each.case == "price" for each in planned) == 2 * 3
    assert sum(each.case == "uniform" for each in planned) == (2 if len(of.models) == 2 else 0)


def test_means_leave_out_what_did_not_happen() -> None:
    assert summary.mean([1.0, math.nan, 3.0]) == 2.0
    assert summary.standard_error([1.0, math.nan, 3.0]) == pytest.approx(1.0)
    assert math.isnan(summary.mean([math.nan]))


def test_the_command_writes_the_table_and_the_plots(tmp_path: Path) -> None:
    generator = np.random.default_rng(9)
    path = tmp_path / "two.jsonl"
    rows = [
        {
            "prompt": f"what is {number} and {number * 7}?",
            "outcomes": {
                "weak": {"quality": float(generator.uniform(0.2, 0.6)), "cost_usd": 0.0001},
                "strong": {"quality": float(generator.uniform(0.4, 1.0)), "cost_usd": 0.001},
            },
        }
        for number in range(150)
    ]
    path.write_text("\n".join(json.dumps(each) for each in rows), encoding="utf-8")
    out = tmp_path / "out"
    arguments = [
        str(path),
        "--quick",
        "--jobs",
        "1",
        "--peers",
        "LinUCB",
        "--out",
        str(out),
        "--at-budget",
        "0.0005",
    ]
    found = CliRunner().invoke(main, arguments)
    assert found.exit_code == 0, found.output
    document = json.loads((out / "decisions.json").read_text(encoding="utf-8"))
    file = document["files"]["two"]
    assert [each["policy"] for each in file["frontier"]] == [POINTSMAN, "ceiling", "ceiling-mean-costs", "LinUCB"]
    assert set(file["changes"]) == {"price", "price-untold", "regression", "newcomer", "outage"}
    assert len(file["apgr"]) >= 5
    assert 0.3 < file["apgr"]["uniform"] < 0.7  # Nothing tells these queries apart.
    assert all(
        0 <= each["values"]["probes"] <= each["values"]["failed_calls"] for each in file["changes"]["outage"]
    )
    text = (out / "decisions.md").read_text(encoding="utf-8")
    assert "| LinUCB | 1 |" in text
    assert str(tmp_path) not in text.split("--out")[0]
    assert (out / "frontier-two.png").exists()
    assert (out / "outage-two.png").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["missing.jsonl"], "cannot be read"),
        (["missing.jsonl", "--cases", "nothing"], "--cases"),
        (["missing.jsonl", "--peers", "nobody"], "--peers"),
    ],
)
def test_bad_input_is_refused_in_a_line(arguments: list[str], says: str) -> None:
    found = CliRunner().invoke(main, arguments)
    assert found.exit_code in (1, 2)
    assert says in found.output
