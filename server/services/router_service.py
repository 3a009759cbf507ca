"""RouterService: the data plane on the wire."""

from __future__ import annotations

from typing import Any

from pointsman.v1 import router_service_pb2 as pb
from pointsman.v1 import router_service_pb2_grpc as pb_grpc

from policy.choices import Choice, Exclusion, Preference
from policy.domain import InvalidFieldError
from policy.explanation import Explanation, Source, Term
from policy.log import DecisionRecord, ReportRecord
from server.keys import permitted_routers
from server.services.imports import import_command
from server.services.names import parse_model, parse_router, router_name, short_model
from server.services.outcomes import ERROR_VALUES, error_of, event_time_us_of, usage_of
from server.services.status import Context, code_and_reason, translated
from server.services.times import seconds, timestamp
from server.storage.writes import Disposition
from server.usecases.get_decision import GetDecision, JoinedDecision
from server.usecases.import_decisions import ROWS_MAX, ImportDecisions
from server.usecases.report_reward import BATCH_MAX, ReportReward
from server.usecases.route import Route
from server.usecases.route_command import RouteCommand

_NO_PREFERENCE = Preference()
_EXCLUSIONS = {each: pb.Exclusion.Value(f"EXCLUSION_{each.name}") for each in Exclusion}
_DISPOSITIONS = {each: pb.Disposition.Value(f"DISPOSITION_{each.name}") for each in Disposition}
_SOURCES = {each: pb.ContributionSource.Value(f"CONTRIBUTION_SOURCE_{each.name}") for each in Source}


class RouterService(pb_grpc.RouterServiceServicer):
    """Translates; the use cases decide."""

    def __init__(
        self,
        route: Route,
        report_reward: ReportReward,
        get_decision: GetDecision,
        import_decisions: ImportDecisions,
    ) -> None:
        self._route = route
        self._report_reward = report_reward
        self._get_decision = get_decision
        self._import_decisions = import_decisions

    @translated
    async def Route(self, request: pb.RouteRequest, context: Context) -> pb.RouteResponse:
        """Picks a model."""
        decision = await self._route(_command(request), context.time_remaining())
        choice = decision.choice
        response = pb.RouteResponse(
            decision_id=decision.decision_id,
            model=choice.model,
            probability=choice.probability,
            fallback_models=choice.fallbacks,
            policy=choice.policy,
            snapshot=str(choice.snapshot),
            create_time=timestamp(decision.time_us),
            expire_time=timestamp(decision.expire_us) if decision.expire_us else None,
            proposed_model=choice.proposed_model,
            second_model=choice.second_model,
            second_probability=choice.second_probability,
            not_logged=not decision.seq,
        )
        _add_candidates(response, choice)
        return response

    @translated
    async def ReportReward(self, request: pb.ReportRewardRequest, context: Context) -> pb.ReportRewardResponse:
        """Takes a report."""
        disposition = await self._report_reward(*_report(request), permitted_routers())
        return pb.ReportRewardResponse(disposition=_DISPOSITIONS[disposition])

    @translated
    async def BatchReportRewards(
        self, request: pb.BatchReportRewardsRequest, context: Context
    ) -> pb.BatchReportRewardsResponse:
        """Takes many reports, each by itself."""
        _require_at_most("requests", len(request.requests), BATCH_MAX)
        parsed = [_report_or_refusal(each) for each in request.requests]
        good = [each for each in parsed if not isinstance(each, InvalidFieldError)]
        fates = iter(await self._report_reward.batch(good, permitted_routers()))
        results = [each if isinstance(each, Exception) else next(fates) for each in parsed]
        return pb.BatchReportRewardsResponse(results=[_result(each) for each in results])

    @translated
    async def ActivateDecision(
        self, request: pb.ActivateDecisionRequest, context: Context
    ) -> pb.ActivateDecisionResponse:
        """Makes a deferred decision count."""
        activation = ReportRecord(0, 0, request.decision_id, activation=True)
        disposition = await self._report_reward(activation, permitted=permitted_routers())
        return pb.ActivateDecisionResponse(disposition=_DISPOSITIONS[disposition])

    @translated
    async def GetDecision(self, request: pb.GetDecisionRequest, context: Context) -> pb.GetDecisionResponse:
        """Reads a decision."""
        if not request.decision_id:
            raise InvalidFieldError("decision_id", "must be set")
        found = await self._get_decision(request.decision_id, permitted_routers())
        return pb.GetDecisionResponse(decision=_decision(found))

    @translated
    async def ImportDecisions(
        self, request: pb.ImportDecisionsRequest, context: Context
    ) -> pb.ImportDecisionsResponse:
        """Takes over decisions made elsewhere, each by itself."""
        router_id = parse_router("router", request.router)
        _require_at_most("decisions", len(request.decisions), ROWS_MAX)
        parsed = [import_command(router_id, each) for each in request.decisions]
        good = [each for each in parsed if not isinstance(each, InvalidFieldError)]
        fates = iter(await self._import_decisions(router_id, good))
        results = [each if isinstance(each, Exception) else next(fates) for each in parsed]
        return pb.ImportDecisionsResponse(results=[_import_result(each) for each in results])


def _require_at_most(field: str, count: int, most: int) -> None:
    """Before the items are looked at, and whether they are good or not."""
    if count > most:
        raise InvalidFieldError(field, f"must be at most {most:,}")


def _command(request: pb.RouteRequest) -> RouteCommand:
    router_id = parse_router("router", request.router)
    limits = _limits(router_id, request.constraints) if request.HasField("constraints") else {}
    return RouteCommand(
        router_id=router_id,
        request_id=request.request_id,
        prompt=request.prompt,
        embedding=request.embedding,
        numeric_features=dict(request.numeric_features) if request.numeric_features else {},
        categorical_features=dict(request.categorical_features) if request.categorical_features else {},
        preference=_preference(request.preference) if request.HasField("preference") else _NO_PREFERENCE,
        input_tokens=request.input_tokens,
        max_output_tokens=request.max_output_tokens,
        session_id=request.session_id,
        incumbent_model=short_model(router_id, request.incumbent_model),
        defer_activation=request.defer_activation,
        **limits,
    )


def _limits(router_id: str, constraints: pb.Constraints) -> dict[str, Any]:
    """Those fields of a command that come from its constraints."""
    return {
        "allowed_models": [short_model(router_id, name) for name in constraints.allowed_models],
        "denied_models": [short_model(router_id, name) for name in constraints.denied_models],
        "required_capabilities": list(constraints.required_capabilities),
        "max_cost_usd": constraints.max_cost_usd if constraints.HasField("max_cost_usd") else None,
        "max_latency_seconds": seconds(constraints.max_latency) if constraints.HasField("max_latency") else None,
    }


def _preference(preference: pb.Preference) -> Preference:
    return Preference(
        preference.quality_value_usd if preference.HasField("quality_value_usd") else None,
        preference.latency_usd_per_second if preference.HasField("latency_usd_per_second") else None,
        preference.exploit_only,
    )


def _add_candidates(message: pb.RouteResponse | pb.Decision, choice: Choice) -> None:
    """Adds them one by one: as an argument of the message they would be copied once more."""
    for each in choice.candidates:
        message.candidates.add(
            model=each.model,
            probability=each.probability,
            predicted_quality=each.quality,
            predicted_cost_usd=each.cost_usd,
            predicted_latency_seconds=each.latency_seconds,
            exclusion=_EXCLUSIONS[each.exclusion] if each.exclusion else pb.EXCLUSION_UNSPECIFIED,
            exclusion_detail=each.exclusion_detail,
            score=each.score,
        )
    if choice.shadow is not None:
        for added, share in zip(message.candidates, choice.shadow.proposal, strict=True):
            added.proposed_probability = share
    if choice.second is not None and not choice.second.capped:
        for added, share in zip(message.candidates, choice.second.pool, strict=True):
            added.second_probability = 0.0 if added.model == choice.model else choice.second.share * share


def _report(request: pb.ReportRewardRequest) -> tuple[ReportRecord, str]:
    """The report, and the router that its served model was named with, if any."""
    served_router, served = "", request.served_model
    if served.startswith("routers/"):
        served_router, served = parse_model("served_model", served)
    report = ReportRecord(
        seq=0,
        time_us=0,
        decision_id=request.decision_id,
        report_id=request.report_id,
        reward=request.reward if request.HasField("reward") else None,
        signals=dict(request.signals) if request.signals else {},
        usage=usage_of(request.usage) if request.HasField("usage") else None,
        latency_seconds=seconds(request.latency) if request.HasField("latency") else None,
        served_model=served,
        error=error_of(request.error),
        event_time_us=event_time_us_of(request.event_time) if request.HasField("event_time") else None,
        second=request.second,
    )
    return report, served_router


def _report_or_refusal(request: pb.ReportRewardRequest) -> tuple[ReportRecord, str] | InvalidFieldError:
    try:
        return _report(request)
    except InvalidFieldError as refusal:
        return refusal


def _result(fate: Disposition | Exception) -> pb.ReportResult:
    if isinstance(fate, Disposition):
        return pb.ReportResult(disposition=_DISPOSITIONS[fate])
    code, reason, message = code_and_reason(fate)
    return pb.ReportResult(code=code, message=message, reason=reason)


def _import_result(fate: Disposition | Exception) -> pb.ImportResult:
    if isinstance(fate, Disposition):
        return pb.ImportResult(disposition=_DISPOSITIONS[fate])
    code, reason, message = code_and_reason(fate)
    return pb.ImportResult(code=code, message=message, reason=reason)


def _decision(found: JoinedDecision) -> pb.Decision:
    decision: DecisionRecord = found.decision
    choice = decision.choice
    state, second = found.joined, found.joined.call(second=True)
    message = pb.Decision(
        decision_id=decision.decision_id,
        router=router_name(decision.router),
        request_id=decision.request_id,
        session_id=decision.session_id,
        model=choice.model,
        probability=choice.probability,
        fallback_models=choice.fallbacks,
        policy=choice.policy,
        snapshot=str(choice.snapshot),
        create_time=timestamp(decision.time_us),
        expire_time=timestamp(decision.expire_us) if decision.expire_us else None,
        active=state.active,
        incumbent_model=decision.incumbent_model,
        proposed_model=choice.proposed_model,
        price_of_money=choice.price_of_money,
        reward=state.reward,
        cost_usd=state.charged_usd,
        reports=[_stored_report(each) for each in found.reports if not each.activation],
        prompt=decision.prompt or "",
        feature_version=decision.feature_version,
        sticky=choice.sticky,
        probe=choice.probe,
        explanation=_explanation(found.explanation),
        shadow_explore_share=choice.shadow.explore_share if choice.shadow else 0.0,
        categorical_features=decision.categorical,
        numeric_features=decision.numeric,
        second_model=choice.second_model,
        second_probability=choice.second_probability,
        second_capped=bool(choice.second and choice.second.capped),
        second_reward=second.reward,
        second_cost_usd=second.charged_usd,
    )
    _add_candidates(message, choice)
    return message


def _explanation(explanation: Explanation) -> pb.Explanation:
    candidates = [
        pb.CandidateExplanation(
            model=each.model,
            predicted_quality=each.quality,
            contributions=[_contribution(term) for term in each.terms],
            detail=each.detail,
        )
        for each in explanation.candidates
    ]
    snapshot = "" if explanation.snapshot is None else str(explanation.snapshot)
    return pb.Explanation(snapshot=snapshot, candidates=candidates)


def _contribution(term: Term) -> pb.Contribution:
    return pb.Contribution(
        source=_SOURCES[term.source], feature=term.feature, quality=term.quality, value=term.value
    )


def _stored_report(report: ReportRecord) -> pb.Report:
    request = pb.ReportRewardRequest(
        decision_id=report.decision_id,
        report_id=report.report_id,
        reward=report.reward,
        signals=report.signals,
        served_model=report.served_model,
        error=ERROR_VALUES[report.error] if report.error else pb.MODEL_ERROR_UNSPECIFIED,
        second=report.second,
    )
    if report.usage is not None:
        request.usage.CopyFrom(
            pb.Usage(
                input_tokens=report.usage.input_tokens,
                output_tokens=report.usage.output_tokens,
                cost_usd=report.usage.cost_usd,
                cached_input_tokens=report.usage.cached_input_tokens,
            )
        )
    if report.latency_seconds is not None:
        request.latency.FromNanoseconds(round(report.latency_seconds * 1e9))
    if report.event_time_us is not None:
        request.event_time.CopyFrom(timestamp(report.event_time_us))
    return pb.Report(
        report=request,
        create_time=timestamp(report.time_us),
        late=report.late,
        model=report.subject,
        learned_reward=report.learned_reward,
    )
