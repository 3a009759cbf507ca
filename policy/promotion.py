"""The way of a candidate policy to the traffic: its states, and when it may take the next step."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from policy.candidates import INCUMBENT, CandidateSpec
from policy.confidence import Contrast
from policy.domain import WINDOW_SECONDS_MAX, InvalidFieldError, RouterSpec, require_number
from policy.evidence import Interval, Metric
from policy.league import CandidateResult, Results
from policy.log import RegistryRecord
from policy.verdict import Outcome, Requirements, judge

POLICIES_PER_ROUTER_MAX = 1000
FORMER = "previous-"


class PolicyState(StrEnum):
    """What a candidate does: nothing but being evaluated, with a part of the traffic, all of it, or nothing."""

    SHADOW = "shadow"
    CANARY = "canary"
    LIVE = "live"
    RETIRED = "retired"

    @property
    def evaluated(self) -> bool:
        """Whether it is a candidate beside the live policy."""
        return self in (PolicyState.SHADOW, PolicyState.CANARY)


@dataclass(frozen=True, slots=True)
class Promotion:
    """By what a router's candidates are judged, and whether they are promoted automatically.

    With an `automatic_canary_share` above 0 they are, and a canary serves for `canary_seconds` at least before
    it may become live. The factors of `requirements` are above 1, or None: the live policy is held to them as
    well, and is no cheaper than itself. Raises InvalidFieldError.
    """

    requirements: Requirements = Requirements()
    automatic_canary_share: float = 0.0
    canary_seconds: float = 3600.0

    def __post_init__(self) -> None:
        require_number("automatic_canary_share", self.automatic_canary_share, 0.0, 0.99)
        require_number("canary_time", self.canary_seconds, 0.0, WINDOW_SECONDS_MAX)
        for name in ("cost_factor_max", "latency_factor_max"):
            value = getattr(self.requirements, name)
            if value is not None:
                require_number(f"requirements.{name}", value, 1.0, 1000.0, above=True)


@dataclass(frozen=True, slots=True)
class Restored:
    """A snapshot that the learner has gone back to: its id, and the SHA-256 of its state in hexadecimal.

    `position` is that of the router's log up to which it was learned, None of one that was imported.
    """

    snapshot: str
    digest: str
    position: int | None = None


@dataclass(frozen=True, slots=True)
class PolicyRecord(RegistryRecord):
    """A record of the log: the router, the candidates that are evaluated from this position on, and what is asked
    of them (None: what was before). With `restored` the learner knows from here on what it knew then.
    """

    candidates: tuple[CandidateSpec, ...] = ()
    requirements: Requirements | None = None
    restored: Restored | None = None


def require_canary_share(value: float) -> None:
    """Raises InvalidFieldError unless `value` can be a canary's share of the traffic."""
    require_number("canary_share", value, 0.0, 1.0, above=True)


def require_candidate_id(field: str, value: str) -> None:
    """Raises InvalidFieldError for a name that the evaluation gives to one of its standing comparators."""
    if is_former(value):
        raise InvalidFieldError(field, f"must not begin with {FORMER!r}, as former live policies are named")
    taken = value in ("cheapest", "dearest", "uniform", INCUMBENT) or value.startswith("fixed:")
    if taken:
        raise InvalidFieldError(field, f"is the name of a standing comparator: {value!r}")


def live_spec(candidate: CandidateSpec, spec: RouterSpec) -> RouterSpec | None:
    """The router's spec with the candidate as its policy; None if a router cannot have it as its own.

    Rules, a threshold, the incumbent and features that are not seen are what a candidate can have and a router
    cannot: such a one may serve as a canary.
    """
    own = candidate.rules or candidate.threshold or candidate.features is not None
    return None if own or candidate.policy == INCUMBENT else candidate.spec(spec)


def former(seq: int, spec: RouterSpec) -> CandidateSpec:
    """The live policy of a router as a candidate, to go back to, when another takes its place at this position."""
    name = f"{FORMER}{seq}"
    plain = CandidateSpec(name, policy=spec.policy)
    if not plain.learns:
        return plain
    return CandidateSpec(
        name,
        policy=spec.policy,
        learner=spec.learner,
        exploration=spec.exploration,
        objective=spec.objective,
    )


def is_former(name: str) -> bool:
    """Whether this is the name of a former live policy, which no candidate of another kind may have."""
    return name.startswith(FORMER)


def other_policy(before: RouterSpec, after: RouterSpec) -> bool:
    """Whether the live policy has become another, to which no difference is known yet."""
    return _policy(before) != _policy(after)


def _policy(spec: RouterSpec) -> Sequence[object]:
    return (spec.policy, spec.learner, spec.exploration, spec.objective)


def better_fixed(results: Results) -> str:
    """The model alone that is better in utility than the live policy with confidence; the best of several.

    Empty if there is none. By the confidence sequences, so that it may be asked at any time: each of n models
    is named wrongly with a probability of 0.025 at most, at a level of 0.95.
    """
    gains = {
        each.id: each.sequences[Contrast(Metric.UTILITY)].low
        for each in results.candidates
        if each.comparator and each.spec.policy.startswith("fixed:")
    }
    best = max(gains, key=gains.__getitem__, default="")
    return best if best and gains[best] > 0.0 else ""


def gain_over_fixed(results: Results) -> tuple[float, Interval] | None:
    """The live policy's mean utility less that of the model alone that looks best, with the ends of its sequence.

    None before there is anything to compare. The estimate is the doubly robust one.
    """
    estimates = {
        each.id: (each.estimates[Metric.UTILITY].dr.difference.value, each.sequences[Contrast(Metric.UTILITY)])
        for each in results.candidates
        if each.comparator and each.spec.policy.startswith("fixed:")
    }
    known = {name: each for name, each in estimates.items() if not math.isnan(each[0])}
    if not known:
        return None
    value, interval = max(known.values(), key=lambda each: each[0])
    return -value, Interval(-interval.high, -interval.low)


def reason_to_go_back(former_policy: CandidateResult, requirements: Requirements) -> str:
    """Why the former live policy is to be taken back: a sentence, empty if nothing speaks for it with confidence.

    It is the better in utility, or the live one is worse than it in quality or in errors by more than was to be
    put up with. By the confidence sequences of the former one's differences to the live one.
    """
    sequences = former_policy.sequences
    gain = sequences[Contrast(Metric.UTILITY)]
    quality = sequences[Contrast(Metric.QUALITY)]
    errors = sequences.get(Contrast(Metric.ERROR), Interval())
    quality_loss, error_increase = requirements.quality_loss_max, requirements.error_increase_max
    # A sequence whose ends have crossed has seen the difference change: it says nothing.
    if 0.0 < gain.low <= gain.high:
        return f"its utility is higher by at least {gain.low:.6g}"
    if quality_loss is not None and quality_loss < quality.low <= quality.high:
        return f"its quality is higher by at least {quality.low:.6g}, and {quality_loss:.6g} may be lost"
    if error_increase is not None and errors.low <= errors.high < -error_increase:
        return f"its calls fail less by at least {-errors.high:.6g}, and {error_increase:.6g} may be gained"
    return ""


def judged(results: Results, requirements: Requirements) -> Results:
    """The results with verdicts by these requirements."""
    candidates = tuple(
        replace(each, verdict=judge(requirements, each.support, each.sequences)) for each in results.candidates
    )
    return replace(results, candidates=candidates)


def next_canary(results: Results, shadows: Collection[str]) -> CandidateResult | None:
    """Of these candidates the one that passes with the largest sure gain in utility; None if none passes."""
    passed = [each for each in results.candidates if each.id in shadows and each.verdict.outcome is Outcome.PASSED]
    return max(passed, key=lambda each: each.sequences[Contrast(Metric.UTILITY)].low, default=None)
