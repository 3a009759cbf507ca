"""The distribution of the learned policy: inverse gap weighting, burn-in, trials and retrials, within a limit."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from policy.compiled import compiled, part_of_compiled
from policy.domain import Exploration, FloatArray
from policy.exploration import gap_weight

BURN_IN_PROBABILITY_MAX = 0.5
BURN_IN_BUDGET_SHARE = 0.05
RETRIAL_BUDGET_SHARE = 0.1
TRIAL_PROBABILITY = 0.2
TRIAL_BUDGET_SHARE = 0.04
CHEAP = 0.05
UNKNOWN_COST_PROBABILITY = 0.2
_LEAST_USD = 1e-300


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


@dataclass(frozen=True, slots=True)
class Rules:
    """How much is explored: `gamma` of inverse gap weighting, and the share of usual exploration for the rest."""

    gamma: float
    eagerness: float
    burn_in_rewards: float
    trial_rewards: float
    loss_max: float

    @classmethod
    def of(cls, exploration: Exploration, rewards_total: int, loss_max: float) -> Rules:
        """Those of a router that has learned so many rewards, where a decision may give up so much utility."""
        return cls(
            gap_weight(rewards_total, exploration.strength),
            min(1.0, exploration.strength),
            exploration.burn_in_rewards,
            exploration.trial_rewards,
            loss_max,
        )

    @property
    def numbers(self) -> tuple[float, float, float, float, float]:
        """As compiled code takes them."""
        return self.gamma, self.eagerness, self.burn_in_rewards, self.trial_rewards, self.loss_max


_RULES = "UniTuple(f8, 5)"
_Rules = tuple[float, float, float, float, float]


@part_of_compiled
def retrials(
    scores: FloatArray,
    costs: FloatArray,
    known: FloatArray,
    rules: _Rules,
    best: float,
    unit_usd: float,
    extra: FloatArray,
) -> int:
    """Extra probability for models that have become worse, to find out when they are back.

    Only where a model would be the best again with what it has lost, and with an expected cost of at most
    10 % of a usual request for all of them. Less than usual exploration makes them rarer, none turns them
    off. Returns for how many.
    """
    wanted = 0
    for model in range(len(scores)):
        fallen = known[model, _FALLEN]
        extra[model] = fallen > 0.0 and scores[model] + fallen > best > scores[model]
        wanted += extra[model] > 0.0
    for model in range(len(scores)):
        if extra[model] > 0.0:
            affordable = RETRIAL_BUDGET_SHARE * unit_usd / max(costs[model], _LEAST_USD)
            extra[model] = rules[1] * min(known[model, _RETRIAL], affordable) / wanted
    return wanted


@part_of_compiled
def trials(
    scores: FloatArray,
    costs: FloatArray,
    known: FloatArray,
    rules: _Rules,
    best: float,
    money: float,
    unit_usd: float,
    extra: FloatArray,
) -> int:
    """Extra probability for models that have had their burn-in and few rewards after it.

    Inverse gap weighting alone would soon draw a model that looks worse so rarely that nobody could tell by how
    much it is: neither an off-policy estimate, nor a person who asks what it would have done. So until a model
    has `trial_rewards`, or twice as many calls where rewards are missing, it is drawn at a known rate, a fifth of
    the requests for all such models together, and for an expected cost of at most 4 % of a usual request; only
    where it would be the best if it were perfect. Less than usual exploration makes trials rarer, none turns them
    off. Returns for how many.
    """
    wanted = 0
    for model in range(len(scores)):
        few = known[model, _REWARDS] >= rules[2] and known[model, _TRIED] < rules[3]
        hopeful = -np.inf < scores[model] < best and 1.0 - money * costs[model] > best
        extra[model] = few and hopeful and known[model, _COST] > 0.0
        wanted += extra[model] > 0.0
    for model in range(len(scores)):
        if extra[model] > 0.0:
            affordable = TRIAL_BUDGET_SHARE * unit_usd / max(costs[model], _LEAST_USD)
            extra[model] = rules[1] * min(TRIAL_PROBABILITY, affordable) / wanted
    return wanted


@part_of_compiled
def unknown_costs(scores: FloatArray, known: FloatArray, extra: FloatArray) -> int:
    """A model of unknown cost is tried in a fifth of the requests until it is known. Returns for how many."""
    possible = unknown = 0
    for model in range(len(scores)):
        eligible = scores[model] > -np.inf
        extra[model] = eligible and known[model, _COST] == 0.0
        possible += eligible
        unknown += extra[model] > 0.0
    whole = 1.0 if unknown == possible else UNKNOWN_COST_PROBABILITY
    for model in range(len(scores)):
        if extra[model] > 0.0:
            extra[model] = whole / unknown
    return unknown


@part_of_compiled
def burn_in(
    scores: FloatArray,
    costs: FloatArray,
    known: FloatArray,
    rules: _Rules,
    first: int,
    money: float,
    unit_usd: float,
    extra: FloatArray,
) -> int:
    """Extra probability for models with fewer rewards than the burn-in, the cheap ones first.

    Only for a model that would be the best if it were perfect, and with an expected cost of at most
    5 % of a usual request: a model 500 times as dear as that is tried once in 10,000 requests, not
    ten times in a row. One that joined late is tried for longer, while it would be the best if it were
    as good as it may well be, and of its cost only that counts by which it is dearer than the best
    known. The strength of exploration has no part in it. Returns for how many.
    """
    wanted, inverses, best = 0, 0.0, scores[first]
    for model in range(len(scores)):
        extra[model] = 0.0
        if scores[model] == -np.inf:
            continue
        doubt, behind = known[model, _DOUBT], best - scores[model]
        hopeful = known[model, _REWARDS] < rules[2] and 1.0 - money * costs[model] > best
        if hopeful or 0.0 < behind < doubt:
            dearer_usd = costs[model] - costs[first] if doubt > 0.0 else costs[model]
            extra[model] = 1.0 / max(dearer_usd / unit_usd, CHEAP)
            inverses += extra[model]
            wanted += 1
    if wanted:
        # Of the mass m each gets m * inverse / inverses, and so spends m / inverses.
        mass = min(BURN_IN_PROBABILITY_MAX, BURN_IN_BUDGET_SHARE * inverses / wanted)
        for model in range(len(scores)):
            extra[model] *= mass / inverses
    return wanted


@part_of_compiled
def _mix(shares: FloatArray, extra: FloatArray) -> None:
    """Gives the extra probabilities, and scales down the others to make room for them."""
    total = 0.0
    for model in range(len(shares)):
        total += extra[model]
    for model in range(len(shares)):
        shares[model] = (1.0 - total) * shares[model] + extra[model]


@part_of_compiled
def inverse_gap_weighting(scores: FloatArray, gamma: float, shares: FloatArray) -> int:
    """SquareCB's distribution (Foster and Rakhlin 2020): p = 1 / (K + gamma * gap), the best gets the rest.

    `scores` are in units of utility; -inf marks a model that cannot be chosen, and K counts the others. Returns
    which is the best.
    """
    first = count = 0
    for model in range(len(scores)):
        count += scores[model] > -np.inf
        if scores[model] > scores[first]:
            first = model
    others = 0.0
    for model in range(len(scores)):
        shares[model] = 0.0
        if model != first and scores[model] > -np.inf and gamma < np.inf:
            shares[model] = 1.0 / (count + gamma * (scores[first] - scores[model]))
            others += shares[model]
    shares[first] = 1.0 - others
    return first


@part_of_compiled
def limit(scores: FloatArray, first: int, loss_max: float, shares: FloatArray) -> None:
    """Keeps the expected loss of utility to `loss_max`: all but the best are scaled down where it is more."""
    loss = 0.0
    for model in range(len(shares)):
        if shares[model] > 0.0:
            loss += shares[model] * (scores[first] - scores[model])
    if loss > loss_max:
        kept = loss_max / loss
        for model in range(len(shares)):
            shares[model] *= kept
        shares[first] += 1.0 - kept


@part_of_compiled
def _possible(known: FloatArray, rules: _Rules) -> tuple[bool, bool, bool]:
    """Whether there may be retrials, trials, and a burn-in, whatever the query is."""
    retrials = trials = burn_in = False
    for model in range(len(known)):
        burning = known[model, _REWARDS] < rules[2]
        retrials |= rules[1] > 0.0 and known[model, _FALLEN] > 0.0
        trials |= rules[1] > 0.0 and not burning and known[model, _TRIED] < rules[3]
        burn_in |= burning or known[model, _DOUBT] > 0.0 or known[model, _COST] == 0.0
    return retrials, trials, burn_in


@part_of_compiled
def _share(
    scores: FloatArray,
    costs: FloatArray,
    known: FloatArray,
    rules: _Rules,
    possible: tuple[bool, bool, bool],
    money: float,
    unit_usd: float,
    shares: FloatArray,
    extra: FloatArray,
) -> None:
    """The distribution for one query, into `shares`; `extra` is room to work in. All but `known` are (models,)."""
    first = inverse_gap_weighting(scores, rules[0], shares)
    best = scores[first]
    if possible[0] and retrials(scores, costs, known, rules, best, unit_usd, extra):
        _mix(shares, extra)
    if possible[1] and trials(scores, costs, known, rules, best, money, unit_usd, extra):
        _mix(shares, extra)
    if possible[2]:
        found = unknown_costs(scores, known, extra)
        if not found:
            found = burn_in(scores, costs, known, rules, first, money, unit_usd, extra)
        if found:
            _mix(shares, extra)
    limit(scores, first, rules[4], shares)


@compiled(f"f8[::1](f8[::1], f8[::1], f8[:, ::1], {_RULES}, f8, f8)")
def _shares(
    scores: FloatArray, costs: FloatArray, known: FloatArray, rules: _Rules, money: float, unit_usd: float
) -> FloatArray:
    shares = np.empty(len(scores))
    _share(scores, costs, known, rules, _possible(known, rules), money, unit_usd, shares, np.empty(len(scores)))
    return shares


@compiled(f"UniTuple(f8, 2)(f8[:, ::1], f8[:, ::1], f8[:, ::1], {_RULES}, f8, f8)")
def _spend(
    quality: FloatArray, costs: FloatArray, known: FloatArray, rules: _Rules, money: float, unit_usd: float
) -> tuple[float, float]:
    queries, models = quality.shape
    scores, shares, extra = np.empty(models), np.empty(models), np.empty(models)
    possible = _possible(known, rules)
    mean = square = 0.0
    for query in range(queries):
        for model in range(models):
            scores[model] = quality[query, model] - money * costs[query, model]
        _share(scores, costs[query], known, rules, possible, money, unit_usd, shares, extra)
        for model in range(models):
            spent = costs[query, model] / unit_usd
            mean += shares[model] * spent
            square += shares[model] * spent * spent
    return mean / queries, square / queries


def learned_shares(
    scores: FloatArray, costs_usd: FloatArray, experience: Experience, rules: Rules, money: float, unit_usd: float
) -> FloatArray:
    """The probability of each model (models,) for one query with these scores and costs; see `policies.Outlook`.

    -inf marks a model that is excluded, and one at least is not.
    """
    return _shares(scores, costs_usd, experience, rules.numbers, money, unit_usd)


def expected_spend(
    quality: FloatArray, costs_usd: FloatArray, experience: Experience, rules: Rules, money: float, unit_usd: float
) -> tuple[float, float]:
    """Mean and mean square of what a query costs, in `unit_usd`, over queries and over what is drawn at this price
    of money. Axes of `quality` and `costs_usd`: (queries, models).
    """
    return _spend(quality, costs_usd, experience, rules.numbers, money, unit_usd)
