"""One request to route, and what was chosen for it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from policy.domain import Features
from policy.quick import quick

IMPORTED = "imported"
"""The policy of a decision that was made elsewhere; no router can have it."""


class Exclusion(Enum):
    """Why a model was not a candidate."""

    DISABLED = "disabled"
    UNHEALTHY = "unhealthy"
    NOT_ALLOWED = "not_allowed"
    DENIED = "denied"
    MISSING_CAPABILITY = "missing_capability"
    CONTEXT_WINDOW = "context_window"
    COST_LIMIT = "cost_limit"
    LATENCY_LIMIT = "latency_limit"


@quick
@dataclass(frozen=True, slots=True)
class Constraints:
    """What the chosen model must satisfy."""

    allowed_models: frozenset[str] | None = None
    denied_models: frozenset[str] = frozenset()
    required_capabilities: frozenset[str] = frozenset()
    max_cost_usd: float | None = None
    max_latency_seconds: float | None = None


@quick
@dataclass(frozen=True, slots=True)
class Preference:
    """What one request is worth, where it differs from the router's objective."""

    quality_value_usd: float | None = None
    latency_usd_per_second: float | None = None
    exploit_only: bool = False


@quick
@dataclass(frozen=True, slots=True)
class Query:
    """One request as the policy sees it."""

    features: Features
    input_tokens: int = 0
    prompt_tokens: float = 0.0
    max_output_tokens: int = 0
    constraints: Constraints = Constraints()
    preference: Preference = Preference()

    @property
    def charged_input_tokens(self) -> float:
        """What the caller said of the input's length, or else the estimate from the prompt."""
        return self.input_tokens or self.prompt_tokens


@quick
@dataclass(frozen=True, slots=True)
class Turn:
    """The last decision of a session: the model it chose, and the input tokens that are in its cache since."""

    model: str
    input_tokens: float


@quick
@dataclass(frozen=True, slots=True)
class Candidate:
    """One model as a decision saw it."""

    model: str
    probability: float
    quality: float
    cost_usd: float
    latency_seconds: float
    score: float
    exclusion: Exclusion | None = None
    exclusion_detail: str = ""


@quick
@dataclass(frozen=True, slots=True)
class Shadow:
    """How a decision in shadow mode came about; `policy.shadow` draws by it.

    `explore_share` is the probability with which the policy's draw was taken instead of the incumbent, and
    `proposal` (candidates,) are the policy's own probabilities, in the order of the candidates.
    """

    incumbent_model: str
    explore_share: float
    proposal: tuple[float, ...]


@quick
@dataclass(frozen=True, slots=True)
class Second:
    """The offer of a second call that a decision made; `policy.second` draws by it.

    With probability `share` there was to be one, of a model drawn by `pool` (candidates,), which has a sum of 1.
    It is 0 for the model that was chosen, unless no other could be called: then it is certain, and its one call
    stands for both. `model` is empty where the draw gave none, and where the day's money was used up (`capped`).
    `most_usd` is what the dearest model was predicted to cost that might have been called, whichever was chosen.
    """

    share: float
    pool: tuple[float, ...]
    most_usd: float
    model: str = ""
    capped: bool = False


@quick
@dataclass(frozen=True, slots=True)
class Choice:
    """What a decision came to: the model, its propensity, and all that led there.

    `probability` is in (0, 1]; 0 says that it is not known, which only an imported decision's may be, and
    such a one tells nothing of another policy. `probe` says that the model is called to see whether it works
    again: see `policy.circuit`. `shadow` is of decisions in shadow mode; None in those of the log that are
    older than it. `second` is None where no second call could be offered.
    """

    model: str
    probability: float
    candidates: tuple[Candidate, ...]
    fallbacks: tuple[str, ...]
    policy: str
    snapshot: int
    price_of_money: float
    sticky: bool = False
    proposed_model: str = ""
    probe: bool = False
    shadow: Shadow | None = None
    second: Second | None = None

    @property
    def imported(self) -> bool:
        """Whether it was made elsewhere, by whatever policy was in force there."""
        return self.policy == IMPORTED

    @property
    def chosen(self) -> Candidate:
        """The candidate that was chosen."""
        for each in self.candidates:
            if each.model == self.model:
                return each
        raise LookupError(f"{self.model} is no candidate")

    @property
    def predicted_cost_usd(self) -> float:
        """What the call was predicted to cost, in USD."""
        return self.chosen.cost_usd

    @property
    def second_model(self) -> str:
        """The model that is to be called as well; empty where none is."""
        return self.second.model if self.second and self.second.model != self.model else ""

    @property
    def second_probability(self) -> float:
        """With what probability that model was named, once the first was chosen; 0 where none was."""
        if self.second is None or not self.second_model:
            return 0.0
        names = [each.model for each in self.candidates]
        return self.second.share * self.second.pool[names.index(self.second_model)]

    @property
    def second_cost_usd(self) -> float:
        """What the second call was predicted to cost, in USD; 0 where there is none."""
        return next((each.cost_usd for each in self.candidates if each.model == self.second_model), 0.0)
