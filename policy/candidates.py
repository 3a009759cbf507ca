"""What a candidate policy is: a policy by name, rules of the caller's own, or a threshold, and what it changes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Protocol

import numpy as np

from policy.domain import (
    Exploration,
    Features,
    InvalidFieldError,
    LearnerKind,
    Objective,
    Router,
    RouterSpec,
    require_model_id,
    require_number,
)
from policy.layout import HASHED, STRUCTURE
from policy.policy_name import require_policy

RULES_MAX = 64
CANDIDATES_MAX = 64
INCUMBENT = "incumbent"

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._\-/:@ ]{0,254}\Z")
_LEARNS = ("learned", "greedy")
_FORMS = "learned, greedy, uniform, cheapest, dearest, incumbent, fixed:MODEL, threshold:STRONG:WEAK:GAP"


class FeaturePart(StrEnum):
    """A part of the features. The intercept is always there."""

    EMBEDDING = "embedding"
    STRUCTURE = "structure"
    CALLER = "caller"


class Request(Protocol):
    """What a candidate may see of a request beside its features: a logged decision has it, and one to be made."""

    @property
    def categorical(self) -> Mapping[str, str]: ...

    @property
    def numeric(self) -> Mapping[str, float]: ...

    @property
    def incumbent_model(self) -> str: ...

    @property
    def exploit_only(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Rule:
    """One of the caller's own rules: requests with this feature go to this model.

    Either the categorical feature is `equals`, or the numeric one is `at_least` or more. A request without the
    feature is not meant. Raises InvalidFieldError.
    """

    feature: str
    model: str
    equals: str | None = None
    at_least: float | None = None

    def __post_init__(self) -> None:
        if not self.feature or len(self.feature) > 256:
            raise InvalidFieldError("rule.feature", "must be of 1 to 256 characters")
        require_model_id("rule.model", self.model)
        if (self.equals is None) is (self.at_least is None):
            raise InvalidFieldError("rule", "must have one of equals and at_least")
        if self.equals is not None and len(self.equals) > 256:
            raise InvalidFieldError("rule.equals", "must be at most 256 characters")
        if self.at_least is not None:
            require_number("rule.at_least", self.at_least, -np.inf)

    def applies(self, request: Request) -> bool:
        """Whether the request is meant."""
        if self.equals is not None:
            return request.categorical.get(self.feature) == self.equals
        value = request.numeric.get(self.feature)
        return value is not None and self.at_least is not None and value >= self.at_least


@dataclass(frozen=True, slots=True)
class Threshold:
    """The strong model where it is predicted to be better than the weak one by `gap` of quality, or else the weak.

    As RouteLLM does (Ong et al. 2024), with a prediction that is learned from the log. Raises InvalidFieldError.
    """

    strong: str
    weak: str
    gap: float

    def __post_init__(self) -> None:
        require_model_id("threshold.strong", self.strong)
        require_model_id("threshold.weak", self.weak)
        if self.strong == self.weak:
            raise InvalidFieldError("threshold.weak", "must be another model than the strong one")
        require_number("threshold.gap", self.gap, -1.0, 1.0)


@dataclass(frozen=True, slots=True)
class CandidateSpec:
    """A policy to be evaluated, under a name.

    The first of the `rules` that applies decides if its model may be chosen, and where none does, `threshold` if
    it is set, or else `policy`: a name as `RouterSpec.policy` takes it, or `incumbent`, which is the model that
    the caller said its own rule would call. Where `threshold`'s or a fixed model may not be chosen, the best
    score is taken instead; a decision without an incumbent is left as it was drawn.

    The others are None for what the router itself has. `learner`, `exploration`, `objective` and `features`, the
    parts that are seen, matter only to a candidate that learns: `learned`, `greedy`, or with a threshold.
    Raises InvalidFieldError.
    """

    id: str
    policy: str = "learned"
    rules: tuple[Rule, ...] = ()
    threshold: Threshold | None = None
    learner: LearnerKind | None = None
    exploration: Exploration | None = None
    objective: Objective | None = None
    features: tuple[FeaturePart, ...] | None = None

    def __post_init__(self) -> None:
        if not _ID.match(self.id):
            raise InvalidFieldError(
                "id",
                "must be 1 to 255 letters, digits, spaces, '.', '_', '-', '/', ':' or '@', beginning with a "
                f"letter or digit, not {self.id[:80]!r}",
            )
        if self.policy != INCUMBENT:
            _require_policy(self.policy)
        if len(self.rules) > RULES_MAX:
            raise InvalidFieldError("rules", f"must be at most {RULES_MAX}")
        if self.threshold and self.policy != "learned":
            raise InvalidFieldError("policy", "cannot be set beside threshold, which stands in its place")
        if not self.learns:
            for name in ("learner", "exploration", "objective", "features"):
                if getattr(self, name) is not None:
                    raise InvalidFieldError(name, f"changes nothing of {self.policy}, which does not learn")

    @property
    def learns(self) -> bool:
        """Whether it needs a learner of its own."""
        return self.threshold is not None or self.policy in _LEARNS

    def router(self, router: Router) -> Router:
        """The router as this candidate has it: what its own learner is made for."""
        return replace(router, spec=self.spec(router.spec))

    def spec(self, spec: RouterSpec) -> RouterSpec:
        """The router's spec with what this candidate changes of it."""
        return replace(
            spec,
            policy=spec.policy if self.policy == INCUMBENT else self.policy,
            learner=self.learner or spec.learner,
            exploration=self.exploration or spec.exploration,
            objective=self.objective or spec.objective,
        )

    def ruled(self, request: Request, eligible: Sequence[str]) -> str:
        """The model that the rules give this request; empty where they say nothing of it."""
        for rule in self.rules:
            if rule.model in eligible and rule.applies(request):
                return rule.model
        return ""

    def seen(self, features: Features) -> Features:
        """The features with the parts that the candidate does not see set to 0, in the same shape."""
        if self.features is None:
            return features
        bounds = {
            FeaturePart.EMBEDDING: slice(0, len(features) - STRUCTURE - HASHED - 1),
            FeaturePart.STRUCTURE: slice(len(features) - STRUCTURE - HASHED - 1, len(features) - HASHED - 1),
            FeaturePart.CALLER: slice(len(features) - HASHED - 1, len(features) - 1),
        }
        result = features.copy()
        for part, where in bounds.items():
            if part not in self.features:
                result[where] = 0.0
        return result


def _require_policy(name: str) -> None:
    try:
        require_policy(name)
    except InvalidFieldError as error:
        if error.field == "policy" and name.startswith("fixed:"):
            raise
        raise InvalidFieldError("policy", f"must be one of {_FORMS}, not {name[:80]!r}") from error


def parse_candidate(name: str, form: str) -> CandidateSpec:
    """The candidate of a short form. Raises InvalidFieldError.

    A policy's name, `fixed:MODEL`, `threshold:STRONG:WEAK:GAP`, or the name of a kind of learner.
    """
    if form in tuple(LearnerKind):
        return CandidateSpec(name, learner=LearnerKind(form))
    if form.startswith("threshold:"):
        return CandidateSpec(name, threshold=_threshold(form))
    return CandidateSpec(name, policy=form)


def _threshold(form: str) -> Threshold:
    parts = form.split(":")
    wanted = "must be threshold:STRONG:WEAK:GAP, by models without ':' and a number"
    if len(parts) != 4:
        raise InvalidFieldError("threshold", f"{wanted}, not {form[:160]!r}")
    try:
        gap = float(parts[3])
    except ValueError as error:
        raise InvalidFieldError("threshold", f"{wanted}, not {form[:160]!r}") from error
    return Threshold(parts[1], parts[2], gap)


def comparators(router: Router) -> tuple[CandidateSpec, ...]:
    """What every candidate is compared with: each model alone, cheapest, dearest, uniform and the incumbent."""
    names = [*(f"fixed:{model.id}" for model in router.models), "cheapest", "dearest", "uniform", INCUMBENT]
    return tuple(CandidateSpec(name, policy=name) for name in names)
