"""The distribution of the learned policy: inverse gap weighting, burn-in, trials and retrials, within a limit.

All of it is for many queries at once, along the last axis, so that what is compiled takes several in one step.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from policy.compiled import compiled, part_of_compiled
from policy.domain import FloatArray
from policy.exploration import Rules

BURN_IN_PROBABILITY_MAX = 0.5
BURN_IN_BUDGET_SHARE = 0.05
RETRIAL_BUDGET_SHARE = 0.1
TRIAL_PROBABILITY = 0.2
TRIAL_BUDGET_SHARE = 0.04
CHEAP = 0.05
UNKNOWN_COST_PROBABILITY = 0.2
_LEAST_USD = 1e-300
PRICE_HIGH = 1e3
"""The highest price of money that is looked for, in utility per budget."""
_PRICE_LOW = 1e-7
_NEAR = 1.5
_STEPS_MAX = 48
_INSIDE_LOW, _INSIDE_HIGH = 0.05, 0.95
_CLOSE = 0.002


class Known(IntEnum):
    """What is known of a model whatever the query is, by its place in a row of `Experience`.

    `REWARDS` is how many it has had, `TRIED` that or half of its calls, whichever is more. `FALLEN` is how much of
    its quality it has lost and not regained, `RETRIAL` how probable it is to be tried for its return, `DOUBT` how
    much better than it looks one may well be that joined late, and `COST` 1 where its cost is known, else 0.
    """

    REWARDS = 0
    TRIED = 1
    FALLEN = 2
    RETRIAL = 3
    DOUBT = 4
    COST = 5


Experience = FloatArray
"""(models, Known)"""

_REWARDS, _TRIED, _FALLEN, _RETRIAL, _DOUBT, _COST = (int(each) for each in Known)


_RULES = "UniTuple(f8, 5)"
_Rules = tuple[float, float, float, float, float]
_Queries = tuple[FloatArray, FloatArray, FloatArray, Experience, _Rules, float]
"""Quality, costs in USD and in budgets (models, queries), what is known, the rules, and the budget in USD."""

Counts = npt.NDArray[np.int64]


@part_of_compiled()
def inverse_gap_weighting(
    scores: FloatArray, gamma: float, best: FloatArray, first: Counts, shares: FloatArray
) -> None:
    """SquareCB's distribution (Foster and Rakhlin 2020): p = 1 / (K + gamma * gap), the best gets the rest.

    `scores` are in units of utility; -inf marks a model that cannot be chosen, and K counts the others. `best` and
    `first` become the best score and its model (queries,).
    """
    eligible, others = np.zeros(len(best)), np.zeros(len(best))
    best[:] = -np.inf
    first[:] = 0
    for model in range(len(scores)):
        for query in range(len(best)):
            score = scores[model, query]
            better = score > best[query]
            best[query] = score if better else best[query]
            first[query] = model if better else first[query]
            eligible[query] += score > -np.inf
    for model in range(len(scores)):
        for query in range(len(best)):
            share = 1.0 / (eligible[query] + gamma * (best[query] - scores[model, query]))
            shares[model, query] = 0.0 if gamma == np.inf or first[query] == model else share
            others[query] += shares[model, query]
    for model in range(len(scores)):
        for query in range(len(best)):
            shares[model, query] = 1.0 - others[query] if first[query] == model else shares[model, query]


@part_of_compiled()
def retrials(
    scores: FloatArray,
    costs: FloatArray,
    known: Experience,
    rules: _Rules,
    best: FloatArray,
    unit_usd: float,
    extra: FloatArray,
) -> None:
    """Extra probability for models that have become worse, to find out when they are back.

    Only where a model would be the best again with what it has lost, and with an expected cost of at most
    10 % of a usual request for all of them. Less than usual exploration makes them rarer, none turns them
    off.
    """
    wanted = np.zeros(len(best))
    for model in range(len(scores)):
        fallen = known[model, _FALLEN]
        for query in range(len(best)):
            score = scores[model, query]
            extra[model, query] = fallen > 0.0 and score + fallen > best[query] > score
            wanted[query] += extra[model, query]
    for model in range(len(scores)):
        for query in range(len(best)):
            affordable = RETRIAL_BUDGET_SHARE * unit_usd / max(costs[model, query], _LEAST_USD)
            most = rules[1] * min(known[model, _RETRIAL], affordable)
            extra[model, query] *= most / max(wanted[query], 1.0)


@part_of_compiled()
def trials(
    scores: FloatArray,
    costs: FloatArray,
    known: Experience,
    rules: _Rules,
    best: FloatArray,
    money: float,
    unit_usd: float,
    extra: FloatArray,
) -> None:
    """Extra probability for models that have had their burn-in and few rewards after it.

    Inverse gap weighting alone would soon draw a model that looks worse so rarely that nobody could tell by how
    much it is: neither an off-policy estimate, nor a person who asks what it would have done. So until a model
    has `trial_rewards`, or twice as many calls where rewards are missing, it is drawn at a known rate, a fifth of
    the requests for all such models together, and for an expected cost of at most 4 % of a usual request; only
    where it would be the best if it were perfect. Less than usual exploration makes trials rarer, none turns them
    off.
    """
    wanted = np.zeros(len(best))
    for model in range(len(scores)):
        few = known[model, _REWARDS] >= rules[2] and known[model, _TRIED] < rules[3] and known[model, _COST] > 0.0
        for query in range(len(best)):
            score = scores[model, query]
            hopeful = -np.inf < score < best[query] and 1.0 - money * costs[model, query] > best[query]
            extra[model, query] = few and hopeful
            wanted[query] += extra[model, query]
    for model in range(len(scores)):
        for query in range(len(best)):
            affordable = TRIAL_BUDGET_SHARE * unit_usd / max(costs[model, query], _LEAST_USD)
            extra[model, query] *= rules[1] * min(TRIAL_PROBABILITY, affordable) / max(wanted[query], 1.0)


@part_of_compiled()
def burn_in(
    scores: FloatArray,
    costs: FloatArray,
    known: Experience,
    rules: _Rules,
    best: FloatArray,
    first: Counts,
    money: float,
    unit_usd: float,
    extra: FloatArray,
) -> None:
    """Extra probability for models with fewer rewards than the burn-in, the cheap ones first.

    Only for a model that would be the best if it were perfect, and with an expected cost of at most
    5 % of a usual request: a model 500 times as dear as that is tried once in 10,000 requests, not
    ten times in a row. One that joined late is tried for longer, while it would be the best if it were
    as good as it may well be, and of its cost only that counts by which it is dearer than the best
    known. The strength of exploration has no part in it.
    """
    wanted, inverses = np.zeros(len(best)), np.zeros(len(best))
    for model in range(len(scores)):
        burning, doubt = known[model, _REWARDS] < rules[2], known[model, _DOUBT]
        for query in range(len(best)):
            cost, behind = costs[model, query], best[query] - scores[model, query]
            hopeful = burning and 1.0 - money * cost > best[query] and behind < np.inf
            dearer_usd = cost - costs[first[query], query] if doubt > 0.0 else cost
            tried = hopeful or 0.0 < behind < doubt
            extra[model, query] = 1.0 / max(dearer_usd / unit_usd, CHEAP) if tried else 0.0
            inverses[query] += extra[model, query]
            wanted[query] += tried
    for model in range(len(scores)):
        for query in range(len(best)):
            # Of the mass m each gets m * inverse / inverses, and so spends m / inverses.
            mass = min(BURN_IN_PROBABILITY_MAX, BURN_IN_BUDGET_SHARE * inverses[query] / max(wanted[query], 1.0))
            extra[model, query] *= mass / max(inverses[query], _LEAST_USD)


@part_of_compiled()
def unknown_costs(scores: FloatArray, known: Experience, extra: FloatArray) -> None:
    """A model of unknown cost is tried in a fifth of the requests until it is known; where there is one, nothing
    else is burnt in.
    """
    for query in range(scores.shape[1]):
        possible = unknown = 0
        for model in range(len(scores)):
            eligible = scores[model, query] > -np.inf
            possible += eligible
            unknown += eligible and known[model, _COST] == 0.0
        if unknown:
            whole = 1.0 if unknown == possible else UNKNOWN_COST_PROBABILITY
            for model in range(len(scores)):
                tried = scores[model, query] > -np.inf and known[model, _COST] == 0.0
                extra[model, query] = whole / unknown if tried else 0.0


@part_of_compiled()
def _mix(shares: FloatArray, extra: FloatArray) -> None:
    """Gives the extra probabilities, and scales down the others to make room for them."""
    total = np.zeros(shares.shape[1])
    for model in range(len(shares)):
        for query in range(len(total)):
            total[query] += extra[model, query]
    for model in range(len(shares)):
        for query in range(len(total)):
            shares[model, query] = (1.0 - total[query]) * shares[model, query] + extra[model, query]


@part_of_compiled()
def limit(scores: FloatArray, best: FloatArray, first: Counts, loss_max: float, shares: FloatArray) -> None:
    """Keeps the expected loss of utility to `loss_max`: all but the best are scaled down where it is more."""
    loss = np.zeros(len(best))
    for model in range(len(shares)):
        for query in range(len(best)):
            share = shares[model, query]
            loss[query] += share * (best[query] - scores[model, query]) if share > 0.0 else 0.0
    for query in range(len(best)):
        if loss[query] > loss_max:
            kept = loss_max / loss[query]
            for model in range(len(shares)):
                shares[model, query] *= kept
            shares[first[query], query] += 1.0 - kept


@part_of_compiled()
def _possible(known: Experience, rules: _Rules) -> tuple[bool, bool, bool]:
    """Whether there may be retrials, trials, and a burn-in, whatever the query is."""
    for_retrial = for_trial = for_burn_in = False
    for model in range(len(known)):
        burning = known[model, _REWARDS] < rules[2]
        for_retrial |= rules[1] > 0.0 and known[model, _FALLEN] > 0.0
        for_trial |= rules[1] > 0.0 and not burning and known[model, _TRIED] < rules[3]
        for_burn_in |= burning or known[model, _DOUBT] > 0.0 or known[model, _COST] == 0.0
    return for_retrial, for_trial, for_burn_in


@compiled(f"f8[:, ::1](f8[:, ::1], f8[:, ::1], f8[:, ::1], {_RULES}, f8, f8)")
def _shares(
    scores: FloatArray, costs: FloatArray, known: Experience, rules: _Rules, money: float, unit_usd: float
) -> FloatArray:
    queries = scores.shape[1]
    best, first, shares = np.empty(queries), np.empty(queries, np.int64), np.empty_like(scores)
    for_retrial, for_trial, for_burn_in = _possible(known, rules)
    extra = np.empty_like(scores) if for_retrial or for_trial or for_burn_in else shares
    inverse_gap_weighting(scores, rules[0], best, first, shares)
    if for_retrial:
        retrials(scores, costs, known, rules, best, unit_usd, extra)
        _mix(shares, extra)
    if for_trial:
        trials(scores, costs, known, rules, best, money, unit_usd, extra)
        _mix(shares, extra)
    if for_burn_in:
        burn_in(scores, costs, known, rules, best, first, money, unit_usd, extra)
        unknown_costs(scores, known, extra)
        _mix(shares, extra)
    limit(scores, best, first, rules[4], shares)
    return shares


@compiled(f"void(f8[::1], f8[:, ::1], {_RULES}, f8, f8, f8[::1])")
def _shares_of_one(
    scores_and_costs: FloatArray,
    known: Experience,
    rules: _Rules,
    money: float,
    unit_usd: float,
    shares: FloatArray,
) -> None:
    models = len(shares)
    scores, costs = scores_and_costs[:models].reshape(models, 1), scores_and_costs[models:].reshape(models, 1)
    shares[:] = _shares(scores, costs, known, rules, money, unit_usd)[:, 0]


@part_of_compiled(sums_in_any_order=True)
def _spend(queries: _Queries, money: float) -> tuple[float, float]:
    """Mean and mean square of what a query costs at this price of money."""
    quality, costs, budgets, known, rules, unit_usd = queries
    shares = _shares(quality - money * costs, costs, known, rules, money, unit_usd)
    mean = square = 0.0
    for model in range(len(shares)):
        for query in range(shares.shape[1]):
            spent = shares[model, query] * budgets[model, query]
            mean += spent
            square += spent * budgets[model, query]
    return mean / shares.shape[1], square / shares.shape[1]


@part_of_compiled()
def _price(queries: _Queries, unpaced: float, target: float, last: float) -> float:
    """The lowest price found at which the spend is within the target, by false position and by halving of its
    logarithm in turns.
    """
    unit_usd = queries[5]
    if _spend(queries, unpaced)[0] <= target:
        return 0.0
    low, high, over, under, price = _PRICE_LOW, PRICE_HIGH, np.nan, np.nan, last
    for _ in range(2 if last > 0.0 else 0):
        excess = _spend(queries, price / unit_usd + unpaced)[0] - target
        if excess > 0.0:
            low, over, price = price, excess, min(last * _NEAR, PRICE_HIGH)
        else:
            high, under, price = price, excess, last / _NEAR
    if np.isnan(over):
        over = _spend(queries, low / unit_usd + unpaced)[0] - target
    if over <= 0.0:
        return low  # Next to nothing is enough, though nothing is not.
    if np.isnan(under):
        under = _spend(queries, high / unit_usd + unpaced)[0] - target
    for step in range(_STEPS_MAX):
        if under >= -_CLOSE * target:
            break
        # A straight line between the two is near where the spend is smooth, the middle safe where it jumps.
        share = 0.5 if step % 2 else min(_INSIDE_HIGH, max(_INSIDE_LOW, over / (over - under)))
        price = low * (high / low) ** share
        excess = _spend(queries, price / unit_usd + unpaced)[0] - target
        if excess > 0.0:
            low, over = price, excess
        else:
            high, under = price, excess
    return high


@compiled(f"UniTuple(f8, 3)(f8[:, ::1], f8[:, ::1], f8[:, ::1], {_RULES}, f8, f8, f8, f8)")
def _solved(
    quality: FloatArray,
    costs: FloatArray,
    known: Experience,
    rules: _Rules,
    unit_usd: float,
    unpaced: float,
    target: float,
    last: float,
) -> tuple[float, float, float]:
    queries = (quality, costs, costs / unit_usd, known, rules, unit_usd)
    price = _price(queries, unpaced, target, last)
    mean, square = _spend(queries, price / unit_usd + unpaced)
    return price, mean, square


def shares_of_one(
    scores: Sequence[float],
    costs_usd: Sequence[float],
    experience: Experience,
    rules: Rules,
    money: float,
    unit_usd: float,
) -> list[float]:
    """The probability of each model (models,) for one query, by their scores and costs; see `policies.Outlook`.

    -inf marks a model that is excluded, and one at least is not.
    """
    shares = np.empty(len(scores))
    _shares_of_one(np.array([*scores, *costs_usd]), experience, rules.numbers, money, unit_usd, shares)
    found: list[float] = shares.tolist()
    return found


def solved(
    quality: FloatArray,
    costs_usd: FloatArray,
    experience: Experience,
    rules: Rules,
    unit_usd: float,
    value_usd: float,
    target: float,
    last: float,
) -> tuple[float, float, float]:
    """The price of money, in utility per budget of `unit_usd`, at which the queries cost `target` budgets in the
    mean over what is drawn, and that mean and the mean square at it; `last` is the last such price.

    Axes of `quality` and `costs_usd`: (models, queries). Without a price quality is worth `value_usd`.
    """
    return _solved(quality, costs_usd, experience, rules.numbers, unit_usd, 1.0 / value_usd, target, last)
