"""The policies: the learned one, and the baselines it is compared with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from policy.domain import Exploration, InvalidFieldError, require_model_id
from policy.exploration import gap_weight, inverse_gap_weighting, limited
from policy.quick import quick

BURN_IN_PROBABILITY_MAX = 0.5
BURN_IN_BUDGET_SHARE = 0.05
RETRIAL_BUDGET_SHARE = 0.1
TRIAL_PROBABILITY = 0.2
TRIAL_BUDGET_SHARE = 0.04
CHEAP = 0.05
UNKNOWN_COST_PROBABILITY = 0.2


@quick
@dataclass(frozen=True, slots=True)
class Outlook:
    """What a policy chooses by, for one query. Sequences are (models,).

    `scores` are utilities with the pacer's price in them; -inf marks an excluded model, and one at
    least is not. `rewards` is how many each has had, `tried` that or half of its calls, whichever is more.
    `fallen` is how much of its quality each has lost and not regained, `retrial` how
    probable it is to be tried for its return, `doubts` how much better than it looks one may well be that
    joined late. `money` is the price of money in utility per USD,
    `unit_usd` what a usual request may cost, `loss_max` the most utility that exploring may give up on
    average in this decision.
    """

    ids: tuple[str, ...]
    scores: Sequence[float]
    costs_usd: Sequence[float]
    costs_known: Sequence[bool]
    rewards: Sequence[int]
    tried: Sequence[int]
    fallen: Sequence[float]
    retrial: Sequence[float]
    doubts: Sequence[float]
    money: float
    unit_usd: float
    rewards_total: int
    loss_max: float
    exploration: Exploration

    def eligible(self, index: int) -> bool:
        """Whether the model may be chosen."""
        return self.scores[index] > -math.inf


class Policy(Protocol):
    """Gives the probability of each model; they sum to 1, and an excluded model has 0."""

    def __call__(self, outlook: Outlook) -> list[float]: ...


def learned(outlook: Outlook) -> list[float]:
    """Inverse gap weighting on the scores; burn-in of models that nothing is known of, trials of those that
    little is known of, retrials of fallen ones.

    All of it within what exploring may give up. `policy.planning.LearnedShares` is the same for many
    queries at once.
    """
    gamma = gap_weight(outlook.rewards_total, outlook.exploration.strength)
    shares = inverse_gap_weighting(outlook.scores, gamma)
    for extra in (retrials(outlook), trials(outlook), burn_in(outlook)):
        if extra is not None:
            rest = 1.0 - sum(extra)
            shares = [rest * share + more for share, more in zip(shares, extra, strict=True)]
    return limited(shares, outlook.scores, outlook.loss_max)


def burn_in(outlook: Outlook) -> list[float] | None:
    """Extra probability for models with fewer rewards than the burn-in, the cheap ones first.

    Only for a model that would be the best if it were perfect, and with an expected cost of at most
    5 % of a usual request: a model 500 times as dear as that is tried once in 10,000 requests, not
    ten times in a row. One that joined late is tried for longer, while it would be the best if it were
    as good as it may well be, and of its cost only that counts by which it is dearer than the best
    known. A model of unknown cost is tried in a fifth of the requests until it is known.
    The strength of exploration has no part in it. None where there is nothing to try.
    """
    few = [rewards < outlook.exploration.burn_in_rewards for rewards in outlook.rewards]
    if not any(few) and not any(outlook.doubts) and all(outlook.costs_known):
        return None
    models = range(len(outlook.ids))
    possible = [index for index in models if outlook.eligible(index)]
    unknown = {index for index in possible if not outlook.costs_known[index]}
    if unknown:
        whole = 1.0 if len(unknown) == len(possible) else UNKNOWN_COST_PROBABILITY
        return [whole / len(unknown) if index in unknown else 0.0 for index in models]
    best = max(outlook.scores)
    instead_usd = outlook.costs_usd[outlook.scores.index(best)]
    relative = {}
    for index in possible:
        cost, doubt, behind = outlook.costs_usd[index], outlook.doubts[index], best - outlook.scores[index]
        if (few[index] and 1.0 - outlook.money * cost > best) or 0.0 < behind < doubt:
            extra = cost - instead_usd if doubt else cost
            relative[index] = max(extra / outlook.unit_usd, CHEAP)
    if not relative:
        return None
    inverses = sum(1.0 / each for each in relative.values())
    # Of the mass m each gets m / (relative * inverses), and so spends m / inverses.
    mass = min(BURN_IN_PROBABILITY_MAX, BURN_IN_BUDGET_SHARE * inverses / len(relative))
    return [mass / (relative[index] * inverses) if index in relative else 0.0 for index in models]


def trials(outlook: Outlook) -> list[float] | None:
    """Extra probability for models that have had their burn-in and few rewards after it.

    Inverse gap weighting alone would soon draw a model that looks worse so rarely that nobody could tell by how
    much it is: neither an off-policy estimate, nor a person who asks what it would have done. So until a model
    has `trial_rewards`, or twice as many calls where rewards are missing, it is drawn at a known rate, a fifth of
    the requests for all such models together, and for an expected cost of at most 4 % of a usual request; only
    where it would be the best if it were perfect. Less than usual exploration makes trials rarer, none turns them
    off. None where there is nothing to try.
    """
    exploration = outlook.exploration
    burn_in_rewards, trial_rewards = exploration.burn_in_rewards, exploration.trial_rewards
    counts = zip(outlook.rewards, outlook.tried, strict=True)
    few = [rewards >= burn_in_rewards and tried < trial_rewards for rewards, tried in counts]
    eagerness = min(1.0, exploration.strength)
    if not any(few) or not eagerness:
        return None
    best = max(outlook.scores)
    columns = zip(few, outlook.scores, outlook.costs_usd, outlook.costs_known, strict=True)
    wanted = [
        each and known and -math.inf < score < best and 1.0 - outlook.money * cost > best
        for each, score, cost, known in columns
    ]
    if not any(wanted):
        return None
    affordable = TRIAL_BUDGET_SHARE * outlook.unit_usd
    return [
        eagerness * min(TRIAL_PROBABILITY, affordable / max(cost, 1e-300)) / sum(wanted) if each else 0.0
        for each, cost in zip(wanted, outlook.costs_usd, strict=True)
    ]


def retrials(outlook: Outlook) -> list[float] | None:
    """Extra probability for models that have become worse, to find out when they are back.

    Only where a model would be the best again with what it has lost, and with an expected cost of at most
    10 % of a usual request for all of them. Less than usual exploration makes them rarer, none turns them
    off. None where there is nothing to try.
    """
    eagerness = min(1.0, outlook.exploration.strength)
    if not any(outlook.fallen) or not eagerness:
        return None
    best = max(outlook.scores)
    wanted = [
        bool(fallen) and score + fallen > best > score
        for score, fallen in zip(outlook.scores, outlook.fallen, strict=True)
    ]
    if not any(wanted):
        return None
    affordable = RETRIAL_BUDGET_SHARE * outlook.unit_usd
    columns = zip(wanted, outlook.retrial, outlook.costs_usd, strict=True)
    return [
        eagerness * min(retrial, affordable / max(cost, 1e-300)) / sum(wanted) if each else 0.0
        for each, retrial, cost in columns
    ]


def greedy(outlook: Outlook) -> list[float]:
    """The best score, always."""
    return _only(outlook, outlook.scores.index(max(outlook.scores)))


def uniform(outlook: Outlook) -> list[float]:
    """Every eligible model alike."""
    possible = [outlook.eligible(index) for index in range(len(outlook.ids))]
    return [each / sum(possible) for each in possible]


def cheapest(outlook: Outlook) -> list[float]:
    """The model with the lowest predicted cost, always."""
    possible = [index for index in range(len(outlook.ids)) if outlook.eligible(index)]
    return _only(outlook, min(possible, key=outlook.costs_usd.__getitem__))


def dearest(outlook: Outlook) -> list[float]:
    """The model with the highest predicted cost, always."""
    possible = [index for index in range(len(outlook.ids)) if outlook.eligible(index)]
    return _only(outlook, max(possible, key=outlook.costs_usd.__getitem__))


@dataclass(frozen=True, slots=True)
class Fixed:
    """One model always; where it is excluded, the best score."""

    model: str

    def __call__(self, outlook: Outlook) -> list[float]:
        if self.model in outlook.ids:
            index = outlook.ids.index(self.model)
            if outlook.eligible(index):
                return _only(outlook, index)
        return greedy(outlook)


def _only(outlook: Outlook, chosen: int) -> list[float]:
    return [float(index == chosen) for index in range(len(outlook.ids))]


_NAMED: dict[str, Policy] = {
    "learned": learned,
    "greedy": greedy,
    "uniform": uniform,
    "cheapest": cheapest,
    "dearest": dearest,
}


def parse_policy(name: str) -> Policy:
    """The policy of this name. Raises InvalidFieldError."""
    if name.startswith("fixed:"):
        require_model_id("policy", name.removeprefix("fixed:"))
        return Fixed(name.removeprefix("fixed:"))
    if name not in _NAMED:
        raise InvalidFieldError(
            "policy",
            f"must be one of {', '.join(_NAMED)} or fixed:MODEL, not {name[:80]!r}",
        )
    return _NAMED[name]
