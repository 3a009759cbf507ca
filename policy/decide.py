"""The decision: filter the candidates, predict, score, and draw."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, replace

import numpy as np

from policy.books import loss_limit
from policy.choices import Candidate, Choice, Constraints, Exclusion, Preference, Query, Shadow, Turn
from policy.circuit import Circuit, Phase
from policy.domain import Model, ModelState, Router
from policy.exploration import draw
from policy.policies import Outlook, greedy, parse_policy
from policy.quick import quick
from policy.shadow import affordable_share, explores, mixed
from policy.shares import Known
from policy.view import Aligned, PolicyView

Reason = tuple[Exclusion, str]
_UNCONSTRAINED = Constraints()
Blend = Callable[[Outlook, Sequence[float]], list[float]]


class NoCandidateError(Exception):
    """No model may be chosen. `reasons` says why, by model id."""

    def __init__(self, router: str, reasons: dict[str, str]) -> None:
        listed = "; ".join(f"{model}: {reason}" for model, reason in list(reasons.items())[:20])
        super().__init__(
            f"routers/{router} has no eligible model" + (f": {listed}" if listed else ": it has no models")
        )
        self.reasons = reasons


def decide(
    view: PolicyView,
    router: Router,
    query: Query,
    decision_id: str,
    now_us: int,
    session: Turn | None = None,
    incumbent_model: str = "",
    probed: Set[str] = frozenset(),
    blend: Blend | None = None,
    owed: float = 0.0,
) -> Choice:
    """Chooses a model. The same arguments always give the same choice.

    A session keeps the model of its last turn while it is eligible and no other gains by more than a switch
    costs. That is certain given what led to it, so its propensity is 1; a session that leaves its model is
    drawn for as any other decision. In shadow mode `incumbent_model` is obeyed, but for the router's share
    of decisions that explore, and the probabilities are those of both together. `probed` are the keys of the
    models with a probe in flight that the view does not know of; a choice that is a probe says so. `blend`
    makes of the live policy's probabilities those that are drawn by, as a canary does; it has no part in an
    exploit-only decision. Where more utility is `owed` than the view knows of, that much less may be explored. The
    fallbacks are models that work, or all others where none is known to work.
    Raises NoCandidateError.
    """
    forecast = _forecast(view, router, query, session)
    phases = _phases(forecast.aligned, now_us, probed)
    reasons = _exclusions(router, query, forecast, phases, now_us)
    eligible = _eligible(router, reasons)
    outlook = _outlook(view, router, forecast, reasons, owed)
    policy = greedy if query.preference.exploit_only else parse_policy(router.spec.policy)
    probabilities = policy(outlook)
    if blend is not None and not query.preference.exploit_only:
        probabilities = blend(outlook, probabilities)
    index = drawn = draw(decision_id, probabilities)
    ids = outlook.ids
    kept, shadow = "", None
    if incumbent_model:
        shadow = _shadow(incumbent_model, probabilities, outlook, forecast, router, query.preference)
        index, probabilities = _obeyed(shadow, ids.index(incumbent_model), drawn, decision_id)
    elif session is not None:
        kept = _kept(session.model, outlook, router)
    if kept:
        index = ids.index(kept)
        probabilities = [float(each == index) for each in range(len(ids))]
    works = [each for each in eligible if phases[each] is Phase.CLOSED]
    ranked = sorted(works or eligible, key=forecast.scores.__getitem__, reverse=True)
    return Choice(
        model=ids[index],
        probability=probabilities[index],
        candidates=_candidates(ids, probabilities, forecast, reasons),
        fallbacks=tuple([ids[each] for each in ranked if each != index]),
        policy="exploit_only" if query.preference.exploit_only else router.spec.policy,
        snapshot=view.snapshot,
        price_of_money=forecast.money,
        sticky=bool(kept),
        proposed_model=ids[drawn] if incumbent_model else "",
        # Where none is known to work all are called as if they did, and none is on trial.
        probe=bool(works) and phases[index] is Phase.HALF_OPEN,
        shadow=shadow,
    )


def _eligible(router: Router, reasons: Sequence[Reason | None]) -> list[int]:
    """The indices of the models that may be chosen. Raises NoCandidateError if there are none."""
    found = [index for index, reason in enumerate(reasons) if reason is None]
    if not found:
        named = zip(router.models, reasons, strict=True)
        raise NoCandidateError(router.id, {model.id: f"{why[0].name}: {why[1]}" for model, why in named if why})
    return found


def _shadow(
    incumbent_model: str,
    proposal: Sequence[float],
    outlook: Outlook,
    forecast: _Forecast,
    router: Router,
    preference: Preference,
) -> Shadow:
    wanted = 0.0 if preference.exploit_only else router.spec.shadow_explore_share
    incumbent = outlook.ids.index(incumbent_model)
    share = affordable_share(wanted, proposal, forecast.scores, incumbent, outlook.rules.loss_max)
    return Shadow(incumbent_model, share, tuple(proposal))


def _obeyed(shadow: Shadow, incumbent: int, drawn: int, decision_id: str) -> tuple[int, list[float]]:
    """The index of the model that is called in shadow mode, and the probabilities by which it came to that."""
    index = drawn if explores(decision_id, shadow.explore_share) else incumbent
    return index, mixed(shadow.proposal, incumbent, shadow.explore_share)


def reconsider(
    view: PolicyView, router: Router, query: Query, excluded: Set[str]
) -> tuple[Outlook, tuple[Candidate, ...]]:
    """What another policy would choose by in a decision that was made already, and its candidates undrawn.

    `excluded` are the ids of the models that were no candidates then; nothing else is excluded, whatever speaks
    against it in this view, since the request's constraints are not in the log. Raises NoCandidateError.
    """
    forecast = _forecast(view, router, query, None)
    reasons = [(Exclusion.NOT_ALLOWED, "") if model.id in excluded else None for model in router.models]
    if all(reasons):
        raise NoCandidateError(router.id, {})
    undrawn = [0.0] * len(reasons)
    candidates = _candidates(forecast.aligned.ids, undrawn, forecast, reasons)
    return _outlook(view, router, forecast, reasons), candidates


@quick
@dataclass(frozen=True, slots=True)
class _Forecast:
    """What is predicted of each model for one query. Lists are (models,); scores before any exclusion."""

    aligned: Aligned
    quality: list[float]
    cost_usd: list[float]
    scores: list[float]
    money: float


def _forecast(view: PolicyView, router: Router, query: Query, session: Turn | None) -> _Forecast:
    aligned = view.aligned(router)
    features = query.features.astype(np.float64)
    tokens = query.charged_input_tokens
    learned = view.quality.predict(features, aligned.keys).tolist()
    quality = [value + offset for value, offset in zip(learned, aligned.offsets, strict=True)]
    cost = aligned.costs.of_one(features, tokens, query.max_output_tokens)
    if session is not None and session.model in aligned.ids:
        index = aligned.ids.index(session.model)
        saved = aligned.costs.saved_usd_per_cached_token[index] * min(session.input_tokens, tokens)
        cost[index] -= saved
    money, latency_price = _prices(view, router, query.preference)
    columns = zip(quality, cost, aligned.latency_seconds, strict=True)
    scores = [value - money * usd - latency_price * seconds for value, usd, seconds in columns]
    return _Forecast(aligned, quality, cost, scores, money)


def _kept(model: str, outlook: Outlook, router: Router) -> str:
    """The model if the session keeps it; empty if it is no candidate, or another gains by more than a switch.

    What it has in its cache is in its score. Beyond that another has to be better by the router's
    `session_switch_gain`, and both have to be known: a prediction before the burn-in is a guess.
    """
    if model not in outlook.ids or not outlook.eligible(outlook.ids.index(model)):
        return ""
    own = outlook.ids.index(model)
    known = outlook.experience[:, Known.REWARDS] >= outlook.rules.burn_in_rewards
    best = max((score for score, sure in zip(outlook.scores, known, strict=True) if sure), default=-math.inf)
    return "" if known[own] and best > outlook.scores[own] + router.spec.session_switch_gain else model


def _prices(view: PolicyView, router: Router, preference: Preference) -> tuple[float, float]:
    """The price of money, in utility per USD, and of latency, in utility per second."""
    objective = router.spec.objective
    value = preference.quality_value_usd
    if value is None:
        value = objective.value_usd
    per_second = preference.latency_usd_per_second
    if per_second is None:
        per_second = objective.latency_usd_per_second
    pacer = view.pacer_price if objective.budgeted else 0.0
    money = pacer + 1.0 / value
    # With only a budget quality has no value in USD of its own; the pacer's price is then the only one.
    return money, per_second * (pacer if math.isinf(value) else 1.0 / value)


def _outlook(
    view: PolicyView,
    router: Router,
    forecast: _Forecast,
    reasons: Sequence[Reason | None],
    owed: float = 0.0,
) -> Outlook:
    objective = router.spec.objective
    # What a period's budget comes to for a request is for the learner to say.
    unit_usd = objective.budget_usd_per_request
    if not unit_usd and objective.period_budget:
        unit_usd = view.budget_usd_per_request
    excluded = any(reasons)
    if not unit_usd:
        costs = forecast.cost_usd
        if excluded:
            costs = [usd for usd, reason in zip(costs, reasons, strict=True) if reason is None]
        unit_usd = sum(costs) / len(costs) or 1.0
    scores = forecast.scores
    if excluded:
        scores = [score if reason is None else -math.inf for score, reason in zip(scores, reasons, strict=True)]
    rules = forecast.aligned.rules
    if owed > view.router.exploration_owed:
        rules = replace(rules, loss_max=loss_limit(owed, router.spec.exploration.max_utility_loss))
    return Outlook(
        ids=forecast.aligned.ids,
        scores=scores,
        costs_usd=forecast.cost_usd,
        experience=forecast.aligned.experience,
        money=forecast.money,
        unit_usd=unit_usd,
        rules=rules,
    )


def _phases(aligned: Aligned, now_us: int, probed: Set[str]) -> list[Phase]:
    """(models,)"""
    if aligned.unrestricted:
        return [Phase.CLOSED] * len(aligned.ids)
    phases = [circuit.phase(now_us) for circuit in aligned.circuits]
    if not probed:
        return phases
    return [
        Phase.OPEN if phase is Phase.HALF_OPEN and key in probed else phase
        for phase, key in zip(phases, aligned.keys, strict=True)
    ]


def _exclusions(
    router: Router, query: Query, forecast: _Forecast, phases: Sequence[Phase], now_us: int
) -> list[Reason | None]:
    """Why each model is not a candidate, None where it is.

    If of those that nothing else speaks against none is known to work, all of them are candidates as if
    they did: a call that may fail is worth more than none, and one that works is how they come back.
    """
    if forecast.aligned.unrestricted and query.constraints == _UNCONSTRAINED:
        return [None] * len(phases)
    latency = forecast.aligned.latency_seconds
    reasons = [
        _exclusion(model, query, cost_usd, latency_seconds)
        for model, cost_usd, latency_seconds in zip(router.models, forecast.cost_usd, latency, strict=True)
    ]
    if not any(reason is None and phase is Phase.CLOSED for reason, phase in zip(reasons, phases, strict=True)):
        return reasons
    return [
        _unhealthy(circuit, now_us) if reason is None and phase is Phase.OPEN else reason
        for reason, phase, circuit in zip(reasons, phases, forecast.aligned.circuits, strict=True)
    ]


def _unhealthy(circuit: Circuit, now_us: int) -> Reason:
    if now_us < circuit.retry_us:
        seconds = (circuit.retry_us - now_us) * 1e-6
        return Exclusion.UNHEALTHY, f"its calls have been failing, it is tried again in {seconds:.1f} s"
    return Exclusion.UNHEALTHY, "its calls have been failing, one that tries it again is under way"


def _exclusion(model: Model, query: Query, cost_usd: float, latency_seconds: float) -> Reason | None:
    constraints, spec = query.constraints, model.spec
    if spec.state is ModelState.DISABLED:
        return Exclusion.DISABLED, "its state is disabled"
    if constraints.allowed_models is not None and model.id not in constraints.allowed_models:
        return Exclusion.NOT_ALLOWED, "it is not among allowed_models"
    if model.id in constraints.denied_models:
        return Exclusion.DENIED, "it is among denied_models"
    missing = constraints.required_capabilities.difference(spec.capabilities)
    if missing:
        return Exclusion.MISSING_CAPABILITY, f"it lacks {', '.join(sorted(missing))}"
    tokens = query.input_tokens + query.max_output_tokens
    if 0 < spec.context_window_tokens < tokens:
        return (
            Exclusion.CONTEXT_WINDOW,
            f"{tokens} tokens do not fit {spec.context_window_tokens}",
        )
    if constraints.max_cost_usd is not None and cost_usd > constraints.max_cost_usd:
        return (
            Exclusion.COST_LIMIT,
            f"predicted cost {cost_usd:.6g} USD is above {constraints.max_cost_usd:.6g}",
        )
    limit = constraints.max_latency_seconds
    if limit is not None and latency_seconds > limit:
        return (
            Exclusion.LATENCY_LIMIT,
            f"predicted latency {latency_seconds:.3g} s is above {limit:.3g}",
        )
    return None


def _candidates(
    ids: Sequence[str],
    probabilities: Sequence[float],
    forecast: _Forecast,
    reasons: Sequence[Reason | None],
) -> tuple[Candidate, ...]:
    latency = forecast.aligned.latency_seconds
    columns = (ids, probabilities, forecast.quality, forecast.cost_usd, latency, forecast.scores)
    if not any(reasons):
        return tuple(map(Candidate, *columns))
    rows = zip(*columns, reasons, strict=True)
    return tuple([Candidate(*numbers, *(reason or ())) for *numbers, reason in rows])
