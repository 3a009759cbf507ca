"""Pacing: budgets of a request, a day and a month, changed at run time; four days of a learner under a day's."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pytest
from builders import DAY_US, SECOND_US, choice, close, decision, model, query, random_vector, report, router, teach

from policy.choices import Choice
from policy.decide import decide
from policy.domain import FloatArray, Objective, Router
from policy.learner import RouterLearner
from policy.log import DecisionRecord, Usage
from policy.simulation import Outcome, Round, World, simulate
from policy.view import Standing

CHEAP, MIDDLE, DEAR = 2e-4, 1.5e-3, 8e-3
MODELS = (
    model("cheap", 1, per_request=CHEAP),
    model("middle", 2, per_request=MIDDLE),
    model("dear", 3, per_request=DEAR),
)
FIRST_DAY = 20_000
REQUESTS, BUDGET = 1500, 1.8
SINE = 1.8
HOUR_US = DAY_US // 24


def router_with(objective: Objective, **fields: float) -> Router:
    of = router(MODELS, **fields)
    return replace(of, spec=replace(of.spec, objective=objective))


def sine_times(days: int, seed: int) -> npt.NDArray[np.int64]:
    """When requests come: about so many a day, nine times as dense at noon as at midnight."""
    generator = np.random.default_rng(seed)
    times = []
    for day in range(FIRST_DAY, FIRST_DAY + days):
        moments = generator.uniform(size=4 * REQUESTS)
        kept = generator.uniform(size=4 * REQUESTS) < (1.0 - 0.8 * np.cos(2 * np.pi * moments)) / SINE
        times.append(np.sort((day + moments[kept][: generator.poisson(REQUESTS)]) * DAY_US).astype(np.int64))
    return np.concatenate(times)


def rounds_of(count: int, seed: int) -> list[Round]:
    """Queries of which the easy ones are answered well by every model, and the hard ones by the dear alone."""
    generator, rounds = np.random.default_rng(seed), []
    for _ in range(count):
        vector = random_vector(generator)
        ease = 1.0 / (1.0 + math.exp(-4.0 * vector[0]))
        outcomes = {}
        for name, cost, low, high in (
            ("cheap", CHEAP, 0.35, 0.9),
            ("middle", MIDDLE, 0.6, 0.9),
            ("dear", DEAR, 0.85, 0.95),
        ):
            quality = float(np.clip(low + (high - low) * ease + generator.normal(0, 0.1), 0.0, 1.0))
            outcomes[name] = Outcome(quality, cost * float(generator.lognormal(-0.125, 0.5)), 100, 100)
        rounds.append(Round(vector, 100.0, outcomes))
    return rounds


class Days(World):
    """Rounds at given times, under a router that may change with them."""

    def __init__(self, rounds: Sequence[Round], times: npt.NDArray[np.int64], at: Callable[[int], Router]) -> None:
        super().__init__(at(0), rounds)
        self._times, self._at = times, at

    def router(self, position: int) -> Router:
        return self._at(position)

    def time_us(self, position: int) -> int:
        return int(self._times[position])


@dataclass
class Played:
    """What came of each request. Arrays are (requests,)."""

    day: npt.NDArray[np.int64]
    spent: FloatArray
    quality: FloatArray
    price: FloatArray

    def over(self, days: int) -> float:
        """Spend over the budget on that day."""
        return float(self.spent[self.day == days].sum() / BUDGET)


def played(times: npt.NDArray[np.int64], at: Callable[[int], Router], seed: int) -> Played:
    rounds = rounds_of(len(times), seed)
    made: list[Choice] = list(simulate(Days(rounds, times, at), seed))
    outcomes = [each.outcomes[choice.model] for each, choice in zip(rounds, made, strict=True)]
    return Played(
        times // DAY_US - FIRST_DAY,
        np.array([each.cost_usd for each in outcomes]),
        np.array([each.quality for each in outcomes]),
        np.array([each.price_of_money for each in made]),
    )


def under(objective: Objective) -> Callable[[int], Router]:
    of = router_with(objective)
    return lambda position: of


def by_the_hour(times: npt.NDArray[np.int64]) -> Callable[[int], Router]:
    """Every hour has a 24th of the day's budget, and knows how many requests will come in it."""
    hours, counts = np.unique(times // HOUR_US, return_counts=True)
    routers = {
        int(hour): router_with(Objective(BUDGET / 24 / int(count)))
        for hour, count in zip(hours, counts, strict=True)
    }
    return lambda position: routers[int(times[position] // HOUR_US)]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_four_days_of_unknown_shape_spend_their_budget_evenly_and_better_than_hour_by_hour(seed: int) -> None:
    """Costs are lognormal, so a day's spend has a standard error of about 1 % even at a known price."""
    times = sine_times(4, seed)
    found = played(times, under(Objective(budget_usd_per_day=BUDGET)), seed)
    assert 0.85 < found.over(0) < 1.03
    for day in (1, 2, 3):
        assert found.over(day) == pytest.approx(1.0, abs=0.03)
    late = found.day >= 2
    for spent, price in zip(
        np.array_split(found.spent[late], 8), np.array_split(found.price[late], 8), strict=True
    ):
        assert spent.mean() == pytest.approx(found.spent[late].mean(), rel=0.25)
        assert np.median(price) == pytest.approx(np.median(found.price[late]), rel=0.4)
    hourly = played(times, by_the_hour(times), seed)
    known = hourly.day >= 1
    assert found.quality[known].mean() > hourly.quality[known].mean() + 0.005


def test_three_days_without_traffic_change_nothing_for_the_days_after() -> None:
    times = sine_times(4, seed=4)
    times[times >= (FIRST_DAY + 2) * DAY_US] += 3 * DAY_US
    found = played(times, under(Objective(budget_usd_per_day=BUDGET)), seed=4)
    assert [found.over(day) for day in (1, 5, 6)] == pytest.approx([1.0, 1.0, 1.0], abs=0.04)


def test_reports_that_come_a_day_late_do_not_let_a_day_overspend() -> None:
    """The real costs are half above the predicted ones, which a day's budget hears of only the day after."""
    times = sine_times(4, seed=5)
    learner = RouterLearner(router_with(Objective(budget_usd_per_day=BUDGET)))
    generator, spent = np.random.default_rng(5), np.zeros(4)
    waiting: list[tuple[DecisionRecord, float]] = []
    for seq, time_us in enumerate(times.tolist(), start=1000):
        while waiting and waiting[0][0].time_us < time_us - DAY_US:
            told, cost = waiting.pop(0)
            learner.on_report(report(told, learner.router, reward=0.5, usage=Usage(cost_usd=cost)), told)
        vector = random_vector(generator)
        made = decide(learner.view(seq), learner.router, query(vector), f"d{seq}", time_us)
        logged = replace(decision(made.model, seq, features=vector, choice=made), time_us=time_us)
        learner.on_decision(logged)
        cost = 1.5 * next(each.cost_usd for each in made.candidates if each.model == made.model)
        waiting.append((logged, cost))
        spent[time_us // DAY_US - FIRST_DAY] += cost
    assert spent[2:] == pytest.approx(np.full(2, BUDGET), rel=0.1)


def made_at(time_us: int, seq: int, cost_usd: float = 0.001, **fields: object) -> DecisionRecord:
    return replace(decision("cheap", seq, choice=choice("cheap", cost_usd), **fields), time_us=time_us)


MIDNIGHT = FIRST_DAY * DAY_US


def begun(objective: Objective) -> RouterLearner:
    """A learner that has just begun a day or month, with some queries to plan on."""
    learner = RouterLearner(router_with(objective))
    for seq in range(1000, 1100, 2):
        made = made_at(MIDNIGHT + seq, seq, 0.0)
        learner.on_decision(made)
        learner.on_report(report(made, learner.router, reward=0.5, usage=Usage(cost_usd=0.0)), made)
    return learner


def change(learner: RouterLearner, objective: Objective) -> None:
    learner.on_registry(replace(learner.router, spec=replace(learner.router.spec, objective=objective)))


def standing(learner: RouterLearner) -> Standing:
    found = learner.view(0).standing
    assert found is not None
    return found


def test_when_the_budget_is_used_up_the_cheapest_model_serves_until_the_next_day() -> None:
    learner = RouterLearner(router_with(Objective(budget_usd_per_day=1.0), burn_in=0))
    for seq in range(1000, 1200, 2):
        teach(learner, ("cheap", "middle", "dear")[seq % 3], seq, reward=(0.2, 0.5, 0.9)[seq % 3])
    flood = made_at(1300 * SECOND_US, 1300, 100.0)
    learner.on_decision(flood)
    assert standing(learner).per_request_usd == 0.0
    used_up = learner.view(0)
    assert math.isfinite(used_up.pacer_price)
    for number in range(200):
        made = decide(used_up, learner.router, query(), f"d{number}", 0)
        assert made.model == "cheap"
        assert all(math.isfinite(each.score) for each in made.candidates)
    learner.on_decision(made_at(DAY_US + SECOND_US, 1302))
    assert standing(learner).spent_usd == 0.001
    assert learner.view(0).pacer_price < 1e-3 * used_up.pacer_price


def test_free_models_and_no_money_left_give_finite_prices() -> None:
    free = (model("free", 1), model("dear", 2, per_request=DEAR))
    of = replace(router_with(Objective(budget_usd_per_day=1e-9)), models=free)
    learner = RouterLearner(of)
    for seq in range(1000, 1100, 2):
        teach(learner, "free", seq, reward=0.5, cost_usd=0.0, usage=Usage(cost_usd=0.0))
    made = decide(learner.view(0), of, query(), "d", 0)
    assert math.isfinite(made.price_of_money)
    assert {each.model: each.probability for each in made.candidates}["free"] > 0.999


def test_usage_is_charged_to_the_day_of_its_decision_and_a_retry_to_the_day_it_is_heard_of() -> None:
    learner = begun(Objective(budget_usd_per_day=1.0))
    made = made_at(MIDNIGHT + HOUR_US, 2000, 0.1)
    learner.on_decision(made)
    assert standing(learner).spent_usd == pytest.approx(0.1)
    first = report(made, learner.router, usage=Usage(cost_usd=0.3))
    learner.on_report(first, made)
    assert standing(learner).spent_usd == pytest.approx(0.3)
    learner.on_decision(made_at(MIDNIGHT + DAY_US, 2002, 0.0))
    learner.on_report(report(made, learner.router, [first], usage=Usage(cost_usd=0.05)), made)
    assert standing(learner).spent_usd == pytest.approx(0.05)
    assert learner.view(0).router.spent_usd == pytest.approx(0.35)


def test_a_decision_that_closes_without_usage_has_cost_what_was_predicted() -> None:
    learner = begun(Objective(budget_usd_per_month=1.0))
    made = made_at(MIDNIGHT + HOUR_US, 2000, 0.1)
    learner.on_decision(made)
    close(learner, made)
    assert standing(learner).spent_usd == pytest.approx(0.1)


def test_a_deferred_decision_is_charged_to_the_day_of_its_activation() -> None:
    learner = begun(Objective(budget_usd_per_day=1.0))
    made = made_at(MIDNIGHT + HOUR_US, 2000, 0.1, deferred=True)
    learner.on_decision(made)
    assert standing(learner).spent_usd == 0.0
    used = replace(report(made, learner.router, usage=Usage(cost_usd=0.3)), time_us=MIDNIGHT + DAY_US + HOUR_US)
    learner.on_report(used, made)
    assert standing(learner) == replace(
        standing(learner), start_us=MIDNIGHT + DAY_US, spent_usd=pytest.approx(0.3)
    )


def test_another_amount_works_at_once_and_keeps_what_was_spent() -> None:
    learner = begun(Objective(budget_usd_per_day=1.0))
    learner.on_decision(made_at(MIDNIGHT + HOUR_US, 2000, 0.25))
    tight = learner.view(0)
    change(learner, Objective(budget_usd_per_day=10.0))
    loose = learner.view(0)
    assert standing(learner).spent_usd == pytest.approx(0.25)
    assert loose.budget_usd_per_request == pytest.approx(13 * tight.budget_usd_per_request, rel=0.01)
    change(learner, Objective(budget_usd_per_day=1.0))
    assert learner.view(0).budget_usd_per_request == pytest.approx(tight.budget_usd_per_request)


KINDS = [
    Objective(),
    Objective(budget_usd_per_request=0.001),
    Objective(budget_usd_per_day=1.0),
    Objective(budget_usd_per_month=30.0),
]


@pytest.mark.parametrize("before", KINDS, ids=str)
@pytest.mark.parametrize("after", KINDS, ids=str)
def test_a_switch_between_kinds_of_budget_owes_nothing_to_the_one_before(
    before: Objective, after: Objective
) -> None:
    learner = begun(before)
    old = made_at(MIDNIGHT + HOUR_US, 2000, 0.5)
    learner.on_decision(old)
    price = learner.view(0).pacer_price
    change(learner, after)
    view = learner.view(0)
    if before != after:
        assert view.standing is None
        of_period = before.budgeted and after.period_budget
        assert view.pacer_price == (pytest.approx(price) if of_period else view.pacer_price)
    learner.on_decision(made_at(MIDNIGHT + HOUR_US, 2002, 0.001))
    learner.on_report(report(old, learner.router, usage=Usage(cost_usd=0.7)), old)
    pacer = json.loads(bytes(np.load(io.BytesIO(learner.state()))["meta"]))["pacing"]["pacer"]
    if after.period_budget:
        assert standing(learner).spent_usd == pytest.approx(0.001 if before != after else 0.701, rel=0.01)
        assert pacer["debt"] == 0.0
    elif before != after:
        assert abs(pacer["debt"]) < 1e-9
    assert (learner.view(0).budget_usd_per_request > 0.0) is after.budgeted


@pytest.mark.parametrize("saved_after", [0, 1, 40, 99])
@pytest.mark.parametrize("objective", KINDS[2:], ids=str)
def test_a_restored_learner_goes_on_to_the_same_bits(objective: Objective, saved_after: int) -> None:
    of = router_with(objective)
    whole, restored = RouterLearner(of), RouterLearner(of)
    generator = np.random.default_rng(6)
    now = MIDNIGHT
    for number in range(160):
        now += int(generator.exponential(DAY_US / 40))
        if number == saved_after:
            restored = RouterLearner.restore(of, whole.state())
            assert restored.fingerprint() == whole.fingerprint()
        made = made_at(now, 1000 + 2 * number, float(generator.uniform(0, 0.05)))
        for learner in (whole, restored) if number >= saved_after else (whole,):
            learner.on_decision(made)
            if number % 3:
                learner.on_report(report(made, of, reward=0.5, usage=Usage(cost_usd=0.01)), made)
    assert restored.fingerprint() == whole.fingerprint()
    assert restored.view(0).pacer_price == whole.view(0).pacer_price


def test_one_view_serves_every_trade_off_with_nothing_learned_in_between() -> None:
    times = sine_times(1, seed=7)
    of = router_with(Objective(budget_usd_per_day=BUDGET))
    learner, rounds = RouterLearner(of), rounds_of(len(times), seed=7)
    for seq, each in enumerate(rounds, start=1000):
        name = ("cheap", "middle", "dear")[seq % 3]
        teach(learner, name, seq, features=each.features, reward=each.outcomes[name].quality)
    view, before, costs = learner.view(0), learner.fingerprint(), []
    for value_usd in (1e-6, 1e-3, 1e-2, 0.1, 10.0):
        unpaced = replace(of, spec=replace(of.spec, objective=Objective()))
        preference = {"quality_value_usd": value_usd, "exploit_only": True}
        made = [
            decide(view, unpaced, query(each.features, preference=preference), f"d{number}", 0)
            for number, each in enumerate(rounds[:200])
        ]
        costs.append(np.mean([each.outcomes[one.model].cost_usd for each, one in zip(rounds, made, strict=False)]))
    assert costs == sorted(costs)
    assert costs[0] < 1.2 * CHEAP
    assert costs[-1] > 0.8 * DEAR
    assert len(set(costs)) >= 4
    assert learner.fingerprint() == before
