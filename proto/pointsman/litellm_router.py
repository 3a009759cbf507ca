"""A routing strategy for LiteLLM's Router, and so for its proxy: Pointsman chooses among a group's deployments.

    router = litellm.Router(model_list=[...])
    strategy = PointsmanStrategy(router, AsyncClient())
    strategy.attach()

See docs/litellm.md. It takes LiteLLM, which the client itself does not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import litellm
from litellm.integrations.custom_logger import CustomLogger
from litellm.types.router import CustomRoutingStrategyBase

from pointsman.client import AsyncClient, AsyncDecision, Client, Decision, model_failure, usage_from
from pointsman.client.messages import ReportOptions, RouteOptions

_KEY = "pointsman"
_DECISION = "pointsman_decision_id"


class PointsmanStrategy(CustomRoutingStrategyBase, CustomLogger):  # type: ignore[misc]  # LiteLLM's have no types here
    """Asks once for each request, hands LiteLLM's retries the decision's fallbacks in their order, and reports how
    every call ended.

    A deployment stands for the model of Pointsman's that its `model_info.pointsman_model` names, or else for that
    of its `litellm_params.model` without the provider's name: openai/gpt-4.1 is gpt-4.1. `pointsman_router`
    decides, or else the client's own. `blocking` serves the router's calls that are not awaited.
    """

    def __init__(
        self,
        router: litellm.Router,
        client: AsyncClient,
        *,
        pointsman_router: str = "",
        blocking: Client | None = None,
    ) -> None:
        super().__init__()
        self._router = router
        self._client = client
        self._pointsman_router = pointsman_router
        self._blocking = blocking

    def attach(self) -> None:
        """Makes LiteLLM ask it, and tell it of every call's end."""
        self._router.register_plugin(self)
        litellm.logging_callback_manager.add_litellm_callback(self)

    async def async_get_available_deployment(
        self,
        model: str,
        messages: Sequence[Mapping[str, Any]] | None = None,
        input: str | list[Any] | None = None,  # noqa: A002 - LiteLLM's word
        specific_deployment: bool | None = False,  # noqa: ARG002
        request_kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """The deployment to call, of the group `model`."""
        request = request_kwargs if request_kwargs is not None else {}
        group = self._group(model)
        left = self._left(request, group)
        if left is None:
            options = self._options(request, group)
            decision = await self._client.route(_prompt(messages, input), **options)
            left = self._begin(request, decision, group)
        return self._next(request, left, group)

    def get_available_deployment(
        self,
        model: str,
        messages: Sequence[Mapping[str, Any]] | None = None,
        input: str | list[Any] | None = None,  # noqa: A002 - LiteLLM's word
        specific_deployment: bool | None = False,  # noqa: ARG002
        request_kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """As the other, for calls that are not awaited. Raises TypeError without a blocking client."""
        if self._blocking is None:
            raise TypeError("PointsmanStrategy needs blocking=Client(...) for calls that are not awaited")
        request = request_kwargs if request_kwargs is not None else {}
        group = self._group(model)
        left = self._left(request, group)
        if left is None:
            decision = self._blocking.route(_prompt(messages, input), **self._options(request, group))
            left = self._begin(request, decision, group)
        return self._next(request, left, group)

    async def async_log_success_event(
        self, kwargs: dict[str, Any], response_obj: Any, start_time: datetime, end_time: datetime
    ) -> None:
        """Reports what a call used and how long it took."""
        self.log_success_event(kwargs, response_obj, start_time, end_time)

    def log_success_event(
        self, kwargs: dict[str, Any], response_obj: Any, start_time: datetime, end_time: datetime
    ) -> None:
        """As the other."""
        decision_id, model, call = self._told(kwargs, start_time)
        if decision_id:
            seconds = (end_time - start_time).total_seconds()
            told: ReportOptions = {"report_id": call, "served_model": model, "latency_seconds": seconds}
            usage = usage_from(response_obj)
            if usage is not None:
                told["usage"] = usage
            self._client.report(decision_id, **told)

    async def async_log_failure_event(
        self, kwargs: dict[str, Any], response_obj: Any, start_time: datetime, end_time: datetime
    ) -> None:
        """Reports that a call failed, if that says anything of the model."""
        self.log_failure_event(kwargs, response_obj, start_time, end_time)

    def log_failure_event(
        self,
        kwargs: dict[str, Any],
        response_obj: Any,  # noqa: ARG002
        start_time: datetime,
        end_time: datetime,  # noqa: ARG002
    ) -> None:
        """As the other."""
        decision_id, model, call = self._told(kwargs, start_time)
        error = kwargs.get("exception")
        failure = model_failure(error) if isinstance(error, BaseException) else None
        if decision_id and failure is not None:
            self._client.report(decision_id, report_id=call, served_model=model, error=failure)

    def _group(self, name: str) -> dict[str, dict[str, Any]]:
        """The deployments of a group, by the models that they stand for."""
        found = self._router.get_model_list(model_name=name) or []
        return {_model_of(each): each for each in found}

    def _options(self, request: Mapping[str, Any], group: Mapping[str, Any]) -> RouteOptions:
        options: RouteOptions = {"allowed_models": list(group), "session_id": str(request.get("user") or "")}
        if self._pointsman_router:
            options["router"] = self._pointsman_router
        return options

    def _left(self, request: dict[str, Any], group: Mapping[str, Any]) -> list[str] | None:
        """The models that the request may still try, if it was decided before: then this is a retry."""
        kept = _metadata(request).get(_KEY)
        if not isinstance(kept, list):
            return None
        return [each for each in kept if each in group] or list(group)

    def _begin(
        self, request: dict[str, Any], decision: Decision | AsyncDecision, group: Mapping[str, Any]
    ) -> list[str]:
        if not decision.is_default:
            _metadata(request)[_DECISION] = decision.decision_id
        return [each for each in decision.models if each in group] or list(group)

    def _next(self, request: dict[str, Any], left: list[str], group: Mapping[str, Any]) -> Any:
        _metadata(request)[_KEY] = left[1:]
        return group[left[0]]

    def _told(self, kwargs: Mapping[str, Any], began: datetime) -> tuple[str, str, str]:
        """The decision, the model and the call that an event is about; no decision if it is not one of ours.

        By what was called: LiteLLM's notes on the deployment are those of the retry by then.
        """
        params = kwargs.get("litellm_params") or {}
        metadata = {**(params.get("litellm_metadata") or {}), **(params.get("metadata") or {})}
        called = (f"{kwargs.get('custom_llm_provider')}/{kwargs.get('model')}", str(kwargs.get("model")))
        group = self._group(str(metadata.get("model_group") or ""))
        model = next((name for name, each in group.items() if each["litellm_params"]["model"] in called), "")
        decision_id = str(metadata.get(_DECISION) or "")
        if not model or not decision_id:
            return "", "", ""
        return decision_id, model, f"litellm-{kwargs.get('litellm_call_id')}-{began.timestamp()}"


def _metadata(request: dict[str, Any]) -> dict[str, Any]:
    """Where LiteLLM keeps what belongs to a request, through its retries and up to its callbacks."""
    name = "litellm_metadata" if isinstance(request.get("litellm_metadata"), dict) else "metadata"
    if not isinstance(request.get(name), dict):
        request[name] = {}
    found: dict[str, Any] = request[name]
    return found


def _model_of(deployment: Mapping[str, Any]) -> str:
    named = (deployment.get("model_info") or {}).get("pointsman_model")
    called = str(deployment["litellm_params"]["model"])
    return (
        str(named) if named else called.rpartition("/")[2] if called.count("/") < 2 else called.partition("/")[2]
    )


def _prompt(messages: Sequence[Mapping[str, Any]] | None, given: str | list[Any] | None) -> str:
    """The last user turn, as the gateway has it."""
    if isinstance(given, str):
        return given
    for message in reversed(messages or ()):
        if message.get("role") == "user":
            content = message.get("content")
            parts = content if isinstance(content, list) else [{"text": content}]
            texts = [each.get("text") for each in parts if isinstance(each, Mapping)]
            return "\n".join(each for each in texts if isinstance(each, str))
    return ""
