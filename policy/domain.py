"""The words everything else is said in: routers, models, queries, and what a decision consists of."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
Features = npt.NDArray[np.float32]

DEFAULT_ROUTER = "default"
DEFAULT_QUALITY_VALUE_USD = 0.05
DEFAULT_EMBEDDING_DIMENSIONS = 256
MODELS_PER_ROUTER_MAX = 128
EMBEDDING_DIMENSIONS_MAX = 4096
CAPABILITIES_MAX = 64
SIGNAL_NAME_LENGTH_MAX = 128
WINDOW_SECONDS_MAX = 90 * 86_400.0
PAID_SHADOW_SHARE_MAX = 0.2
TOKENS_MAX = 1_000_000_000
# What is divided by, and compared with the costs of calls: beyond these such numbers overflow.
WORTH_USD_MIN, WORTH_USD_MAX = 1e-12, 1e12
_CACHED_PRICE_SHARE = 0.1


_BUDGETS = ("budget_usd_per_request", "budget_usd_per_day", "budget_usd_per_month")
_ROUTER_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}\Z")
MODEL_ID_LENGTH_MAX = 127
_MODEL_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._\-/:@]{0,126}\Z")


class InvalidFieldError(ValueError):
    """A value that cannot be taken; `field` is its path and the message says what would be right."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message


def require_number(field: str, value: float, low: float, high: float = math.inf, *, above: bool = False) -> None:
    """Raises InvalidFieldError unless `value` is finite and in [low, high], or in (low, high] if `above`."""
    # An int may be too large for a float; such a one is out of any range.
    if (
        (isinstance(value, int) or math.isfinite(value))
        and (value > low if above else value >= low)
        and value <= high
    ):
        return
    bound = f"above {low:g}" if above else f"{low:g} or more"
    bound += f", at most {high:g}" if math.isfinite(high) else ""
    raise InvalidFieldError(field, f"must be a finite number {bound}, not {value!r}")


def require_text(field: str, value: str, length_max: int) -> None:
    """Raises InvalidFieldError for a text that is too long, or has a NUL, which not every database can keep."""
    if len(value) > length_max:
        raise InvalidFieldError(field, f"must be at most {length_max:,} characters")
    if "\0" in value:
        raise InvalidFieldError(field, "must not have a NUL character in it")


def require_router_id(field: str, value: str) -> None:
    """Raises InvalidFieldError unless `value` can name a router."""
    if not _ROUTER_ID.match(value):
        raise InvalidFieldError(
            field,
            "must be 1 to 63 letters, digits, '.', '_' or '-', beginning with a letter or digit, "
            f"not {value[:80]!r}",
        )


def require_model_id(field: str, value: str) -> None:
    """Raises InvalidFieldError unless `value` can name a model."""
    if not _MODEL_ID.match(value):
        raise InvalidFieldError(
            field,
            "must be 1 to 127 letters, digits, '.', '_', '-', '/', ':' or '@', beginning with a "
            f"letter or digit, not {value[:160]!r}",
        )


class ModelState(StrEnum):
    ACTIVE = "active"
    DISABLED = "disabled"


class LearnerKind(StrEnum):
    RIDGE = "ridge"
    VOWPAL_WABBIT = "vowpal_wabbit"


class RouterMode(StrEnum):
    LIVE = "live"
    SHADOW = "shadow"


class Period(StrEnum):
    """A calendar day or month, in UTC."""

    DAY = "day"
    MONTH = "month"


class RewardJoin(StrEnum):
    """What the rewards that are reported of one decision and one model come to."""

    FIRST = "first"
    LAST = "last"
    MEAN = "mean"
    WEIGHTED = "weighted"


class ModelError(StrEnum):
    """Why a call failed. Only the first three count against a model's health."""

    UNAVAILABLE = "unavailable"
    TIMEOUT = "timeout"
    RATE_LIMITED = "rate_limited"
    REFUSED = "refused"
    INVALID_OUTPUT = "invalid_output"

    @property
    def is_outage(self) -> bool:
        return self in (
            ModelError.UNAVAILABLE,
            ModelError.TIMEOUT,
            ModelError.RATE_LIMITED,
        )


@dataclass(frozen=True, slots=True)
class Prices:
    """What a call costs; all zero means that only reports tell.

    Input that the provider has in its prompt cache costs `cached_input_usd_per_million_tokens`; None is a
    tenth of the input price, which most providers ask.
    """

    input_usd_per_million_tokens: float = 0.0
    output_usd_per_million_tokens: float = 0.0
    usd_per_request: float = 0.0
    cached_input_usd_per_million_tokens: float | None = None

    def __post_init__(self) -> None:
        for name in (
            "input_usd_per_million_tokens",
            "output_usd_per_million_tokens",
            "usd_per_request",
        ):
            require_number(f"prices.{name}", getattr(self, name), 0.0, 1e6)
        if self.cached_input_usd_per_million_tokens is not None:
            require_number(
                "prices.cached_input_usd_per_million_tokens",
                self.cached_input_usd_per_million_tokens,
                0.0,
                self.input_usd_per_million_tokens,
            )

    @property
    def known(self) -> bool:
        return bool(
            self.input_usd_per_million_tokens or self.output_usd_per_million_tokens or self.usd_per_request
        )

    @property
    def saved_usd_per_cached_token(self) -> float:
        """What an input token costs less when it is in the provider's cache."""
        cached = self.cached_input_usd_per_million_tokens
        if cached is None:
            cached = _CACHED_PRICE_SHARE * self.input_usd_per_million_tokens
        return (self.input_usd_per_million_tokens - cached) * 1e-6

    def cost_usd(self, input_tokens: float, output_tokens: float, cached_input_tokens: float = 0.0) -> float:
        """The cost of one call in USD; of the input tokens, so many were in the provider's cache."""
        tokens = (
            self.input_usd_per_million_tokens * input_tokens + self.output_usd_per_million_tokens * output_tokens
        ) * 1e-6
        return tokens - self.saved_usd_per_cached_token * cached_input_tokens + self.usd_per_request


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What the registry says of a model."""

    display_name: str = ""
    prices: Prices = Prices()
    context_window_tokens: int = 0
    capabilities: tuple[str, ...] = ()
    state: ModelState = ModelState.ACTIVE

    def __post_init__(self) -> None:
        require_number("context_window_tokens", self.context_window_tokens, 0, TOKENS_MAX)
        if len(self.capabilities) > CAPABILITIES_MAX:
            raise InvalidFieldError("capabilities", f"must be at most {CAPABILITIES_MAX}")
        if any(not capability or len(capability) > 64 for capability in self.capabilities):
            raise InvalidFieldError("capabilities", "must be of 1 to 64 characters each")
        if len(self.display_name) > 256:
            raise InvalidFieldError("display_name", "must be at most 256 characters")


@dataclass(frozen=True, slots=True)
class Objective:
    """What a router is after: a budget, one at most, or what quality is worth, or both."""

    budget_usd_per_request: float | None = None
    quality_value_usd: float | None = None
    latency_usd_per_second: float = 0.0
    budget_usd_per_day: float | None = None
    budget_usd_per_month: float | None = None

    def __post_init__(self) -> None:
        for name in (*_BUDGETS, "quality_value_usd"):
            value = getattr(self, name)
            if value is not None:
                require_number(f"objective.{name}", value, WORTH_USD_MIN, WORTH_USD_MAX)
        require_number("objective.latency_usd_per_second", self.latency_usd_per_second, 0, WORTH_USD_MAX)
        first, *others = [name for name in _BUDGETS if getattr(self, name) is not None] or [""]
        if others:
            raise InvalidFieldError(f"objective.{others[0]}", f"cannot be set beside {first}: clear one of them")

    @property
    def budgeted(self) -> bool:
        """Whether there is a budget of any kind."""
        amounts = (self.budget_usd_per_request, self.budget_usd_per_day, self.budget_usd_per_month)
        return amounts != (None, None, None)

    @property
    def period_budget(self) -> tuple[Period, float] | None:
        """The budget of a period and its USD, None where there is none of this kind."""
        if self.budget_usd_per_day is not None:
            return Period.DAY, self.budget_usd_per_day
        if self.budget_usd_per_month is not None:
            return Period.MONTH, self.budget_usd_per_month
        return None

    @property
    def value_usd(self) -> float:
        """USD that quality from 0 to 1 is worth: infinite where only a budget is set."""
        if self.quality_value_usd is not None:
            return self.quality_value_usd
        return math.inf if self.budgeted else DEFAULT_QUALITY_VALUE_USD


@dataclass(frozen=True, slots=True)
class RewardRule:
    """How reports become the reward that is learned."""

    join_window_seconds: float = 86_400.0
    signal_weights: Mapping[str, float] = field(default_factory=dict)
    missing_reward: float | None = None
    error_reward: float | None = None
    join: RewardJoin = RewardJoin.FIRST

    def __post_init__(self) -> None:
        require_number(
            "reward_rule.join_window_seconds",
            self.join_window_seconds,
            0,
            WINDOW_SECONDS_MAX,
            above=True,
        )
        if len(self.signal_weights) > 64:
            raise InvalidFieldError("reward_rule.signal_weights", "must be at most 64")
        for name, weight in self.signal_weights.items():
            if not name or len(name) > SIGNAL_NAME_LENGTH_MAX:
                raise InvalidFieldError(
                    "reward_rule.signal_weights", f"names must be of 1 to {SIGNAL_NAME_LENGTH_MAX} characters"
                )
            require_number(f"reward_rule.signal_weights[{name}]", weight, 0, 1e6, above=True)
        for name in ("missing_reward", "error_reward"):
            value = getattr(self, name)
            if value is not None:
                require_number(f"reward_rule.{name}", value, 0, 1)


@dataclass(frozen=True, slots=True)
class Exploration:
    """How much is tried."""

    strength: float = 1.0
    burn_in_rewards: int = 10
    max_utility_loss: float = 0.01
    trial_rewards: int = 60

    def __post_init__(self) -> None:
        require_number("exploration.strength", self.strength, 0, 1e6)
        require_number("exploration.burn_in_rewards", self.burn_in_rewards, 0, 100_000)
        require_number("exploration.max_utility_loss", self.max_utility_loss, 0, 1)
        require_number("exploration.trial_rewards", self.trial_rewards, 0, 100_000)


@dataclass(frozen=True, slots=True)
class PaidShadow:
    """Second calls: in a `share` of the decisions another model is to be called as well, for a comparison of the
    two on the same query.

    They are paid for apart from the router's budget, at most `max_usd_per_day` on a calendar day in UTC. With
    `models` only these are called second. A share of 0 is off.
    """

    share: float = 0.0
    max_usd_per_day: float = 0.0
    models: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require_number("paid_shadow.share", self.share, 0, PAID_SHADOW_SHARE_MAX)
        require_number("paid_shadow.max_usd_per_day", self.max_usd_per_day, 0)
        if self.share and not self.max_usd_per_day:
            raise InvalidFieldError(
                "paid_shadow.max_usd_per_day", "must be above 0 with a share, since second calls are paid for"
            )
        if len(self.models) > MODELS_PER_ROUTER_MAX:
            raise InvalidFieldError("paid_shadow.models", f"must be at most {MODELS_PER_ROUTER_MAX}")
        for index, model in enumerate(self.models):
            require_model_id(f"paid_shadow.models[{index}]", model)


class StorageAway(StrEnum):
    """What becomes of a request to route that cannot be logged."""

    REFUSE = "refuse"
    ANSWER_UNLOGGED = "answer_unlogged"


@dataclass(frozen=True, slots=True)
class RouterSpec:
    """What the registry says of a router."""

    display_name: str = ""
    objective: Objective = Objective()
    reward_rule: RewardRule = RewardRule()
    exploration: Exploration = Exploration()
    embedding_dimensions: int = DEFAULT_EMBEDDING_DIMENSIONS
    learner: LearnerKind = LearnerKind.RIDGE
    policy: str = "learned"
    store_prompts: bool = False
    session_ttl_seconds: float = 3600.0
    session_switch_gain: float = 0.05
    mode: RouterMode = RouterMode.LIVE
    shadow_explore_share: float = 0.0
    paid_shadow: PaidShadow = PaidShadow()
    storage_away: StorageAway = StorageAway.REFUSE

    def __post_init__(self) -> None:
        require_number(
            "embedding_dimensions",
            self.embedding_dimensions,
            1,
            EMBEDDING_DIMENSIONS_MAX,
        )
        require_number("session_ttl_seconds", self.session_ttl_seconds, 0, WINDOW_SECONDS_MAX)
        require_number("session_switch_gain", self.session_switch_gain, 0, 1e6)
        require_number("shadow_explore_share", self.shadow_explore_share, 0, 1)
        if len(self.display_name) > 256:
            raise InvalidFieldError("display_name", "must be at most 256 characters")


@dataclass(frozen=True, slots=True)
class Model:
    """A model of a router. `uid` tells two models of the same id apart when one was deleted and added again."""

    id: str
    uid: int
    spec: ModelSpec
    key: str = field(init=False, repr=False, compare=False)
    """The name that learners know the model by."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", f"{self.id}#{self.uid}")


@dataclass(frozen=True, slots=True)
class Router:
    """A router with its models, in the order they were added, as one decision sees it.

    `uid` is the position in the log that created it: decisions before that were another router's.
    """

    id: str
    spec: RouterSpec
    models: tuple[Model, ...] = ()
    uid: int = 0
