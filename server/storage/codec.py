"""Between rows and records: how decisions, reports and specs are written down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple
from typing import Any, TypeVar

import numpy as np
from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json, to_json

from policy.candidates import CandidateSpec
from policy.choices import Candidate, Choice, Exclusion, Second, Shadow
from policy.domain import InvalidFieldError, ModelError, ModelSpec, Router, RouterSpec
from policy.log import DecisionRecord, ReportRecord, Usage
from policy.promotion import Promotion, Restored
from policy.verdict import Requirements

_ROUTER = TypeAdapter(Router)
_ROUTER_SPEC = TypeAdapter(RouterSpec)
_MODEL_SPEC = TypeAdapter(ModelSpec)
_POLICIES: TypeAdapter[tuple[Router, tuple[CandidateSpec, ...]]] = TypeAdapter(
    tuple[Router, tuple[CandidateSpec, ...]]
)
_RECORDED: TypeAdapter[tuple[Router, tuple[CandidateSpec, ...], Requirements | None, Restored | None]] = (
    TypeAdapter(tuple[Router, tuple[CandidateSpec, ...], Requirements | None, Restored | None])
)
_PROMOTION = TypeAdapter(Promotion)
_CANDIDATE = TypeAdapter(CandidateSpec)


def _dump(value: Any) -> str:
    """JSON of plain values, in a quarter of the time that the standard library takes."""
    return to_json(value, inf_nan_mode="constants").decode()


AnyRow = Any
"""A row of a table, whose columns are its attributes."""


class DamagedRecordError(ValueError):
    """A row that is no record; the message names it."""


def dump_router(router: Router) -> str:
    """A router with its models as JSON."""
    return _ROUTER.dump_json(router).decode()


def load_router(text: str) -> Router:
    """The inverse of `dump_router`."""
    return _ROUTER.validate_json(text)


def dump_policies(router: Router, candidates: tuple[CandidateSpec, ...]) -> str:
    """A router with the candidates that are evaluated beside it as JSON."""
    return _POLICIES.dump_json((router, candidates)).decode()


def load_policies(text: str) -> tuple[Router, tuple[CandidateSpec, ...]]:
    """The inverse of `dump_policies`."""
    return _POLICIES.validate_json(text)


def dump_recorded(
    router: Router,
    candidates: tuple[CandidateSpec, ...],
    requirements: Requirements | None,
    restored: Restored | None,
) -> str:
    """What a record of policies says, as JSON."""
    return _RECORDED.dump_json((router, candidates, requirements, restored)).decode()


def load_recorded(
    text: str,
) -> tuple[Router, tuple[CandidateSpec, ...], Requirements | None, Restored | None]:
    """The inverse of `dump_recorded`; older records have only the first two parts."""
    parts = from_json(text)
    return _RECORDED.validate_python([*parts, *[None] * (4 - len(parts))])


def dump_promotion(settings: Promotion) -> str:
    """A router's promotion settings as JSON."""
    return _PROMOTION.dump_json(settings).decode()


def load_promotion(text: str) -> Promotion:
    """The inverse of `dump_promotion`."""
    return _PROMOTION.validate_json(text)


def dump_candidate(spec: CandidateSpec) -> str:
    """A candidate as JSON."""
    return _CANDIDATE.dump_json(spec).decode()


def load_candidate(text: str) -> CandidateSpec:
    """The inverse of `dump_candidate`."""
    return _CANDIDATE.validate_json(text)


def dump_spec(spec: RouterSpec | ModelSpec) -> str:
    """A spec as JSON; equal specs give equal texts."""
    adapter: TypeAdapter[Any] = _ROUTER_SPEC if isinstance(spec, RouterSpec) else _MODEL_SPEC
    return adapter.dump_json(spec).decode()


def load_router_spec(text: str) -> RouterSpec:
    """The inverse of `dump_spec`."""
    return _ROUTER_SPEC.validate_json(text)


def load_model_spec(text: str) -> ModelSpec:
    """The inverse of `dump_spec`."""
    return _MODEL_SPEC.validate_json(text)


Spec = TypeVar("Spec", RouterSpec, ModelSpec, CandidateSpec)


def parse_spec(kind: type[Spec], values: Mapping[str, Any]) -> Spec:
    """A spec from a mapping that a person wrote. Raises InvalidFieldError naming the field at fault."""
    adapter: TypeAdapter[Spec] = TypeAdapter(kind)
    try:
        return adapter.validate_python(values, extra="forbid")
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        cause = first.get("ctx", {}).get("error")
        if isinstance(cause, InvalidFieldError):
            raise cause from error  # It names its whole path itself.
        raise InvalidFieldError(".".join(str(part) for part in first["loc"]), first["msg"]) from error


def decision_row(record: DecisionRecord) -> dict[str, Any]:
    """The columns of a decision."""
    return {
        "seq": record.seq,
        "time_us": record.time_us,
        "expire_us": record.expire_us,
        "router": record.router,
        "router_uid": record.router_uid,
        "decision_id": record.decision_id,
        "request_id": record.request_id or None,
        "session_id": record.session_id or None,
        "model": record.choice.model,
        "propensity": record.choice.probability,
        "policy": record.choice.policy,
        "snapshot": record.choice.snapshot,
        "deferred": record.deferred,
        "features": record.features.astype("<f4", copy=False).tobytes(),
        "details": _dump_details(record),
        "prompt": record.prompt,
        "second_model": record.choice.second_model or None,
        "second_cost_usd": record.choice.second_cost_usd if record.choice.second_model else None,
    }


def _dump_details(record: DecisionRecord) -> str:
    choice = record.choice
    return _dump(
        {
            "candidates": [
                [
                    each.model,
                    each.probability,
                    each.quality,
                    each.cost_usd,
                    each.latency_seconds,
                    each.score,
                    each.exclusion.value if each.exclusion else None,
                    each.exclusion_detail,
                ]
                for each in choice.candidates
            ],
            "fallbacks": choice.fallbacks,
            "price_of_money": choice.price_of_money,
            "sticky": choice.sticky,
            "probe": choice.probe,
            "proposed_model": choice.proposed_model,
            "shadow": astuple(choice.shadow) if choice.shadow else None,
            "second": astuple(choice.second) if choice.second else None,
            "prompt_tokens": record.prompt_tokens,
            "input_tokens": record.input_tokens,
            "max_output_tokens": record.max_output_tokens,
            "exploit_only": record.exploit_only,
            "incumbent_model": record.incumbent_model,
            "feature_version": record.feature_version,
            "categorical": dict(record.categorical),
            "numeric": dict(record.numeric),
        }
    )


def load_decision(row: AnyRow) -> DecisionRecord:
    """The decision of a row of the decisions table. Raises DamagedRecordError."""
    try:
        return _load_decision(row)
    except (ValueError, LookupError, TypeError) as error:
        what = f"decision {row.decision_id} at position {row.seq}"
        raise DamagedRecordError(f"{what} cannot be decoded: {type(error).__name__}: {error}") from error


def load_choice(row: AnyRow) -> Choice:
    """What a decision came to, of a row with its model, propensity, policy, snapshot and details."""
    return _load_choice(row, from_json(row.details))


def _load_choice(row: AnyRow, details: Any) -> Choice:
    return Choice(
        model=row.model,
        probability=row.propensity,
        candidates=tuple(_load_candidate(values) for values in details["candidates"]),
        fallbacks=tuple(details["fallbacks"]),
        policy=row.policy,
        snapshot=row.snapshot,
        price_of_money=details["price_of_money"],
        sticky=details["sticky"],
        proposed_model=details["proposed_model"],
        probe=details.get("probe", False),
        shadow=_load_shadow(details.get("shadow")),
        second=_load_second(details.get("second")),
    )


def _load_decision(row: AnyRow) -> DecisionRecord:
    details = from_json(row.details)
    return DecisionRecord(
        seq=row.seq,
        time_us=row.time_us,
        expire_us=row.expire_us,
        router=row.router,
        decision_id=row.decision_id,
        choice=_load_choice(row, details),
        features=np.frombuffer(row.features, dtype="<f4"),
        prompt_tokens=details["prompt_tokens"],
        input_tokens=details["input_tokens"],
        max_output_tokens=details["max_output_tokens"],
        deferred=row.deferred,
        exploit_only=details["exploit_only"],
        request_id=row.request_id or "",
        session_id=row.session_id or "",
        incumbent_model=details["incumbent_model"],
        feature_version=details["feature_version"],
        prompt=row.prompt,
        router_uid=row.router_uid,
        categorical=details.get("categorical", {}),
        numeric=details.get("numeric", {}),
    )


def _load_shadow(values: list[Any] | None) -> Shadow | None:
    if values is None:
        return None
    incumbent_model, explore_share, proposal = values
    return Shadow(incumbent_model, explore_share, tuple(proposal))


def _load_second(values: list[Any] | None) -> Second | None:
    if values is None:
        return None
    share, pool, most_usd, model, capped = values
    return Second(share, tuple(pool), most_usd, model, capped)


def _load_candidate(values: list[Any]) -> Candidate:
    model, probability, quality, cost_usd, latency_seconds, score, exclusion, detail = values
    reason = Exclusion(exclusion) if exclusion else None
    return Candidate(model, probability, quality, cost_usd, latency_seconds, score, reason, detail)


def report_row(record: ReportRecord) -> dict[str, Any]:
    """The columns of a report."""
    usage = record.usage
    return {
        "seq": record.seq,
        "time_us": record.time_us,
        "decision_id": record.decision_id,
        "report_id": record.report_id or None,
        "activation": record.activation,
        "reward": record.reward,
        "signals": _dump(dict(record.signals)) if record.signals else None,
        "input_tokens": usage.input_tokens if usage else None,
        "output_tokens": usage.output_tokens if usage else None,
        "cost_usd": usage.cost_usd if usage else None,
        "cached_input_tokens": usage.cached_input_tokens if usage else None,
        "latency_seconds": record.latency_seconds,
        "served_model": record.served_model or None,
        "error": record.error.value if record.error else None,
        "event_time_us": record.event_time_us,
        "late": record.late,
        "subject": record.subject,
        "learned_reward": record.learned_reward,
        "replaces_reward": record.replaces_reward,
        "replaces_seq": record.replaces_seq or None,
        "charged_usd": record.charged_usd,
        "settles": record.settles,
        "activates": record.activates,
        "second": record.second,
    }


def load_report(row: AnyRow) -> ReportRecord:
    """The report of a row of the reports table. Raises DamagedRecordError."""
    try:
        return _load_report(row)
    except (ValueError, LookupError, TypeError) as error:
        what = f"report {row.seq} on decision {row.decision_id}"
        raise DamagedRecordError(f"{what} cannot be decoded: {type(error).__name__}: {error}") from error


def _load_report(row: AnyRow) -> ReportRecord:
    usage = None
    if row.input_tokens is not None:
        usage = Usage(row.input_tokens, row.output_tokens, row.cost_usd, row.cached_input_tokens or 0)
    return ReportRecord(
        seq=row.seq,
        time_us=row.time_us,
        decision_id=row.decision_id,
        report_id=row.report_id or "",
        reward=row.reward,
        signals=from_json(row.signals) if row.signals else {},
        usage=usage,
        latency_seconds=row.latency_seconds,
        served_model=row.served_model or "",
        error=ModelError(row.error) if row.error else None,
        event_time_us=row.event_time_us,
        late=row.late,
        activation=row.activation,
        subject=row.subject,
        learned_reward=row.learned_reward,
        replaces_reward=row.replaces_reward,
        replaces_seq=row.replaces_seq or 0,
        charged_usd=row.charged_usd,
        settles=row.settles,
        activates=row.activates,
        second=bool(row.second),
    )
