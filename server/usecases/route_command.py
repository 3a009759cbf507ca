"""A request to route, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from policy.choices import Constraints, Preference
from policy.domain import (
    TOKENS_MAX,
    WORTH_USD_MAX,
    WORTH_USD_MIN,
    InvalidFieldError,
    RouterMode,
    require_number,
    require_text,
)
from policy.quick import quick
from server.errors import ModelNotFoundError
from server.registry import RouterEntry

PROMPT_BYTES_MAX = 1 << 20
ID_LENGTH_MAX = 128
NAMES_MAX = 1000
CAPABILITIES_MAX = 64
CAPABILITY_LENGTH_MAX = 64
FEATURES_MAX = 256
FEATURE_NAME_LENGTH_MAX = 256


@quick
@dataclass(frozen=True, slots=True)
class RouteCommand:
    """A request to route, as the caller made it. Models are named by their ids."""

    router_id: str
    request_id: str = ""
    prompt: str = ""
    embedding: Sequence[float] = ()
    numeric_features: Mapping[str, float] = field(default_factory=dict)
    categorical_features: Mapping[str, str] = field(default_factory=dict)
    allowed_models: Sequence[str] = ()
    denied_models: Sequence[str] = ()
    required_capabilities: Sequence[str] = ()
    max_cost_usd: float | None = None
    max_latency_seconds: float | None = None
    preference: Preference = Preference()
    input_tokens: int = 0
    max_output_tokens: int = 0
    session_id: str = ""
    incumbent_model: str = ""
    defer_activation: bool = False

    @property
    def constraints(self) -> Constraints:
        """What the chosen model must satisfy."""
        return Constraints(
            frozenset(self.allowed_models) if self.allowed_models else None,
            frozenset(self.denied_models),
            frozenset(self.required_capabilities),
            self.max_cost_usd,
            self.max_latency_seconds,
        )


def check_command(command: RouteCommand) -> None:
    """Raises InvalidFieldError for what is wrong whatever the router."""
    check_prompt(command.prompt)
    require_text("request_id", command.request_id, ID_LENGTH_MAX)
    require_text("session_id", command.session_id, ID_LENGTH_MAX)
    _require_at_most("allowed_models", command.allowed_models, NAMES_MAX)
    _require_at_most("denied_models", command.denied_models, NAMES_MAX)
    _require_at_most("required_capabilities", command.required_capabilities, CAPABILITIES_MAX)
    for capability in command.required_capabilities:
        if not capability or len(capability) > CAPABILITY_LENGTH_MAX:
            raise InvalidFieldError(
                "constraints.required_capabilities", f"must be of 1 to {CAPABILITY_LENGTH_MAX} characters each"
            )
    require_number("input_tokens", command.input_tokens, 0, TOKENS_MAX)
    require_number("max_output_tokens", command.max_output_tokens, 0, TOKENS_MAX)
    if command.max_cost_usd is not None:
        require_number("constraints.max_cost_usd", command.max_cost_usd, 0)
    if command.max_latency_seconds is not None:
        require_number("constraints.max_latency", command.max_latency_seconds, 0)
    if command.preference.quality_value_usd is not None:
        value = command.preference.quality_value_usd
        require_number("preference.quality_value_usd", value, WORTH_USD_MIN, WORTH_USD_MAX)
    if command.preference.latency_usd_per_second is not None:
        price = command.preference.latency_usd_per_second
        require_number("preference.latency_usd_per_second", price, 0, WORTH_USD_MAX)
    check_features(command.numeric_features, command.categorical_features)


def _require_at_most(name: str, values: Sequence[str], most: int) -> None:
    if len(values) > most:
        raise InvalidFieldError(f"constraints.{name}", f"must be at most {most:,}")


def check_prompt(prompt: str) -> None:
    """Raises InvalidFieldError for a prompt that is too long."""
    # No character has more than four bytes, so that the usual prompt need not be encoded.
    if 4 * len(prompt) > PROMPT_BYTES_MAX and len(prompt.encode()) > PROMPT_BYTES_MAX:
        raise InvalidFieldError(
            "prompt",
            f"must be at most {PROMPT_BYTES_MAX:,} bytes; send its beginning, or an embedding",
        )


def check_features(numeric: Mapping[str, float], categorical: Mapping[str, str]) -> None:
    """Raises InvalidFieldError for features of the caller's that cannot be taken."""
    for name, features in (("numeric_features", numeric), ("categorical_features", categorical)):
        if len(features) > FEATURES_MAX:
            raise InvalidFieldError(name, f"must be at most {FEATURES_MAX}")
        for key in features:
            if len(key) > FEATURE_NAME_LENGTH_MAX:
                raise InvalidFieldError(name, f"names must be at most {FEATURE_NAME_LENGTH_MAX} characters")
    for key, value in numeric.items():
        require_number(f"numeric_features[{key}]", value, -1e6, 1e6)
    for key, text in categorical.items():
        if len(text) > FEATURE_NAME_LENGTH_MAX:
            raise InvalidFieldError(
                f"categorical_features[{key}]",
                f"must be at most {FEATURE_NAME_LENGTH_MAX} characters",
            )


def check_models(command: RouteCommand, entry: RouterEntry) -> None:
    """Raises for a named model that the router never had; one that was removed is simply not there."""
    named = {
        "constraints.allowed_models": command.allowed_models,
        "constraints.denied_models": command.denied_models,
        "incumbent_model": [command.incumbent_model] if command.incumbent_model else [],
    }
    for name, ids in named.items():
        for model_id in ids:
            if model_id not in entry.by_id and model_id not in entry.removed_models:
                raise ModelNotFoundError(entry.router.id, model_id[:160], name)
    if entry.router.spec.mode is RouterMode.SHADOW and command.incumbent_model not in entry.by_id:
        raise InvalidFieldError(
            "incumbent_model",
            f"must name a present model, since routers/{entry.router.id} is in shadow mode",
        )
