"""Runs candidate policies over a log: each answers a decision before it may learn what came of it."""

from __future__ import annotations

import io
import json
import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Protocol

import numpy as np

from policy.array_state import json_array, loaded
from policy.candidates import INCUMBENT, CandidateSpec, Request, Threshold
from policy.choices import Candidate, Choice
from policy.decide import NoCandidateError, reconsider
from policy.domain import Exploration, Router
from policy.exploration import Rules, draw
from policy.join import Joined
from policy.layout import HASHED, STRUCTURE
from policy.learner import RouterLearner
from policy.log import DecisionRecord, ReportRecord
from policy.policies import Fixed, Outlook, Policy, greedy, parse_policy, uniform
from policy.shares import Experience, Known
from policy.standing import Standing
from policy.view import PolicyView

UNCHARGED_MAX = 50_000

_NO_EXPLORATION = Rules.of(Exploration(strength=0.0), rewards_total=0, loss_max=0.0)


@cache
def _no_experience(models: int) -> Experience:
    """As if nothing were known of them but their costs."""
    known = np.zeros((models, len(Known)))
    known[:, Known.COST] = 1.0
    return known


@dataclass(frozen=True, slots=True)
class Sight:
    """All that a candidate sees of a decision: the request, and what the live policy thought. No outcome.

    `outlook` is laid out as `decision.choice.candidates`: `scores` are those logged, -inf for an excluded model.
    """

    decision: DecisionRecord
    outlook: Outlook

    @classmethod
    def of(cls, decision: DecisionRecord) -> Sight:
        """What there is to see of a logged decision."""
        candidates, choice = decision.choice.candidates, decision.choice
        count = len(candidates)
        outlook = Outlook(
            ids=tuple([each.model for each in candidates]),
            scores=[-np.inf if each.exclusion else each.score for each in candidates],
            costs_usd=[0.0 if math.isnan(each.cost_usd) else each.cost_usd for each in candidates],
            experience=_no_experience(count),
            money=choice.price_of_money,
            unit_usd=1.0,
            rules=_NO_EXPLORATION,
        )
        return cls(decision, outlook)

    @property
    def logged(self) -> list[float]:
        """The live policy's own probabilities, (models,)."""
        return [each.probability for each in self.decision.choice.candidates]

    @property
    def eligible(self) -> list[str]:
        """The models that could be chosen."""
        return _eligible(self.outlook)


class Contender(Protocol):
    """A candidate at its place in the log. `answer` is called once for a decision, before all that came of it."""

    def on_registry(self, router: Router) -> None:
        """The router or its models have changed."""
        ...

    def answer(self, sight: Sight) -> Sequence[float]:
        """The probability of each of the decision's candidates, in their order, with a sum of 1."""
        ...

    def on_report(self, report: ReportRecord, decision: DecisionRecord) -> None:
        """A report came on a decision that was answered."""
        ...

    def on_close(self, decision: DecisionRecord, joined: Joined) -> None:
        """The window of a decision that was answered has closed."""
        ...

    def state(self) -> bytes:
        """Everything but the spec and the router, for `restore`."""
        ...

    def restore(self, router: Router, state: bytes) -> None:
        """Takes back what `state` gave, of a contender of the same spec when its router was this."""
        ...


Build = Callable[[CandidateSpec, Router], Contender | Standing]


def contender(spec: CandidateSpec, router: Router) -> Contender | Standing:
    """What runs a candidate."""
    if spec.learns:
        return Learning(spec, router)
    return Plain(spec) if spec.rules else Standing(spec)


def plain_answer(
    spec: CandidateSpec, policy: Policy | None, request: Request, outlook: Outlook, live: Sequence[float]
) -> Sequence[float]:
    """What a candidate that does not learn answers by the live policy's outlook; no policy is the incumbent's.

    `live` are the live policy's own probabilities, (models,), which stand where there is no incumbent.
    """
    model = spec.ruled(request, _eligible(outlook)) if spec.rules else ""
    if policy is None:
        model = model or request.incumbent_model
        if model not in outlook.ids:
            return live
    elif not model:
        return policy(outlook)
    return [float(each == model) for each in outlook.ids]


def learned_answer(
    spec: CandidateSpec, policy: Policy, request: Request, outlook: Outlook, candidates: Sequence[Candidate]
) -> Sequence[float]:
    """What a candidate that learns answers by its own outlook, in which `candidates` are laid out alike."""
    model = spec.ruled(request, _eligible(outlook))
    if not model and spec.threshold is not None:
        model = _by_threshold(spec.threshold, candidates)
    if model:
        return [float(each == model) for each in outlook.ids]
    return (greedy if request.exploit_only or spec.threshold else policy)(outlook)


def _by_threshold(threshold: Threshold, candidates: Sequence[Candidate]) -> str:
    """Empty where neither model may be chosen."""
    quality = {each.model: each.quality for each in candidates if each.exclusion is None}
    if not (threshold.strong in quality or threshold.weak in quality):
        return ""
    if threshold.weak not in quality:
        return threshold.strong
    if threshold.strong not in quality:
        return threshold.weak
    above = quality[threshold.strong] - quality[threshold.weak] >= threshold.gap
    return threshold.strong if above else threshold.weak


def _eligible(outlook: Outlook) -> list[str]:
    return [model for index, model in enumerate(outlook.ids) if outlook.eligible(index)]


class Plain:
    """A candidate that needs no learner: all it goes by is in the logged decision, its rules included.

    In an imported one nothing was predicted: there, what would go by predictions leaves the decision as it was.
    """

    def __init__(self, spec: CandidateSpec) -> None:
        self._spec = spec
        self._policy: Policy | None = None if spec.policy == INCUMBENT else parse_policy(spec.policy)

    def answer(self, sight: Sight) -> Sequence[float]:
        if self._blind(sight):
            return sight.logged
        return plain_answer(self._spec, self._policy, sight.decision, sight.outlook, sight.logged)

    def _blind(self, sight: Sight) -> bool:
        """Whether it would choose by predictions, and there are none."""
        if not sight.decision.choice.imported or self._policy in (None, uniform):
            return False
        if isinstance(self._policy, Fixed) and self._policy.model in sight.eligible:
            return False
        return not self._spec.ruled(sight.decision, sight.eligible)

    def on_registry(self, router: Router) -> None: ...

    def on_report(self, report: ReportRecord, decision: DecisionRecord) -> None: ...

    def on_close(self, decision: DecisionRecord, joined: Joined) -> None: ...

    def state(self) -> bytes:
        return b""

    def restore(self, router: Router, state: bytes) -> None: ...


@dataclass(frozen=True, slots=True)
class Learned:
    """What a learner knows: its saved state, when its router was this."""

    router: Router
    state: bytes


class _Spender(RouterLearner):
    """Learns from what was called, and pays for what the candidate would have called.

    The decisions it is given have the candidate's own choice. A reported cost is that of the model that was
    called: where the candidate would have called the same it has spent that, elsewhere what it had predicted.
    """

    def _charge(self, charged_usd: float, report: ReportRecord, decision: DecisionRecord) -> None:
        own = decision.choice.candidates[0]
        if report.subject == own.model:
            super()._charge(charged_usd, report, decision)
        elif report.settles:
            self._record.charged += 1
            self._record.spent_usd += own.cost_usd
            self._pacing.close(decision, own.cost_usd)


class Learning:
    """A candidate with a learner of its own, which sees the log as the live one does.

    It draws with the number that belongs to the decision, so that with the live policy's probabilities it would
    have drawn the live policy's model. What it would have spent, its books of exploration and its budget follow
    from these draws; what it learns of the models, from the calls that were really made.
    """

    def __init__(self, spec: CandidateSpec, router: Router) -> None:
        self._spec = spec
        self._learner: RouterLearner = _Spender(spec.router(router))
        self._policy = parse_policy(spec.policy)
        # The candidate's own choice in each decision that nothing was charged for yet: its model and cost.
        self._own: OrderedDict[int, tuple[str, float]] = OrderedDict()

    def on_registry(self, router: Router) -> None:
        self._learner.on_registry(self._spec.router(router))

    def answer(self, sight: Sight) -> Sequence[float]:
        logged = sight.decision
        decision = replace(logged, features=self._spec.seen(logged.features))
        router = self._learner.router
        if len(decision.features) != router.spec.embedding_dimensions + STRUCTURE + HASHED + 1:
            return sight.logged  # It was on its way to the log when the router's features were changed.
        eligible = sight.eligible
        excluded = {model.id for model in router.models} - set(eligible)
        try:
            view = self._learner.view(decision.seq)
            outlook, candidates = reconsider(view, router, decision.query, excluded)
        except NoCandidateError:
            return sight.logged  # All that could be chosen then is gone from the registry.
        probabilities = learned_answer(self._spec, self._policy, decision, outlook, candidates)
        index = draw(decision.decision_id, probabilities)
        choice = _choice(logged.choice.policy, index, probabilities, outlook, candidates)
        self._learner.on_decision(replace(decision, choice=choice))
        self._own[decision.seq] = (candidates[index].model, candidates[index].cost_usd)
        if len(self._own) > UNCHARGED_MAX:
            self._own.popitem(last=False)
        by_id = dict(zip(outlook.ids, probabilities, strict=True))
        return [by_id.get(model, 0.0) for model in sight.outlook.ids]

    def on_report(self, report: ReportRecord, decision: DecisionRecord) -> None:
        self._learner.on_report(report, self._as_own(decision))
        if report.charged_usd is not None and not report.second:
            self._own.pop(decision.seq, None)

    def on_close(self, decision: DecisionRecord, joined: Joined) -> None:
        own = self._as_own(decision)
        served = joined.served_model or decision.choice.model
        self._learner.on_close(own, replace(joined, served_model=served))
        self._own.pop(decision.seq, None)

    def _as_own(self, decision: DecisionRecord) -> DecisionRecord:
        """The decision as the candidate would have made it; one that it does not remember costs it nothing."""
        model, cost_usd = self._own.get(decision.seq, ("", 0.0))
        only = Candidate(model, 1.0, 0.0, cost_usd, 0.0, 0.0)
        choice = Choice(model, 1.0, (only,), (), decision.choice.policy, decision.choice.snapshot, 0.0)
        return replace(decision, choice=choice, features=self._spec.seen(decision.features))

    def begin_with(self, learned: Learned) -> None:
        """Begins with what a learner of the same kind knows, and goes on spending under its own objective."""
        wanted = self._learner.router
        self._learner = _Spender.restore(learned.router, learned.state)
        self._learner.on_registry(wanted)

    def view(self, snapshot: int) -> PolicyView:
        """What it would decide with now; `snapshot` is the position of the log."""
        return self._learner.view(snapshot)

    def state(self) -> bytes:
        buffer = io.BytesIO()
        own = json_array([[seq, *choice] for seq, choice in self._own.items()])
        learner = np.frombuffer(self._learner.state(), dtype=np.uint8)
        np.savez(buffer, allow_pickle=False, own=own, learner=learner)
        return buffer.getvalue()

    def restore(self, router: Router, state: bytes) -> None:
        own, learner = (each.tobytes() for each in loaded(state, "own", "learner").values())
        self._learner = _Spender.restore(self._spec.router(router), learner)
        self._own = OrderedDict((seq, (model, cost)) for seq, model, cost in json.loads(own))


def _choice(
    policy: str, index: int, probabilities: Sequence[float], outlook: Outlook, candidates: Sequence[Candidate]
) -> Choice:
    drawn = tuple(
        replace(each, probability=probability) for each, probability in zip(candidates, probabilities, strict=True)
    )
    return Choice(drawn[index].model, probabilities[index], drawn, (), policy, 0, outlook.money)
