"""Policies on the wire, and the candidates they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pointsman.v1 import policy_service_pb2 as pb
from pointsman.v1 import registry_service_pb2 as registry_pb

from policy.candidates import CandidateSpec, FeaturePart, Rule, Threshold
from policy.domain import InvalidFieldError, LearnerKind
from policy.promotion import PolicyState, Promotion
from server.services.evaluations import requirements_from_proto, requirements_to_proto
from server.services.names import policy_name, promotion_name, short_model, snapshot_name
from server.services.specs import (
    LEARNER_VALUES,
    LEARNERS,
    exploration_from_proto,
    exploration_to_proto,
    objective_from_proto,
    objective_to_proto,
)
from server.services.times import duration, seconds, timestamp

if TYPE_CHECKING:  # A command that makes or shows a policy loads nothing of what decides by it.
    from server.registry import PolicyEntry, RouterEntry

_PARTS = {
    pb.FEATURE_PART_EMBEDDING: FeaturePart.EMBEDDING,
    pb.FEATURE_PART_STRUCTURE: FeaturePart.STRUCTURE,
    pb.FEATURE_PART_CALLER: FeaturePart.CALLER,
}
_PART_VALUES = {part: value for value, part in _PARTS.items()}
STATES = {
    PolicyState.SHADOW: pb.POLICY_STATE_SHADOW,
    PolicyState.CANARY: pb.POLICY_STATE_CANARY,
    PolicyState.LIVE: pb.POLICY_STATE_LIVE,
    PolicyState.RETIRED: pb.POLICY_STATE_RETIRED,
}


_KINDS = {
    "policy": pb.TRANSITION_KIND_POLICY,
    "settings": pb.TRANSITION_KIND_SETTINGS,
    "snapshot": pb.TRANSITION_KIND_SNAPSHOT,
}


def candidate_from_proto(router_id: str, policy_id: str, message: pb.Policy) -> CandidateSpec:
    """The candidate that a policy is. Raises InvalidFieldError with the field's path in the policy."""
    try:
        return CandidateSpec(
            policy_id,
            policy=message.policy or "learned",
            rules=tuple(_rule(index, router_id, each) for index, each in enumerate(message.rules)),
            threshold=_threshold(router_id, message),
            learner=_learner(message),
            exploration=exploration_from_proto(message.exploration) if message.HasField("exploration") else None,
            objective=objective_from_proto(message.objective) if message.HasField("objective") else None,
            features=_parts(message.feature_parts),
        )
    except InvalidFieldError as error:
        field = {"id": "policy_id", "features": "policy.feature_parts"}.get(error.field, f"policy.{error.field}")
        raise InvalidFieldError(field, error.message) from error


def _rule(index: int, router_id: str, message: pb.Rule) -> Rule:
    try:
        return Rule(
            message.feature,
            short_model(router_id, message.model),
            message.equals if message.HasField("equals") else None,
            message.at_least if message.HasField("at_least") else None,
        )
    except InvalidFieldError as error:
        raise InvalidFieldError(f"rules[{index}]{error.field.removeprefix('rule')}", error.message) from error


def _threshold(router_id: str, message: pb.Policy) -> Threshold | None:
    if not message.HasField("threshold"):
        return None
    given = message.threshold
    return Threshold(short_model(router_id, given.strong), short_model(router_id, given.weak), given.gap)


def _learner(message: pb.Policy) -> LearnerKind | None:
    if not message.learner:
        return None
    if message.learner not in LEARNERS:
        raise InvalidFieldError("learner", f"must be a LEARNER value, not {message.learner}")
    return LEARNERS[message.learner]


def _parts(values: Sequence[pb.FeaturePart.ValueType]) -> tuple[FeaturePart, ...] | None:
    if len(values) > len(_PARTS):
        raise InvalidFieldError("feature_parts", "must name each part once")
    return tuple(map(_part, values)) or None


def _part(value: pb.FeaturePart.ValueType) -> FeaturePart:
    if value not in _PARTS:
        raise InvalidFieldError("feature_parts", f"must be FEATURE_PART values, not {value}")
    return _PARTS[value]


def policy_to_proto(router_id: str, entry: PolicyEntry) -> pb.Policy:
    """A policy as registered."""
    message = candidate_to_proto(entry.spec)
    message.name = policy_name(router_id, entry.spec.id)
    message.state = STATES[entry.state]
    message.canary_share = entry.canary_share
    message.create_position = str(entry.create_seq)
    message.etag = str(entry.stamp.revision)
    message.create_time.CopyFrom(timestamp(entry.stamp.create_us))
    message.update_time.CopyFrom(timestamp(entry.stamp.update_us))
    return message


def candidate_to_proto(spec: CandidateSpec) -> pb.Policy:
    """The policy that a candidate is, without a name."""
    message = pb.Policy(
        # Beside a threshold nothing else may be said.
        policy="" if spec.threshold else spec.policy,
        rules=[
            pb.Rule(feature=each.feature, model=each.model, equals=each.equals, at_least=each.at_least)
            for each in spec.rules
        ],
        learner=LEARNER_VALUES[spec.learner] if spec.learner else registry_pb.LEARNER_UNSPECIFIED,
        feature_parts=[_PART_VALUES[each] for each in spec.features or ()],
    )
    if spec.threshold:
        given = spec.threshold
        message.threshold.CopyFrom(pb.Threshold(strong=given.strong, weak=given.weak, gap=given.gap))
    if spec.exploration:
        message.exploration.CopyFrom(exploration_to_proto(spec.exploration))
    if spec.objective:
        message.objective.CopyFrom(objective_to_proto(spec.objective))
    return message


def transition_to_proto(row: Any) -> pb.Transition:
    """What was done with a policy, from its row."""
    return pb.Transition(
        policy=policy_name(row.router, row.policy) if row.policy else "",
        position=str(row.seq),
        create_time=timestamp(row.time_us),
        from_state=STATES[PolicyState(row.from_state)] if row.from_state else pb.POLICY_STATE_UNSPECIFIED,
        to_state=STATES[PolicyState(row.to_state)] if row.to_state else pb.POLICY_STATE_UNSPECIFIED,
        canary_share=row.canary_share,
        forced=row.forced,
        automatic=row.automatic,
        actor=row.actor,
        reason=row.reason,
        evidence_json="" if row.evidence == "{}" else row.evidence,
        kind=_KINDS[row.kind],
        snapshot=snapshot_name(row.router, row.snapshot) if row.snapshot else "",
    )


def promotion_to_proto(entry: RouterEntry) -> pb.PromotionSettings:
    """By what a router's candidates are judged."""
    settings = entry.promotion
    return pb.PromotionSettings(
        name=promotion_name(entry.router.id),
        requirements=requirements_to_proto(settings.requirements),
        automatic_canary_share=settings.automatic_canary_share,
        canary_time=duration(settings.canary_seconds),
        etag=str(entry.promotion_revision),
    )


def promotion_from_proto(message: pb.PromotionSettings) -> Promotion:
    """By what candidates are to be judged. Raises InvalidFieldError with the field's path in the settings."""
    default = Promotion()
    try:
        given = requirements_from_proto(message.requirements) if message.HasField("requirements") else None
        return Promotion(
            default.requirements if given is None else given,
            message.automatic_canary_share,
            seconds(message.canary_time) if message.HasField("canary_time") else default.canary_seconds,
        )
    except InvalidFieldError as error:
        raise InvalidFieldError(f"promotion_settings.{error.field}", error.message) from error
