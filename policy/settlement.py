"""Decisions from their answers to what came of them, and the events that settled ones make."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from policy.choices import Candidate
from policy.confidence import Bounds
from policy.domain import WORTH_USD_MIN, FloatArray, Router, RouterSpec, require_number
from policy.evidence import Events, LeftOut, Metric, settled
from policy.log import DecisionRecord, ReportRecord
from policy.standing import Block, Standing

METRICS = (Metric.QUALITY, Metric.COST_USD, Metric.LATENCY_SECONDS, Metric.ERROR, Metric.UTILITY)

_LONG_INPUT_TOKENS, _LONG_OUTPUT_TOKENS = 8192, 4096
_BUDGETS_MAX = 50.0
_COST = 2
_ANSWERS = 4  # Their places, among the facts of a model and the fields of a Pending.
_ROUNDING = 1e-6


@dataclass(frozen=True, slots=True)
class Limits:
    """The largest values that the confidence sequences take for possible; what is beyond counts as the limit.

    They are declared before the first event: a bound that followed the data would have seen what it bounds.
    `cost_max_usd` None is taken from the router: what a call of 8,192 tokens in and 4,096 out costs on its
    dearest model; if it has no prices, or they come to next to nothing, 50 budgets of a request, or what quality
    from 0 to 1 is worth. What a call may take from utility follows from these and from what quality is worth. With
    a budget alone it is `utility_loss_max`, and the price of money is kept to what a call of the largest cost
    takes that at. Raises InvalidFieldError.
    """

    cost_max_usd: float | None = None
    latency_max_seconds: float = 120.0
    utility_loss_max: float = 1.0

    def __post_init__(self) -> None:
        for name in ("cost_max_usd", "latency_max_seconds", "utility_loss_max"):
            value = getattr(self, name)
            if value is not None:
                require_number(f"limits.{name}", value, 0.0, above=True)

    def bounds(self, router: Router) -> dict[Metric, Bounds]:
        """Between what each metric lies, for this router."""
        objective = router.spec.objective
        cost_max_usd = self.cost_max_usd or _cost_max_usd(router)
        loss_usd = cost_max_usd + objective.latency_usd_per_second * self.latency_max_seconds
        loss = self.utility_loss_max if math.isinf(objective.value_usd) else loss_usd / objective.value_usd
        return {
            Metric.QUALITY: Bounds(0.0, 1.0),
            Metric.COST_USD: Bounds(0.0, cost_max_usd),
            Metric.LATENCY_SECONDS: Bounds(0.0, self.latency_max_seconds),
            Metric.ERROR: Bounds(0.0, 1.0),
            Metric.UTILITY: Bounds(-loss, 1.0),
        }


def _cost_max_usd(router: Router) -> float:
    prices = [model.spec.prices for model in router.models if model.spec.prices.known]
    dearest_usd = max((each.cost_usd(_LONG_INPUT_TOKENS, _LONG_OUTPUT_TOKENS) for each in prices), default=0.0)
    if dearest_usd >= WORTH_USD_MIN:  # Below it may even come to 0, and nothing lies between 0 and 0.
        return dearest_usd
    objective = router.spec.objective
    if objective.budget_usd_per_request is not None:
        return _BUDGETS_MAX * objective.budget_usd_per_request
    return objective.value_usd if math.isfinite(objective.value_usd) else 1.0


def money_price(spec: RouterSpec, decision: DecisionRecord, bounds: Mapping[Metric, Bounds]) -> float:
    """What a USD takes from utility, for the live policy and for every candidate alike.

    It is the inverse of what the router says that quality is worth. A router that has only a budget says no
    such thing; then it is the price of money that was logged with the decision, at which the live policy was
    meant to spend its budget. That is known before the draw, so that nothing of the outcome is in it, and as it
    is the same on both sides, a candidate gains by it what it saves, at what the saving was worth there and then.
    It is no higher than that a call within `bounds` has a utility within them: a pacer may ask any price while
    it repays a debt, and outcomes that were cut off instead would flatter whoever calls dear models.
    """
    value = spec.objective.value_usd
    if math.isfinite(value):
        return 1.0 / value
    most = -bounds[Metric.UTILITY].low / bounds[Metric.COST_USD].high
    return min(most, decision.choice.price_of_money)


def with_alternatives(decision: DecisionRecord, router: Router) -> DecisionRecord:
    """An imported decision that is told without its candidates may have been any of the router's models.

    With the drawn one as its only candidate every contender would have chosen that as well, with all of its
    probability.
    """
    choice = decision.choice
    if not choice.imported or len(choice.candidates) > 1 or choice.probability >= 1.0:
        return decision
    others = [model.id for model in router.models if model.id != choice.model]
    candidates = (*choice.candidates, *(Candidate(model, 0.0, 0.0, 0.0, 0.0, 0.0) for model in others))
    return replace(decision, choice=replace(choice, candidates=candidates))


def left_out(decision: DecisionRecord) -> LeftOut | None:
    """Why the decision says nothing of another policy; None if it may."""
    if decision.exploit_only:
        return LeftOut.EXPLOIT_ONLY
    if decision.choice.sticky:
        return LeftOut.STICKY
    return None if 0.0 < decision.choice.probability <= 1.0 else LeftOut.NO_PROPENSITY


@dataclass(slots=True)
class Pending:
    """A decision that was answered, with what has come of it so far; nan is what is not known.

    `lineup` are the numbers of those who have answered it; `answers` are the probabilities of each model that
    those gave who had to be asked at once, by their number. The others' follow from the decision alone.
    `facts` is (models, 5): the live policy's propensity, its quality, cost and latency as predicted, and its
    score, -inf for an excluded model. `incumbent` is the place of the caller's own choice, -1 for none. `money`
    and `latency_price` are what a USD and a second take from utility. `error` is 1 for a failed call of the
    model that was drawn, `fallback` that another has served instead. `second_share` is the probability with which
    a second call was to be made, 0 where none could be.
    """

    seq: int
    lineup: tuple[int, ...]
    models: tuple[str, ...]
    chosen: int
    answers: Mapping[int, tuple[float, ...]]
    facts: tuple[tuple[float, ...], ...]
    incumbent: int
    imported: bool
    money: float
    latency_price: float
    reward: float = math.nan
    cost_usd: float = math.nan
    latency_seconds: float = math.nan
    error: float = 0.0
    fallback: bool = False
    second_share: float = 0.0

    @classmethod
    def of(
        cls,
        decision: DecisionRecord,
        spec: RouterSpec,
        bounds: Mapping[Metric, Bounds],
        lineup: tuple[int, ...],
        answers: Mapping[int, tuple[float, ...]],
    ) -> Pending:
        """The decision as the contenders have answered it."""
        choice, second = decision.choice, decision.choice.second
        models = tuple([each.model for each in choice.candidates])
        facts = [
            (
                each.probability,
                each.quality,
                each.cost_usd,
                each.latency_seconds,
                each.score if each.exclusion is None else -math.inf,
            )
            for each in choice.candidates
        ]
        money = money_price(spec, decision, bounds)
        return cls(
            seq=decision.seq,
            lineup=lineup,
            models=models,
            chosen=models.index(choice.model),
            answers=answers,
            facts=tuple(facts),
            incumbent=models.index(decision.incumbent_model) if decision.incumbent_model in models else -1,
            imported=choice.imported,
            money=money,
            latency_price=spec.objective.latency_usd_per_second * money,
            second_share=0.0 if second is None or second.capped else second.share,
        )

    def note(self, report: ReportRecord) -> None:
        """Takes what a report says of the model that was drawn."""
        if report.subject != self.models[self.chosen]:
            # Another's failed call says nothing; its answer says that it stood in for the drawn one.
            self.fallback = self.fallback or report.error is None
            return
        if report.learned_reward is not None:
            self.reward = report.learned_reward
        if report.charged_usd is not None:
            self.cost_usd = report.charged_usd + (0.0 if math.isnan(self.cost_usd) else self.cost_usd)
        if report.latency_seconds is not None:
            self.latency_seconds = report.latency_seconds
        if report.error is not None:
            self.error = 1.0

    def close(self, missing_reward: float | None) -> None:
        """What never came is settled: a call without usage is taken to have cost what was predicted, as it is
        charged, unless it failed. What is nan was not predicted, and stays unknown.
        """
        if math.isnan(self.reward) and missing_reward is not None:
            self.reward = missing_reward
        if math.isnan(self.cost_usd) and not self.error:
            self.cost_usd = self.facts[self.chosen][_COST]

    @property
    def complete(self) -> bool:
        """Whether quality and cost are known, of the model that was drawn."""
        return not (math.isnan(self.reward) or math.isnan(self.cost_usd) or self.fallback)

    def observed(self) -> tuple[float, ...]:
        """The values of METRICS; where another stood in, only whether the drawn one failed."""
        if self.fallback:
            return (math.nan, math.nan, math.nan, self.error, math.nan)
        utility = self.reward - self.money * self.cost_usd
        if self.latency_price:
            utility -= self.latency_price * self.latency_seconds
        return (self.reward, self.cost_usd, self.latency_seconds, self.error, utility)

    def dump(self) -> list[Any]:
        """Everything as JSON takes it; `load` gives it back to the last bit."""
        values = [getattr(self, name) for name in self.__slots__]
        values[_ANSWERS] = list(self.answers.items())
        return values

    @classmethod
    def load(cls, values: Sequence[Any]) -> Pending:
        """The inverse of `dump`."""
        pending = cls(*values)
        pending.lineup, pending.models = tuple(pending.lineup), tuple(pending.models)
        pending.answers = {number: tuple(answer) for number, answer in values[_ANSWERS]}
        pending.facts = tuple([tuple(each) for each in pending.facts])
        return pending


def answers(
    group: Sequence[Pending], standing: Mapping[int, Standing]
) -> tuple[list[int], FloatArray, FloatArray]:
    """What a lineup has answered decisions on the same models: its numbers, the probabilities (lineup, decisions,
    models), and the facts (decisions, models, 5).

    `standing` are those who need not be asked at once. One that is neither there nor among the kept answers is
    gone.
    """
    facts = np.array([row.facts for row in group])
    block = Block(
        models=group[0].models,
        propensities=facts[:, :, 0],
        costs_usd=np.nan_to_num(facts[:, :, _COST]),
        scores=facts[:, :, -1],
        incumbents=np.array([row.incumbent for row in group]),
        imported=np.array([row.imported for row in group]),
    )
    given = {
        number: np.array([row.answers[number] for row in group])
        if number in group[0].answers
        else standing[number].answers(block)
        for number in group[0].lineup
        if number in group[0].answers or number in standing
    }
    return list(given), np.array(list(given.values())).reshape(len(given), *facts.shape[:2]), facts


def events(
    rows: Sequence[Pending], standing: Mapping[int, Standing], bounds: Mapping[Metric, Bounds]
) -> Iterator[tuple[int, Events]]:
    """The events of settled decisions for each contender, by its number; those on the same models together."""
    groups: dict[tuple[tuple[int, ...], tuple[str, ...]], list[Pending]] = {}
    for row in rows:
        groups.setdefault((row.lineup, row.models), []).append(row)
    for group in groups.values():
        numbers, probabilities, logged = answers(group, standing)
        known = _sums_to_one(logged[:, :, 0])
        # Where they are not known, in the place of the propensities of models that were not drawn.
        propensities = np.where(known[:, None], logged[:, :, 0], 1.0 / logged.shape[1])
        # What is not known of other models' propensities cannot be a control variate's baseline.
        predictions = np.where(known[:, None, None], clipped_predictions(group, logged, bounds), 0.0)
        chosen = np.array([row.chosen for row in group])
        drawn = logged[np.arange(len(group)), chosen, 0]
        observed = np.array([row.observed() for row in group])
        # A contender that leaves a decision as it was drawn has what is not known of it as well.
        own = ~(known | _sums_to_one(probabilities))
        filled = np.where(own[:, :, None], propensities, probabilities)
        found = settled(METRICS, propensities, filled, chosen, observed, predictions)
        for number, each, left in zip(numbers, found, own, strict=True):
            yield number, each if known.all() else _partly_known(each, known, left, drawn)


def _sums_to_one(shares: FloatArray) -> npt.NDArray[np.bool_]:
    """Which rows are whole distributions, the models being the last axis."""
    whole: npt.NDArray[np.bool_] = abs(shares.sum(axis=-1) - 1.0) <= _ROUNDING
    return whole


def clipped_predictions(
    group: Sequence[Pending], logged: FloatArray, bounds: Mapping[Metric, Bounds]
) -> FloatArray:
    """(events, models, metrics), within the bounds; of errors, and of what is nan, nothing is predicted."""
    quality, cost_usd, latency_seconds = np.moveaxis(np.nan_to_num(logged[:, :, 1:4]), 2, 0)
    money = np.array([[row.money] for row in group])
    latency_price = np.array([[row.latency_price] for row in group])
    quality = quality.clip(0.0, 1.0)
    utility = quality - money * cost_usd - latency_price * latency_seconds
    columns = (quality, cost_usd, latency_seconds, np.zeros_like(quality), utility)
    limits = [bounds[metric] for metric in METRICS]
    clipped = [column.clip(each.low, each.high) for column, each in zip(columns, limits, strict=True)]
    return np.stack(clipped, axis=2)


def _partly_known(
    found: Events, known: npt.NDArray[np.bool_], own: npt.NDArray[np.bool_], drawn: FloatArray
) -> Events:
    """With what is known of the drawn model alone, in the events where nothing is of the others."""
    return Events(
        metrics=found.metrics,
        propensity=np.where(known, found.propensity, drawn),
        probability=np.where(own, drawn, found.probability),
        unsupported=np.where(known, found.unsupported, 0.0),
        weight_max=np.where(known, found.weight_max, np.inf),
        observed=found.observed,
        predicted=found.predicted,
        baseline=found.baseline,
        live_baseline=found.live_baseline,
    )
