"""A canary: a candidate policy with a share of the traffic, mixed with the live policy into one draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from policy.candidates import INCUMBENT, CandidateSpec, Request
from policy.choices import Query
from policy.contenders import learned_answer, plain_answer
from policy.decide import NoCandidateError, reconsider
from policy.domain import Router
from policy.policies import Outlook, parse_policy
from policy.view import PolicyView


@dataclass(frozen=True, slots=True)
class RouteRequest:
    """What a candidate may see of a request that is being decided, beside its query."""

    categorical: Mapping[str, str] = field(default_factory=dict)
    numeric: Mapping[str, float] = field(default_factory=dict)
    incumbent_model: str = ""
    exploit_only: bool = False


@dataclass(frozen=True, slots=True)
class Canary:
    """A candidate as it serves; `router` is the router as the candidate has it."""

    spec: CandidateSpec
    share: float
    router: Router

    def mixed(
        self, view: PolicyView | None, query: Query, request: Request, outlook: Outlook, live: Sequence[float]
    ) -> list[float]:
        """The probabilities that a decision is drawn by: the live policy's, and the candidate's in its share.

        One draw from the mixture is as good as first drawing who decides, and the probabilities that are logged
        are the true ones of each model. `view` is what the candidate's own learner knows. Where there is none
        yet of one that learns, or no model that it may choose, the live policy decides alone.
        """
        own = self._answer(view, query, request, outlook, live)
        return [(1.0 - self.share) * each + self.share * mine for each, mine in zip(live, own, strict=True)]

    def _answer(
        self, view: PolicyView | None, query: Query, request: Request, outlook: Outlook, live: Sequence[float]
    ) -> Sequence[float]:
        policy = None if self.spec.policy == INCUMBENT else parse_policy(self.spec.policy)
        if policy is None or not self.spec.learns:
            own = plain_answer(self.spec, policy, request, outlook, live)
            barred = any(mine and not outlook.eligible(index) for index, mine in enumerate(own))
            return live if barred else own
        if view is None or view.embedding_dimensions != self.router.spec.embedding_dimensions:
            return live
        excluded = {model for index, model in enumerate(outlook.ids) if not outlook.eligible(index)}
        seen = replace(query, features=self.spec.seen(query.features))
        try:
            mine, candidates = reconsider(view, self.router, seen, excluded)
        except NoCandidateError:
            return live
        return learned_answer(self.spec, policy, request, mine, candidates)
