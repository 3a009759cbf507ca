"""Paired comparisons on the wire, and back."""

from __future__ import annotations

import math

from pointsman.v1 import policy_service_pb2 as pb

from policy.crosscheck import FALSE_ALARMS, Agreement, Check
from policy.estimators import Estimate
from policy.evidence import Interval, Metric
from policy.paired import CandidatePairs, Difference, ModelPairs, Paired

METRICS = {
    Metric.QUALITY: pb.METRIC_QUALITY,
    Metric.COST_USD: pb.METRIC_COST_USD,
    Metric.LATENCY_SECONDS: pb.METRIC_LATENCY_SECONDS,
    Metric.ERROR: pb.METRIC_ERROR,
    Metric.UTILITY: pb.METRIC_UTILITY,
}
BY_VALUE = {value: metric for metric, value in METRICS.items()}
_AGREEMENTS = {each: pb.PairedAgreement.Value(f"PAIRED_AGREEMENT_{each.name}") for each in Agreement}
_AGREEMENT_VALUES = {value: each for each, value in _AGREEMENTS.items()}


def paired_to_proto(paired: Paired) -> pb.PairedEvaluation:
    """What second calls say."""
    return pb.PairedEvaluation(
        call_count=paired.called,
        pair_count=paired.pairs,
        untold_count=paired.untold,
        dropped_count=paired.dropped,
        waiting_count=paired.waiting,
        candidates=[
            pb.PairedCandidate(
                candidate=each.id,
                differences=[_difference_to_proto(of) for of in each.differences],
                checks=[_check_to_proto(of) for of in each.checks],
                agreement=_AGREEMENTS[each.agreement],
                unsupported_mean=each.unsupported_mean,
                move_count=each.moves,
            )
            for each in paired.candidates
        ],
        models=[
            pb.PairedModels(
                model=each.model,
                second_model=each.second_model,
                differences=[_difference_to_proto(of) for of in each.differences],
            )
            for each in paired.models
        ],
        false_alarm_rate=FALSE_ALARMS,
    )


def paired_from_proto(message: pb.PairedEvaluation) -> Paired:
    """The inverse of `paired_to_proto`."""
    return Paired(
        called=message.call_count,
        pairs=message.pair_count,
        untold=message.untold_count,
        dropped=message.dropped_count,
        waiting=message.waiting_count,
        candidates=tuple(
            CandidatePairs(
                each.candidate,
                tuple(map(_difference_from_proto, each.differences)),
                tuple(map(_check_from_proto, each.checks)),
                each.move_count,
                each.unsupported_mean,
            )
            for each in message.candidates
        ),
        models=tuple(
            ModelPairs(each.model, each.second_model, tuple(map(_difference_from_proto, each.differences)))
            for each in message.models
        ),
    )


def _difference_to_proto(each: Difference) -> pb.PairedDifference:
    return pb.PairedDifference(
        metric=METRICS[each.metric],
        pair_count=each.pairs,
        estimate=estimate_to_proto(each.estimate),
        sequence=interval_to_proto(each.sequence),
    )


def _difference_from_proto(message: pb.PairedDifference) -> Difference:
    estimate, sequence = estimate_from_proto(message.estimate), interval_from_proto(message.sequence)
    return Difference(BY_VALUE[message.metric], message.pair_count, estimate, sequence)


def _check_to_proto(each: Check) -> pb.PairedCheck:
    return pb.PairedCheck(
        metric=METRICS[each.metric],
        off_policy=estimate_to_proto(each.off_policy),
        gap=interval_to_proto(each.gap),
        agreement=_AGREEMENTS[each.agreement],
    )


def _check_from_proto(message: pb.PairedCheck) -> Check:
    off_policy, gap = estimate_from_proto(message.off_policy), interval_from_proto(message.gap)
    return Check(BY_VALUE[message.metric], off_policy, gap, _AGREEMENT_VALUES[message.agreement])


def estimate_to_proto(each: Estimate) -> pb.Estimate:
    """A value and its interval."""
    return pb.Estimate(value=_finite(each.value), interval=interval_to_proto(each.interval))


def interval_to_proto(each: Interval) -> pb.Interval:
    """An interval; an end that is infinite is unset."""
    return pb.Interval(low=_finite(each.low), high=_finite(each.high))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def estimate_from_proto(message: pb.Estimate) -> Estimate:
    """The inverse of `estimate_to_proto`."""
    value = message.value if message.HasField("value") else math.nan
    return Estimate(value, interval_from_proto(message.interval))


def interval_from_proto(message: pb.Interval) -> Interval:
    """The inverse of `interval_to_proto`."""
    low = message.low if message.HasField("low") else -math.inf
    return Interval(low, message.high if message.HasField("high") else math.inf)
