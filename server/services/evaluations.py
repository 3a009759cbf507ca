"""Evaluations on the wire, and back: the command line shows a server's league as it shows a file's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pointsman.v1 import policy_service_pb2 as pb

from policy.candidates import CandidateSpec
from policy.confidence import Bounds, Contrast
from policy.estimators import Comparison, MetricEstimates, Support
from policy.evidence import LeftOut, Metric
from policy.league import CandidateResult, Results
from policy.verdict import Outcome, Requirements, Verdict, judge
from server.services.names import router_name
from server.services.pairs import (
    BY_VALUE,
    METRICS,
    estimate_from_proto,
    estimate_to_proto,
    interval_from_proto,
    interval_to_proto,
    paired_from_proto,
    paired_to_proto,
)

if TYPE_CHECKING:  # A command that shows a league loads nothing of what evaluates.
    from server.evaluation_loop import Found

_OUTCOMES = {
    Outcome.PASSED: pb.VERDICT_OUTCOME_PASSED,
    Outcome.FAILED: pb.VERDICT_OUTCOME_FAILED,
    Outcome.UNDECIDED: pb.VERDICT_OUTCOME_UNDECIDED,
    Outcome.REFUSED: pb.VERDICT_OUTCOME_REFUSED,
}
_COUNTS = {
    "decisions": "decision_count",
    "settled": "settled_count",
    "pending": "pending_count",
    "evicted": "evicted_count",
    "abandoned": "abandoned_count",
    "shadow": "shadow_count",
    "incumbents": "incumbent_count",
    "revised": "revised_count",
}
_GUARDRAILS = ("quality_loss_max", "cost_factor_max", "latency_factor_max", "error_increase_max")


def evaluation_to_proto(router_id: str, found: Found) -> pb.Evaluation:
    """What was found of a router's candidates."""
    results = found.results
    return pb.Evaluation(
        router=router_name(router_id),
        position=str(found.position),
        since_position=str(found.since),
        level=found.level,
        bounds=[
            pb.MetricBounds(metric=METRICS[metric], low=each.low, high=each.high)
            for metric, each in found.bounds.items()
        ],
        requirements=requirements_to_proto(found.requirements),
        candidates=[_candidate_to_proto(each) for each in results.table()],
        live_policy_worse_than=found.worse_than,
        guardrail_crossed=found.crossed.sentence if found.crossed else "",
        paired=paired_to_proto(results.paired),
        **{field: getattr(results, name) for name, field in _COUNTS.items()},
    )


def requirements_to_proto(given: Requirements) -> pb.Requirements:
    """What is asked of a candidate."""
    return pb.Requirements(
        utility_margin=given.utility_margin,
        unsupported_max=given.unsupported_max,
        effective_sample_size_min=given.effective_sample_size_min,
        **{name: getattr(given, name) for name in _GUARDRAILS},
    )


def _candidate_to_proto(each: CandidateResult) -> pb.CandidateEvaluation:
    support = each.support
    return pb.CandidateEvaluation(
        candidate=each.id,
        comparator=each.comparator,
        policy=each.spec.policy,
        estimates=[_estimates_to_proto(estimates) for estimates in each.estimates.values()],
        sequences=[
            pb.Sequence(
                metric=METRICS[contrast.metric],
                times_live=contrast.times_live,
                interval=interval_to_proto(interval),
                clipped_count=each.clipped[contrast.metric],
                since_position=str(each.since.get(contrast, "")),
            )
            for contrast, interval in each.sequences.items()
        ],
        support=pb.Support(
            event_count=support.events,
            effective_sample_size=support.effective_sample_size,
            weight_mean=support.weight_mean,
            weight_max=support.weight_max,
            tail_counts=support.tail_events,
            tail_shares=support.tail_share,
            unsupported_share=support.unsupported_share,
            unsupported_mean=support.unsupported_mean,
            left_out={str(reason): count for reason, count in support.left_out.items() if count},
        ),
        verdict=verdict_to_proto(each.verdict),
    )


def verdict_to_proto(verdict: Verdict) -> pb.Verdict:
    """What a candidate came to."""
    return pb.Verdict(
        outcome=_OUTCOMES[verdict.outcome], refusal=str(verdict.refusal or ""), reasons=verdict.reasons
    )


def _estimates_to_proto(each: MetricEstimates) -> pb.MetricEstimates:
    return pb.MetricEstimates(
        metric=METRICS[each.metric],
        event_count=each.events,
        missing_count=each.missing,
        effective_sample_size=each.effective_sample_size,
        ips=_comparison_to_proto(each.ips),
        snips=_comparison_to_proto(each.snips),
        dr=_comparison_to_proto(each.dr),
        adr=_comparison_to_proto(each.adr),
    )


def _comparison_to_proto(each: Comparison) -> pb.Comparison:
    return pb.Comparison(
        candidate=estimate_to_proto(each.candidate),
        live=estimate_to_proto(each.live),
        difference=estimate_to_proto(each.difference),
    )


def results_from_proto(message: pb.Evaluation) -> Results:
    """The inverse of `evaluation_to_proto`; of a candidate only what decides in it is known."""
    requirements = requirements_from_proto(message.requirements)
    counts = {name: getattr(message, field) for name, field in _COUNTS.items()}
    candidates = tuple(_candidate_from_proto(each, requirements) for each in message.candidates)
    return Results(**counts, candidates=candidates, paired=paired_from_proto(message.paired))


def bounds_from_proto(message: pb.Evaluation) -> Mapping[Metric, Bounds]:
    """Between what each metric was declared to lie."""
    return {BY_VALUE[each.metric]: Bounds(each.low, each.high) for each in message.bounds}


def requirements_from_proto(message: pb.Requirements) -> Requirements:
    """What is asked of a candidate. Raises InvalidFieldError."""
    set_fields = {each.name for each, _ in message.ListFields()}
    guardrails = {name: getattr(message, name) if name in set_fields else None for name in _GUARDRAILS}
    return Requirements(
        utility_margin=message.utility_margin,
        unsupported_max=message.unsupported_max,
        effective_sample_size_min=message.effective_sample_size_min,
        **guardrails,
    )


def _candidate_from_proto(message: pb.CandidateEvaluation, requirements: Requirements) -> CandidateResult:
    sequences = {
        Contrast(BY_VALUE[each.metric], each.times_live): interval_from_proto(each.interval)
        for each in message.sequences
    }
    given = message.support
    support = Support(
        events=given.event_count,
        effective_sample_size=given.effective_sample_size,
        weight_mean=given.weight_mean,
        weight_max=given.weight_max,
        tail_events=tuple(given.tail_counts),
        tail_share=tuple(given.tail_shares),
        unsupported_share=given.unsupported_share,
        unsupported_mean=given.unsupported_mean,
        left_out={reason: given.left_out.get(reason.value, 0) for reason in LeftOut},
    )
    estimates = [_estimates_from_proto(each) for each in message.estimates]
    return CandidateResult(
        spec=CandidateSpec(message.candidate, policy=message.policy),
        comparator=message.comparator,
        estimates={each.metric: each for each in estimates},
        sequences=sequences,
        clipped={BY_VALUE[each.metric]: each.clipped_count for each in message.sequences},
        since={
            Contrast(BY_VALUE[each.metric], each.times_live): int(each.since_position)
            for each in message.sequences
            if each.since_position
        },
        support=support,
        verdict=judge(requirements, support, sequences),
    )


def _estimates_from_proto(message: pb.MetricEstimates) -> MetricEstimates:
    return MetricEstimates(
        metric=BY_VALUE[message.metric],
        events=message.event_count,
        missing=message.missing_count,
        effective_sample_size=message.effective_sample_size,
        ips=_comparison_from_proto(message.ips),
        snips=_comparison_from_proto(message.snips),
        dr=_comparison_from_proto(message.dr),
        adr=_comparison_from_proto(message.adr),
    )


def _comparison_from_proto(message: pb.Comparison) -> Comparison:
    each = (message.candidate, message.live, message.difference)
    return Comparison(*(estimate_from_proto(given) for given in each))
