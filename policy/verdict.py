"""Judges a candidate against the live policy: is it better, does it break a guardrail, and can that be known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from policy.confidence import Contrast
from policy.domain import require_number
from policy.estimators import Support
from policy.evidence import Interval, LeftOut, Metric


class Outcome(StrEnum):
    PASSED = "passed"
    FAILED = "failed"
    UNDECIDED = "undecided"
    REFUSED = "refused"


class State(StrEnum):
    """Whether a condition holds, by the whole of an interval."""

    HELD = "held"
    VIOLATED = "violated"
    UNDECIDED = "undecided"


class Refusal(StrEnum):
    """Why the events cannot tell of this candidate."""

    NO_EVENTS = "no_events"
    NO_PROPENSITIES = "no_propensities"
    UNSUPPORTED = "unsupported"
    FEW_EFFECTIVE = "few_effective"


@dataclass(frozen=True, slots=True)
class Condition:
    """What a contrast must be, in its metric's unit: at least, or else at most, the limit."""

    name: str
    contrast: Contrast
    limit: float
    at_least: bool = False

    def state(self, interval: Interval) -> State:
        """Held or violated only if the interval leaves nothing else."""
        if interval.low > interval.high:
            return State.UNDECIDED  # The contrast has changed under the sequence.
        if interval.low >= self.limit if self.at_least else interval.high <= self.limit:
            return State.HELD
        if interval.high < self.limit if self.at_least else interval.low > self.limit:
            return State.VIOLATED
        return State.UNDECIDED


@dataclass(frozen=True, slots=True)
class Requirements:
    """What is asked of a candidate. A guardrail that is None is not asked for.

    `utility_margin` is by how much its mean utility must be above the live policy's, `quality_loss_max` by how
    much its quality may be below, `error_increase_max` by how much its share of failed calls above.
    `cost_factor_max` and `latency_factor_max` are what its cost and latency may be in multiples of the live
    policy's. `unsupported_max` is the mean probability it may have on models that could not have been drawn.
    Raises InvalidFieldError.
    """

    utility_margin: float = 0.0
    quality_loss_max: float | None = 0.01
    cost_factor_max: float | None = 1.1
    latency_factor_max: float | None = 1.25
    error_increase_max: float | None = 0.01
    unsupported_max: float = 0.05
    effective_sample_size_min: float = 50.0

    def __post_init__(self) -> None:
        require_number("requirements.unsupported_max", self.unsupported_max, 0.0, 1.0)
        for name in ("utility_margin", "effective_sample_size_min"):
            require_number(f"requirements.{name}", getattr(self, name), 0.0)
        for name in ("quality_loss_max", "cost_factor_max", "latency_factor_max", "error_increase_max"):
            value = getattr(self, name)
            if value is not None:
                require_number(f"requirements.{name}", value, 0.0, 1000.0)

    @property
    def utility(self) -> Condition:
        return Condition("utility", Contrast(Metric.UTILITY), self.utility_margin, at_least=True)

    @property
    def guardrails(self) -> tuple[Condition, ...]:
        """A factor is a condition on the candidate's mean less so many times the live policy's."""
        found: list[Condition] = []
        if self.quality_loss_max is not None:
            found.append(Condition("quality", Contrast(Metric.QUALITY), -self.quality_loss_max, at_least=True))
        if self.cost_factor_max is not None:
            found.append(Condition("cost", Contrast(Metric.COST_USD, self.cost_factor_max), 0.0))
        if self.latency_factor_max is not None:
            found.append(Condition("latency", Contrast(Metric.LATENCY_SECONDS, self.latency_factor_max), 0.0))
        if self.error_increase_max is not None:
            found.append(Condition("errors", Contrast(Metric.ERROR), self.error_increase_max))
        return tuple(found)

    @property
    def contrasts(self) -> tuple[Contrast, ...]:
        """What has to be followed by a confidence sequence each, to judge by these."""
        return tuple(each.contrast for each in (self.utility, *self.guardrails))


@dataclass(frozen=True, slots=True)
class Finding:
    """What is known of one condition, and a sentence that says it."""

    condition: Condition
    interval: Interval
    state: State
    sentence: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a candidate came to. `reasons` are sentences, the decisive ones first."""

    outcome: Outcome
    reasons: tuple[str, ...]
    utility: Finding
    guardrails: tuple[Finding, ...]
    refusal: Refusal | None = None


def judge(requirements: Requirements, support: Support, intervals: Mapping[Contrast, Interval]) -> Verdict:
    """Judges by the intervals of `requirements.contrasts`; one that is not there is undecided.

    A candidate passes if its utility clears the margin and every guardrail is held, and fails if one of these
    is violated. With intervals of confidence sequences it may be judged as often as one likes. At level 0.95
    a candidate with any condition not met passes with probability 0.025 at most, however many conditions there
    are, since each has to be held; one with all of them met fails with 0.025 at most for each condition.
    """
    utility = _finding(requirements.utility, intervals)
    guardrails = tuple(_finding(each, intervals) for each in requirements.guardrails)
    findings = (utility, *guardrails)
    refused = _refusal(requirements, support)
    if refused:
        refusal, sentence = refused
        return Verdict(Outcome.REFUSED, (sentence,), utility, guardrails, refusal)
    for outcome, state in ((Outcome.FAILED, State.VIOLATED), (Outcome.UNDECIDED, State.UNDECIDED)):
        reasons = tuple(each.sentence for each in findings if each.state is state)
        if reasons:
            return Verdict(outcome, reasons, utility, guardrails)
    return Verdict(Outcome.PASSED, tuple(each.sentence for each in findings), utility, guardrails)


def _refusal(requirements: Requirements, support: Support) -> tuple[Refusal, str] | None:
    if not support.events:
        without = support.left_out.get(LeftOut.NO_PROPENSITY, 0)
        if without:
            return (
                Refusal.NO_PROPENSITIES,
                f"No decision can be used: {without} have no propensity to weigh them by.",
            )
        return Refusal.NO_EVENTS, "No settled decision can be used yet."
    if support.unsupported_mean > requirements.unsupported_max:
        return (
            Refusal.UNSUPPORTED,
            f"The candidate would choose models that the live policy never draws with a mean probability of "
            f"{support.unsupported_mean:.3g}, above {requirements.unsupported_max:.3g}: "
            "the log cannot say what they would have done.",
        )
    if support.effective_sample_size < requirements.effective_sample_size_min:
        return (
            Refusal.FEW_EFFECTIVE,
            f"{support.events} decisions are worth {support.effective_sample_size:.1f} of the candidate's own, "
            f"below {requirements.effective_sample_size_min:g}: more are needed, or a candidate nearer to the "
            "live policy.",
        )
    return None


def _finding(condition: Condition, intervals: Mapping[Contrast, Interval]) -> Finding:
    interval = intervals.get(condition.contrast)
    if interval is None:
        sentence = f"{condition.name}: not measured."
        return Finding(condition, Interval(), State.UNDECIDED, sentence)
    state = condition.state(interval)
    return Finding(condition, interval, state, _sentence(condition, interval, state))


def _sentence(condition: Condition, interval: Interval, state: State) -> str:
    times = condition.contrast.times_live
    live = "the live policy's" if times == 1.0 else f"{times:g} times the live policy's"
    wanted = f"at {'least' if condition.at_least else 'most'} {condition.limit:.6g}"
    return (
        f"{condition.name}: the candidate's {condition.contrast.metric} less {live} is in "
        f"[{interval.low:.6g}, {interval.high:.6g}]; it must be {wanted}, which is {state}."
    )
