"""One request from the decision to its end: the models in their order, the clock, and what is reported of each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from typing import Any

from pointsman.v1 import router_service_pb2 as pb

from server.gateway.conversation import Conversation
from server.gateway.judge import Judge
from server.gateway.plan import Plan, Put, Served, duration
from server.gateway.problems import ApiError
from server.gateway.providers import Failure, ProviderError, Providers, first_part
from server.gateway.settings import GatewayConfig
from server.gateway.signals import Signals
from server.gateway.usage import StreamTally, Tally, answer_of, tally_of

# Less than this, by the client's deadline, and a time-out says nothing of the model.
_FAIR_SECONDS = 1.0
# A part of what is left of the deadline is kept for those that come after.
_SHARE = 2 / 3
_STATUS = {Failure.TIMEOUT: 504, Failure.RATE_LIMITED: 429, Failure.BAD_REQUEST: 400, Failure.REFUSED: 400}
_CODES = {
    Failure.TIMEOUT: "timeout",
    Failure.RATE_LIMITED: "rate_limit_exceeded",
    Failure.REFUSED: "content_policy_violation",
    Failure.UNSUPPORTED: "unsupported_parameter",
}


class Execution:
    """Calls the models of a plan and reports on them."""

    def __init__(
        self, config: GatewayConfig, providers: Providers, signals: Signals, judge: Judge, put: Put
    ) -> None:
        self._config = config
        self._providers = providers
        self._signals = signals
        self._judge = judge
        self._put = put

    async def serve(self, plan: Plan, talk: Conversation) -> Served:
        """The first answer there is, whole or begun. Raises ApiError when no model is left or the time is up."""
        last: tuple[str, ProviderError] | None = None
        for number, model in enumerate(plan.models, start=1):
            left = plan.deadline - time.monotonic()
            if left <= 0:
                break
            seconds = min(self._config.attempt_seconds, left * _SHARE if number < len(plan.models) else left)
            started = time.monotonic()
            try:
                return await self._attempt(talk, model, number, seconds)
            except ProviderError as error:
                last = (model, error)
                fair = error.failure is not Failure.TIMEOUT or seconds >= min(
                    _FAIR_SECONDS, self._config.attempt_seconds
                )
                if fair:
                    self._report_failure(plan, model, number, error.failure, time.monotonic() - started)
                if error.failure is Failure.BAD_REQUEST:
                    break
            except asyncio.CancelledError:
                # The client is gone; the provider has read the question, and may bill it.
                self._report_usage(plan, model, number, Tally(input_tokens=talk.input_tokens), None, {})
                raise
        raise _exhausted(plan, last)

    async def _attempt(self, talk: Conversation, model: str, number: int, seconds: float) -> Served:
        """Raises ProviderError."""
        started = time.monotonic()
        parts: AsyncGenerator[dict[str, Any], None] | None = None
        served: Served | None = None
        try:
            async with asyncio.timeout(seconds):
                if not talk.stream:
                    body = await self._providers.complete(talk.api, model, talk.parameters, seconds)
                    return Served(model, number, started, body=body)
                parts = self._providers.stream(talk.api, model, talk.parameters, seconds)
                begun = await first_part(parts, talk.api)
                first_seconds = time.monotonic() - started
                served = Served(model, number, started, rest=parts, begun=begun, first_seconds=first_seconds)
                return served
        except TimeoutError as error:
            raise ProviderError(Failure.TIMEOUT, f"no answer within {seconds:.1f} seconds") from error
        finally:
            if parts is not None and served is None:
                await parts.aclose()

    async def parts(self, plan: Plan, talk: Conversation, served: Served) -> AsyncGenerator[dict[str, Any], None]:
        """The parts of a begun answer. Reports on it at its end, whichever that is. Raises ApiError."""
        source = served.rest
        tally = StreamTally(talk)
        failure: Failure | None = None
        whole = False
        try:
            for part in served.begun:
                tally.see(part)
                yield part
            while source is not None:
                left = plan.deadline - time.monotonic()
                try:
                    async with asyncio.timeout(min(left, self._config.stall_seconds)):
                        part = await anext(source)
                except StopAsyncIteration:
                    break
                except TimeoutError as error:
                    late = left <= self._config.stall_seconds
                    failure = None if late else Failure.TIMEOUT
                    what = "the deadline has passed" if late else "the model has stopped in the middle"
                    raise ApiError(504, f"{served.model}: {what}", code="timeout") from error
                except ProviderError as error:
                    failure = error.failure
                    raise ApiError(502, f"{served.model}: the answer broke off", code="stream_broken") from error
                tally.see(part)
                yield part
            failure = tally.failure
            whole = failure is None
        finally:
            self._report_stream(plan, talk, served, tally, failure, whole)
            if source is not None:
                await source.aclose()

    def report_answer(self, plan: Plan, served: Served, talk: Conversation) -> None:
        """What a whole answer used, how long it took, and what its checks say."""
        tally = tally_of(served.body, talk)
        answer = answer_of(served.body)
        signals = self._signals.of(plan, talk, answer)
        self._report_usage(plan, served.model, served.attempts, tally, time.monotonic() - served.started, signals)
        self._judge.consider(plan, talk, served.model, answer)

    def _report_stream(
        self,
        plan: Plan,
        talk: Conversation,
        served: Served,
        tally: StreamTally,
        failure: Failure | None,
        whole: bool,
    ) -> None:
        signals = {"time_to_first_token_seconds": served.first_seconds}
        if whole:
            signals.update(self._signals.of(plan, talk, tally.answer))
        if failure is not None:
            self._report_failure(plan, served.model, served.attempts, failure, None, tally.tally)
        else:
            latency = time.monotonic() - served.started if whole else None
            self._report_usage(plan, served.model, served.attempts, tally.tally, latency, signals)
        if whole:
            self._judge.consider(plan, talk, served.model, tally.answer)

    def _report_usage(
        self,
        plan: Plan,
        model: str,
        number: int,
        tally: Tally,
        latency_seconds: float | None,
        signals: dict[str, float],
    ) -> None:
        if not plan.decision_id:
            return
        report = self._report(plan, model, f"{number}-usage", latency_seconds, tally)
        report.signals.update(signals)
        self._put(report)

    def _report_failure(
        self,
        plan: Plan,
        model: str,
        number: int,
        failure: Failure,
        latency_seconds: float | None,
        tally: Tally | None = None,
    ) -> None:
        if not plan.decision_id or failure in (Failure.UNSUPPORTED, Failure.BAD_REQUEST):
            return
        report = self._report(plan, model, f"{number}-error", latency_seconds, tally)
        report.error = pb.ModelError.Value(f"MODEL_ERROR_{failure.value}")
        self._put(report)

    def _report(
        self, plan: Plan, model: str, part: str, latency_seconds: float | None, tally: Tally | None
    ) -> pb.ReportRewardRequest:
        report = pb.ReportRewardRequest(
            decision_id=plan.decision_id, report_id=f"gateway-{plan.nonce}-{part}", served_model=model
        )
        if latency_seconds is not None:
            report.latency.CopyFrom(duration(latency_seconds))
        if tally is not None:
            report.usage.CopyFrom(
                pb.Usage(
                    input_tokens=tally.input_tokens,
                    output_tokens=tally.output_tokens,
                    cached_input_tokens=tally.cached_input_tokens,
                    cost_usd=tally.cost_usd,
                )
            )
        return report


def _exhausted(plan: Plan, last: tuple[str, ProviderError] | None) -> ApiError:
    """What the client is told when nobody has answered."""
    # Another try at once would be another decision past the same deadline.
    if last is None:
        return ApiError(504, "the deadline has passed", code="timeout", headers={"x-should-retry": "false"})
    model, error = last
    status = _STATUS.get(error.failure, 502)
    code = _CODES.get(error.failure, "invalid_request_error" if status == 400 else "model_unavailable")
    tried = f" after {len(plan.models)} models" if len(plan.models) > 1 and status != 400 else ""
    shown = error.message if status in (400, 504) else f"the call failed ({error.failure.value})"
    if error.failure is Failure.BAD_REQUEST and error.status in (413, 422):
        status = error.status
    headers = {"x-should-retry": "false"} if error.failure is Failure.TIMEOUT else {}
    return ApiError(status, f"{model}: {shown}{tried}", code=code, headers=headers)
