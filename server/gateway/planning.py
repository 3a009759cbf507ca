"""Asks Pointsman who is to be called, and says who serves where there is no answer."""

from __future__ import annotations

import base64
import binascii
import dataclasses
import logging
import time
import uuid

from pointsman.v1 import router_service_pb2 as pb

from server.gateway.conversation import Conversation
from server.gateway.decisions import Pointsman, PointsmanAwayError
from server.gateway.plan import Plan, Put, duration
from server.gateway.preferences import Preferences
from server.gateway.problems import ApiError, bad_field
from server.gateway.settings import GatewayConfig

logger = logging.getLogger(__name__)

ROUTED = "pointsman"


class Planner:
    """Makes plans. The log says when Pointsman goes away and when it is back, not each time in between."""

    def __init__(self, config: GatewayConfig, pointsman: Pointsman, put: Put) -> None:
        self._config = config
        self._pointsman = pointsman
        self._put = put
        self._away = False

    async def plan(self, talk: Conversation, wishes: Preferences) -> tuple[Plan, Conversation]:
        """The plan, and the conversation as the provider is to have it.

        Raises ApiError: the request is at fault, or Pointsman is away and no default model may serve.
        """
        seconds = min(self._config.request_seconds, wishes.max_latency or self._config.request_seconds)
        deadline = time.monotonic() + seconds
        router, named = self._resolve(talk.model)
        talk, bound = _bound_model(talk)
        if named and bound and named != bound:
            raise bad_field("previous_response_id", f"is of an answer of {bound}, and {named} is asked")
        request = self._request(talk, wishes, router, bound or named, follow=bool(bound))
        try:
            decision = await self._pointsman.route(request)
        except PointsmanAwayError as error:
            return self._stand_in(str(error), router, bound or named, wishes, deadline), talk
        if self._away:
            self._away = False
            logger.info("Pointsman decides again")
        # Asked for as deferred, so that one whose answer comes too late never counts.
        self._put(decision.decision_id)
        return (
            Plan(
                models=[decision.model, *decision.fallback_models],
                deadline=deadline,
                decision_id=decision.decision_id,
                chosen=decision.model,
                probability=decision.probability,
                policy=decision.policy,
                router=router,
            ),
            talk,
        )

    def _resolve(self, model: str) -> tuple[str, str]:
        """The router, and the model if a concrete one is named."""
        if model == ROUTED:
            return f"routers/{self._config.default_router}", ""
        if model.startswith(f"{ROUTED}/"):
            return f"routers/{model.removeprefix(ROUTED + '/')}", ""
        return f"routers/{self._config.default_router}", model

    def _request(
        self, talk: Conversation, wishes: Preferences, router: str, named: str, *, follow: bool
    ) -> pb.RouteRequest:
        required = set(wishes.required_capabilities)
        if self._config.required_capabilities and not named:
            required.update(talk.capabilities)
        request = pb.RouteRequest(
            router=router,
            request_id=f"gateway-{uuid.uuid4().hex}",
            prompt=talk.prompt.encode("utf-8", "replace").decode(),
            numeric_features=talk.numeric_features,
            categorical_features=talk.categorical_features,
            input_tokens=talk.input_tokens,
            max_output_tokens=talk.max_output_tokens,
            session_id=wishes.session_id or talk.user,
            incumbent_model=wishes.incumbent_model,
            defer_activation=True,
        )
        request.constraints.allowed_models.extend(wishes.allowed_models)
        request.constraints.denied_models.extend(wishes.denied_models)
        request.constraints.required_capabilities.extend(sorted(required))
        if wishes.max_cost_usd is not None:
            request.constraints.max_cost_usd = wishes.max_cost_usd
        if wishes.max_latency is not None:
            request.constraints.max_latency.CopyFrom(duration(wishes.max_latency))
        if wishes.quality_value_usd is not None:
            request.preference.quality_value_usd = wishes.quality_value_usd
        if wishes.latency_usd_per_second is not None:
            request.preference.latency_usd_per_second = wishes.latency_usd_per_second
        request.preference.exploit_only = wishes.exploit_only
        if named and self._config.named_models_as_incumbents and not follow:
            request.incumbent_model = named
        elif named:
            if not wishes.allows(named):
                raise ApiError(400, f"{named} is asked for and ruled out", code="invalid_value", param="model")
            request.constraints.allowed_models[:] = [named]
            request.preference.exploit_only = True
        return request

    def _stand_in(self, why: str, router: str, named: str, wishes: Preferences, deadline: float) -> Plan:
        if not self._away:
            self._away = True
            logger.warning("Pointsman gives no decision (%s): the default model serves", why)
        model = named if named in self._config.models else self._config.default_model
        if model is None or (named and named != model) or not wishes.allows(model):
            raise ApiError(
                503,
                f"Pointsman gives no decision ({why}), and there is no default model that may serve",
                code="pointsman_away",
                headers={"retry-after": "1"},
            )
        return Plan(models=[model], deadline=deadline, router=router, away=why)


def mark_response_id(response_id: str, model: str) -> str:
    """An id of the Responses API that says who has the answer it names: only that model can go on from it."""
    return f"{response_id}.{base64.urlsafe_b64encode(model.encode()).decode().rstrip('=')}"


def _bound_model(talk: Conversation) -> tuple[Conversation, str]:
    """Undoes `mark_response_id`: the conversation with the provider's own id, and the model."""
    marked = talk.parameters.get("previous_response_id")
    if marked is None:
        return talk, ""
    response_id, _, mark = str(marked).rpartition(".")
    try:
        model = base64.urlsafe_b64decode(mark + "=" * (-len(mark) % 4)).decode()
    except (binascii.Error, ValueError):
        model = ""
    if not response_id or not model:
        raise bad_field("previous_response_id", "is not the id of an answer of this gateway")
    return dataclasses.replace(talk, parameters={**talk.parameters, "previous_response_id": response_id}), model
