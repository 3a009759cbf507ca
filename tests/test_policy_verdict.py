"""A verdict says what the intervals leave possible, refuses where the log cannot tell, and says why."""

from __future__ import annotations

import math
from dataclasses import replace

import bandit_logs
import pytest
from bandit_logs import BAD, EVEN, GOOD, part

from policy.confidence import Bounds, ConfidenceSequence, Contrast
from policy.domain import FloatArray, InvalidFieldError
from policy.estimators import Estimators, Support
from policy.evidence import Interval, LeftOut, Metric
from policy.sums import WEIGHT_LEVELS
from policy.verdict import Outcome, Refusal, Requirements, State, judge

UTILITY = Contrast(Metric.UTILITY)
QUALITY = Contrast(Metric.QUALITY)
COST = Contrast(Metric.COST_USD, 1.1)
LATENCY = Contrast(Metric.LATENCY_SECONDS, 1.25)
ERROR = Contrast(Metric.ERROR)
GOOD_INTERVALS = {
    UTILITY: Interval(0.02, 0.05),
    QUALITY: Interval(-0.005, 0.03),
    COST: Interval(-0.004, -0.001),
    LATENCY: Interval(-0.9, 0.0),
    ERROR: Interval(-0.02, 0.009),
}


def support(
    events: int = 5000,
    effective: float = 800.0,
    unsupported: float = 0.0,
    left_out: dict[LeftOut, int] | None = None,
) -> Support:
    nothing = (0,) * len(WEIGHT_LEVELS)
    return Support(
        events=events,
        effective_sample_size=effective,
        weight_mean=1.0,
        weight_max=9.0,
        tail_events=nothing,
        tail_share=nothing,
        unsupported_share=unsupported,
        unsupported_mean=unsupported,
        left_out=left_out or {},
    )


def test_a_candidate_that_clears_the_margin_and_keeps_every_guardrail_passes() -> None:
    verdict = judge(Requirements(utility_margin=0.02), support(), GOOD_INTERVALS)
    assert verdict.outcome is Outcome.PASSED
    assert verdict.refusal is None
    assert [each.state for each in verdict.guardrails] == [State.HELD] * 4
    assert len(verdict.reasons) == 5
    assert verdict.reasons[0] == (
        "utility: the candidate's utility less the live policy's is in [0.02, 0.05]; it must be at least 0.02, "
        "which is held."
    )
    assert "cost_usd less 1.1 times the live policy's" in verdict.reasons[2]


@pytest.mark.parametrize(
    ("contrast", "interval", "name"),
    [
        (UTILITY, Interval(-0.05, -0.01), "utility"),
        (QUALITY, Interval(-0.05, -0.02), "quality"),
        (COST, Interval(0.001, 0.004), "cost"),
        (LATENCY, Interval(0.1, 0.4), "latency"),
        (ERROR, Interval(0.02, 0.05), "errors"),
    ],
)
def test_one_violation_fails_a_candidate_and_is_the_reason(
    contrast: Contrast, interval: Interval, name: str
) -> None:
    verdict = judge(Requirements(), support(), GOOD_INTERVALS | {contrast: interval})
    assert verdict.outcome is Outcome.FAILED
    (reason,) = verdict.reasons
    assert reason.startswith(f"{name}: ")
    assert reason.endswith("which is violated.")


@pytest.mark.parametrize("contrast", list(GOOD_INTERVALS))
def test_what_an_interval_does_not_settle_is_undecided(contrast: Contrast) -> None:
    verdict = judge(Requirements(), support(), GOOD_INTERVALS | {contrast: Interval(-1.0, 1.0)})
    assert verdict.outcome is Outcome.UNDECIDED
    assert len(verdict.reasons) == 1


def test_a_violation_comes_before_what_is_undecided() -> None:
    intervals = GOOD_INTERVALS | {UTILITY: Interval(-1.0, 1.0), ERROR: Interval(0.02, 0.05)}
    assert judge(Requirements(), support(), intervals).outcome is Outcome.FAILED


def test_what_was_not_measured_is_undecided() -> None:
    intervals = {contrast: each for contrast, each in GOOD_INTERVALS.items() if contrast != LATENCY}
    verdict = judge(Requirements(), support(), intervals)
    assert verdict.outcome is Outcome.UNDECIDED
    assert verdict.reasons == ("latency: not measured.",)


def test_an_interval_that_has_crossed_itself_decides_nothing() -> None:
    verdict = judge(Requirements(), support(), GOOD_INTERVALS | {UTILITY: Interval(0.03, 0.02)})
    assert verdict.outcome is Outcome.UNDECIDED


def test_a_guardrail_that_is_not_asked_for_is_not_judged() -> None:
    requirements = Requirements(
        quality_loss_max=None, cost_factor_max=None, latency_factor_max=None, error_increase_max=None
    )
    assert requirements.contrasts == (UTILITY,)
    verdict = judge(requirements, support(), {UTILITY: Interval(0.01, 0.02)})
    assert verdict.outcome is Outcome.PASSED
    assert verdict.guardrails == ()


@pytest.mark.parametrize(
    ("made", "refusal", "word"),
    [
        (support(events=0, effective=0.0), Refusal.NO_EVENTS, "No settled decision"),
        (
            support(events=0, effective=0.0, left_out={LeftOut.NO_PROPENSITY: 12}),
            Refusal.NO_PROPENSITIES,
            "12 have no propensity",
        ),
        (support(unsupported=0.2), Refusal.UNSUPPORTED, "mean probability of 0.2"),
        (support(effective=12.0), Refusal.FEW_EFFECTIVE, "worth 12.0"),
    ],
)
def test_where_the_log_cannot_tell_it_is_refused_whatever_the_intervals_say(
    made: Support, refusal: Refusal, word: str
) -> None:
    verdict = judge(Requirements(), made, GOOD_INTERVALS)
    assert verdict.outcome is Outcome.REFUSED
    assert verdict.refusal is refusal
    assert word in verdict.reasons[0]
    # What is known is shown all the same.
    assert verdict.utility.state is State.HELD


@pytest.mark.parametrize(
    "fields",
    [
        {"utility_margin": -0.1},
        {"quality_loss_max": math.nan},
        {"cost_factor_max": -1.0},
        {"unsupported_max": 1.5},
        {"effective_sample_size_min": math.inf},
    ],
)
def test_requirements_that_cannot_be_are_refused(fields: dict[str, float]) -> None:
    with pytest.raises(InvalidFieldError, match=next(iter(fields))):
        Requirements(**fields)


@pytest.mark.parametrize(("candidate", "outcome"), [(GOOD, Outcome.PASSED), (BAD, Outcome.FAILED)])
def test_from_log_to_verdict(candidate: FloatArray, outcome: Outcome) -> None:
    """With rewards alone, judged after each 50 events until decided."""
    requirements = Requirements(cost_factor_max=None, latency_factor_max=None, error_increase_max=None)
    events = bandit_logs.log(1, 4000, EVEN, candidate).events
    quality = Estimators((Metric.QUALITY,))
    sequences = {contrast: ConfidenceSequence(contrast, Bounds(0.0, 1.0)) for contrast in requirements.contrasts}
    for low in range(0, 4000, 50):
        batch = part(events, low, low + 50)
        quality.add(batch)
        for contrast, sequence in sequences.items():
            sequence.add(replace(batch, metrics=(contrast.metric,)))
        intervals = {contrast: sequence.now() for contrast, sequence in sequences.items()}
        verdict = judge(requirements, quality.support(), intervals)
        if verdict.outcome in (Outcome.PASSED, Outcome.FAILED):
            break
    assert verdict.outcome is outcome
    assert low > 0


def test_an_equal_candidate_seldom_passes_however_often_it_is_looked_at() -> None:
    """300 logs of 1,000, judged after each 250: at most 0.025 may pass, and if so, more than 15 do with 0.004."""
    requirements = Requirements(
        quality_loss_max=None, cost_factor_max=None, latency_factor_max=None, error_increase_max=None
    )
    passed = 0
    for seed in range(300):
        events = replace(bandit_logs.log(seed, 1000, EVEN, bandit_logs.EQUAL).events, metrics=(Metric.UTILITY,))
        sequence = ConfidenceSequence(UTILITY, Bounds(0.0, 1.0))
        for low in range(0, 1000, 250):
            sequence.add(part(events, low, low + 250))
            if judge(requirements, support(), {UTILITY: sequence.now()}).outcome is Outcome.PASSED:
                passed += 1
                break
    print(f"{passed} of 300 passed")
    assert passed <= 15
