"""The one module that touches LiteLLM: calls a provider, and says in Pointsman's words how a call failed."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from server.gateway.conversation import Api
from server.gateway.settings import ModelConfig

# How many connections are tried before a provider counts as one that hangs up.
_CONNECTIONS_MAX = 3
_CLOSED = frozenset(("RemoteProtocolError", "ReadError", "WriteError", "ServerDisconnectedError"))
# Set in the task that calls, which is the request's or a judge's own.
_OWN_CALL: ContextVar[bool] = ContextVar("own_call", default=False)


class Failure(Enum):
    """Why a call failed: the names of ModelError, and two that say nothing of the model's health."""

    UNAVAILABLE = "UNAVAILABLE"
    TIMEOUT = "TIMEOUT"
    RATE_LIMITED = "RATE_LIMITED"
    REFUSED = "REFUSED"
    INVALID_OUTPUT = "INVALID_OUTPUT"
    # The model has no such parameter, another may.
    UNSUPPORTED = "UNSUPPORTED"
    # The request is at fault, whoever is asked.
    BAD_REQUEST = "BAD_REQUEST"


class ProviderError(Exception):
    """A call that failed. `message` is the provider's, without the key; it may quote the request."""

    def __init__(self, failure: Failure, message: str, status: int | None = None) -> None:
        super().__init__(failure.value)
        self.failure = failure
        self.message = message
        self.status = status


@dataclass(frozen=True)
class Target:
    """How a model is called. The key is left out of the repr."""

    litellm_model: str
    api_base: str | None = None
    api_version: str | None = None
    api_key: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class TokenPrices:
    """USD for a token."""

    input_usd: float
    output_usd: float

    def cost_usd(self, input_tokens: int, output_tokens: int) -> float:
        """Of one call."""
        return input_tokens * self.input_usd + output_tokens * self.output_usd


def read_targets(models: Mapping[str, ModelConfig]) -> dict[str, Target]:
    """Raises SettingError for a key that is not there."""
    return {
        name: Target(each.litellm_model or name, each.api_base, each.api_version, each.api_key(f"models.{name}"))
        for name, each in models.items()
    }


class Providers:
    """Every provider that LiteLLM knows."""

    def __init__(self, targets: Mapping[str, Target]) -> None:
        self._targets = targets
        self._litellm = _load()
        self._messages, self._message_events = _load_messages()

    def target(self, model: str) -> Target:
        """A model that the file does not name is LiteLLM's of that name, with its provider's usual variables."""
        return self._targets.get(model) or Target(model)

    def prices(self, model: str) -> TokenPrices | None:
        """By LiteLLM's own list; None for a model that is not on it, or there without a price."""
        try:
            known = self._litellm.get_model_info(self.target(model).litellm_model)
        except Exception:  # It raises the base class for a provider that it does not know.
            return None
        prices = known.get("input_cost_per_token"), known.get("output_cost_per_token")
        return TokenPrices(*prices) if None not in prices and any(prices) else None

    async def complete(
        self, api: Api, model: str, parameters: Mapping[str, Any], seconds: float
    ) -> dict[str, Any]:
        """The whole answer in the form of the API. Raises ProviderError."""
        given, names = self._translated(api, model, parameters)
        answer = await self._call(api, model, given, seconds)
        if api != "messages":
            return _plain(answer)
        try:
            message = self._messages.translate_completion_output_params(answer, tool_name_mapping=names)
        except Exception as error:  # It raises whatever an answer that is none leads to.
            raise ProviderError(Failure.INVALID_OUTPUT, "its answer cannot be put as a message") from error
        return _plain(message)

    async def stream(
        self, api: Api, model: str, parameters: Mapping[str, Any], seconds: float
    ) -> AsyncGenerator[dict[str, Any], None]:
        """The parts of an answer in the form of the API, the usage among them. Raises ProviderError."""
        given, names = self._translated(api, model, parameters)
        given["stream"] = True
        if api != "responses":
            given["stream_options"] = {"include_usage": True}
        parts = await self._call(api, model, given, seconds)
        if api == "messages":
            parts = self._message_events(parts, model, tool_name_mapping=names)
        try:
            async for part in parts:
                yield _plain(part)
        except Exception as error:
            raise self._failed(error, model) from error
        finally:
            close = getattr(parts, "aclose", None)
            if close is not None:
                with contextlib.suppress(Exception):
                    await close()

    async def _call(self, api: Api, model: str, parameters: dict[str, Any], seconds: float) -> Any:
        _OWN_CALL.set(True)
        target = self.target(model)
        ask = self._litellm.aresponses if api == "responses" else self._litellm.acompletion
        given = {
            **parameters,
            "model": target.litellm_model,
            "api_base": target.api_base,
            "api_version": target.api_version,
            "api_key": target.api_key,
            "timeout": seconds,
            "max_retries": 0,
            "num_retries": 0,
        }
        said = {name: value for name, value in given.items() if value is not None}
        connections = 0
        while True:
            connections += 1
            try:
                return await ask(**said)
            except Exception as error:
                if connections == _CONNECTIONS_MAX or not _was_closed(error):
                    raise self._failed(error, model) from error

    def _translated(
        self, api: Api, model: str, parameters: Mapping[str, Any]
    ) -> tuple[dict[str, Any], dict[str, str]]:
        """What LiteLLM is asked, and the names of tools that had to be cut: a message goes as a chat completion.

        Its `anthropic_messages` would pass one on as it is where the provider speaks it. But such streams need
        packages of LiteLLM's proxy, and are read on to their end, and billed, when the client has gone.
        """
        if api != "messages":
            return dict(parameters), {}
        asked = {**parameters, "model": self.target(model).litellm_model}
        try:
            given, names = self._messages.translate_completion_input_params_with_tool_mapping(asked)
        except Exception as error:  # It raises whatever a field of another type leads to.
            raise ProviderError(Failure.BAD_REQUEST, "the request cannot be put as a chat completion") from error
        if (parameters.get("tool_choice") or {}).get("disable_parallel_tool_use"):
            given["parallel_tool_calls"] = False
        return dict(given), names

    def _failed(self, error: Exception, model: str) -> ProviderError:
        """What it says of the model. The text may be shown to the client, never logged."""
        if isinstance(error, ProviderError):
            return error
        key = self.target(model).api_key
        message = str(getattr(error, "message", "") or error)
        status = getattr(error, "status_code", None)
        failure = self._failure(error, status if isinstance(status, int) else None)
        return ProviderError(failure, message.replace(key, "***") if key else message, status)

    def _failure(self, error: Exception, status: int | None) -> Failure:
        known = self._litellm.exceptions
        if isinstance(error, TimeoutError | known.Timeout) or status in (408, 504):
            return Failure.TIMEOUT
        if isinstance(error, known.ContextWindowExceededError | known.ContentPolicyViolationError):
            return Failure.REFUSED
        if isinstance(error, known.UnsupportedParamsError | known.EndpointNotSupportedByModelError):
            return Failure.UNSUPPORTED
        if isinstance(error, known.LiteLLMUnknownProvider):
            return Failure.UNAVAILABLE
        if isinstance(error, known.APIResponseValidationError | json.JSONDecodeError):
            return Failure.INVALID_OUTPUT
        if status == 429:
            return Failure.RATE_LIMITED
        if status in (400, 413, 422):
            return Failure.BAD_REQUEST
        # A key that is no good (401, 403) and a model that is not there (404) too: whoever asks gets no answer.
        return Failure.UNAVAILABLE


def _was_closed(error: BaseException | None) -> bool:
    """Whether the connection was closed before it brought an answer. A provider closes those that have been idle,
    and a busy gateway may write its request a moment later: that says nothing of the model, and another will do.
    """
    while error is not None:
        # By name: LiteLLM has several HTTP clients.
        if type(error).__name__ in _CLOSED:
            return True
        error = error.__cause__ or error.__context__
    return False


def _load_messages() -> tuple[Any, Any]:
    """LiteLLM's translator between the Messages API and chat completions, and that of a stream's parts."""
    from litellm.llms.anthropic.messages.adapters import (  # noqa: PLC0415
        streaming_iterator,
        transformation,
    )

    return transformation.AnthropicAdapter(), streaming_iterator.AnthropicStreamWrapper


def _load() -> Any:
    """LiteLLM, which takes seconds to import, without what it does unasked: it fetches a list of prices, reads a
    .env, and says on the terminal and in the log what went wrong, prompts included.
    """
    os.environ["LITELLM_OFFLINE_MODE"] = "true"
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    os.environ["LITELLM_MODE"] = "PRODUCTION"
    import litellm  # noqa: PLC0415

    litellm.telemetry = False
    litellm.suppress_debug_info = True
    for name in ("LiteLLM", "LiteLLM Router", "LiteLLM Proxy", "httpx", "openai"):
        quiet = logging.getLogger(name)
        quiet.handlers.clear()
        quiet.setLevel(logging.CRITICAL)
    _leave_out_books()
    return litellm


@functools.cache
def _leave_out_books() -> None:
    """Takes LiteLLM's own books out of the calls made here: it looks up the price of each answer several times,
    and writes a record of it for callbacks, which nobody can register in a gateway. That is a third of what a
    call costs, and Pointsman keeps books itself. Who else calls LiteLLM in the process has them as always.
    """
    from litellm.litellm_core_utils.litellm_logging import Logging  # noqa: PLC0415

    async def nothing_soon() -> None:
        return None

    def leave_out(name: str, instead: Callable[[], Any]) -> None:
        whole = getattr(Logging, name)

        @functools.wraps(whole)
        def method(self: Any, *args: Any, **kwargs: Any) -> Any:
            return instead() if _OWN_CALL.get() else whole(self, *args, **kwargs)

        setattr(Logging, name, method)

    leave_out("response_cost_calculator", lambda: None)
    leave_out("async_success_handler", nothing_soon)
    leave_out("dispatch_success_handlers", nothing_soon)


def _plain(message: Any) -> dict[str, Any]:
    """The message as JSON has it, without what LiteLLM keeps for itself."""
    found: dict[str, Any] = (
        message
        if isinstance(message, dict)
        else message.model_dump(mode="json", exclude_none=True, warnings=False)
    )
    for name in ("_hidden_params", "provider_specific_fields", "_response_headers"):
        found.pop(name, None)
    for choice in found.get("choices") or ():
        # Null is what OpenAI says here, and clients look for it.
        choice.setdefault("finish_reason", None)
        choice.pop("provider_specific_fields", None)
        if "message" in choice:
            choice["message"].setdefault("content", None)
    return found


async def first_part(parts: AsyncIterator[dict[str, Any]], api: Api) -> list[dict[str, Any]]:
    """The parts up to the first that says something: until then another model can still take over."""
    found: list[dict[str, Any]] = []
    async for part in parts:
        found.append(part)
        if says_something(part, api):
            return found
    if not found:
        raise ProviderError(Failure.UNAVAILABLE, "the stream ended before it began")
    return found


def says_something(part: Mapping[str, Any], api: Api) -> bool:
    """Whether a part of a stream has anything of the answer in it."""
    if api == "responses":
        kind = str(part.get("type", ""))
        return kind.endswith(".delta") or kind in ("response.completed", "response.incomplete", "response.failed")
    if api == "messages":
        begun = part["content_block"].get("type") if part.get("type") == "content_block_start" else "text"
        return part.get("type") in ("content_block_delta", "message_delta") or begun != "text"
    for choice in part.get("choices") or ():
        delta = choice.get("delta") or {}
        if choice.get("finish_reason") or any(value for name, value in delta.items() if name != "role"):
            return True
    return False
