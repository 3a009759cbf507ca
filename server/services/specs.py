"""Specs of routers and models on the wire."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pointsman.v1 import registry_service_pb2 as pb

from policy.domain import (
    Exploration,
    InvalidFieldError,
    LearnerKind,
    ModelSpec,
    ModelState,
    Objective,
    PaidShadow,
    Prices,
    RewardJoin,
    RewardRule,
    RouterMode,
    RouterSpec,
    StorageAway,
)
from server.services.times import duration, seconds

LEARNERS = {
    pb.LEARNER_UNSPECIFIED: LearnerKind.RIDGE,
    pb.LEARNER_RIDGE: LearnerKind.RIDGE,
    pb.LEARNER_VOWPAL_WABBIT: LearnerKind.VOWPAL_WABBIT,
}
_MODES = {
    pb.ROUTER_MODE_UNSPECIFIED: RouterMode.LIVE,
    pb.ROUTER_MODE_LIVE: RouterMode.LIVE,
    pb.ROUTER_MODE_SHADOW: RouterMode.SHADOW,
}
_JOINS = {
    pb.REWARD_JOIN_UNSPECIFIED: RewardJoin.FIRST,
    pb.REWARD_JOIN_FIRST: RewardJoin.FIRST,
    pb.REWARD_JOIN_LAST: RewardJoin.LAST,
    pb.REWARD_JOIN_MEAN: RewardJoin.MEAN,
    pb.REWARD_JOIN_WEIGHTED: RewardJoin.WEIGHTED,
}
_STORAGE_AWAY = {
    pb.STORAGE_AWAY_UNSPECIFIED: StorageAway.REFUSE,
    pb.STORAGE_AWAY_REFUSE: StorageAway.REFUSE,
    pb.STORAGE_AWAY_ANSWER_UNLOGGED: StorageAway.ANSWER_UNLOGGED,
}
_STATES = {
    pb.MODEL_STATE_UNSPECIFIED: ModelState.ACTIVE,
    pb.MODEL_STATE_ACTIVE: ModelState.ACTIVE,
    pb.MODEL_STATE_DISABLED: ModelState.DISABLED,
}
# Where a field has another path on the wire than in the spec, which the file of routers is written after.
_WIRE_FIELDS = {
    "reward_rule.join_window_seconds": "reward_rule.join_window",
    "embedding_dimensions": "features.embedding_dimensions",
    "session_ttl_seconds": "session_ttl",
}
# Of two values that mean the same the later one, which says so explicitly, is given back.
LEARNER_VALUES = {kind: value for value, kind in LEARNERS.items()}
_MODE_VALUES = {mode: value for value, mode in _MODES.items()}
_JOIN_VALUES = {join: value for value, join in _JOINS.items()}
_STORAGE_AWAY_VALUES = {away: value for value, away in _STORAGE_AWAY.items()}
_STATE_VALUES = {state: value for value, state in _STATES.items()}


def router_spec_from_proto(message: pb.Router) -> RouterSpec:
    """The spec of a router. Raises InvalidFieldError with the field's path on the wire."""
    with wire_fields():
        return _router_spec(message)


@contextmanager
def wire_fields() -> Iterator[None]:
    """Gives an InvalidFieldError about a router's spec the field's path on the wire."""
    try:
        yield
    except InvalidFieldError as error:
        raise InvalidFieldError(_WIRE_FIELDS.get(error.field, error.field), error.message) from error


def _router_spec(message: pb.Router) -> RouterSpec:
    if message.learner not in LEARNERS:
        raise InvalidFieldError("learner", f"must be a LEARNER value, not {message.learner}")
    if message.mode not in _MODES:
        raise InvalidFieldError("mode", f"must be a ROUTER_MODE value, not {message.mode}")
    if message.storage_away not in _STORAGE_AWAY:
        raise InvalidFieldError("storage_away", f"must be a STORAGE_AWAY value, not {message.storage_away}")
    default = RouterSpec()
    return RouterSpec(
        display_name=message.display_name,
        objective=objective_from_proto(message.objective),
        reward_rule=_reward_rule(message.reward_rule),
        exploration=exploration_from_proto(message.exploration),
        embedding_dimensions=message.features.embedding_dimensions or default.embedding_dimensions,
        learner=LEARNERS[message.learner],
        policy=message.policy or default.policy,
        store_prompts=message.store_prompts,
        session_ttl_seconds=(
            seconds(message.session_ttl) if message.HasField("session_ttl") else default.session_ttl_seconds
        ),
        session_switch_gain=(
            message.session_switch_gain if message.HasField("session_switch_gain") else default.session_switch_gain
        ),
        mode=_MODES[message.mode],
        shadow_explore_share=message.shadow_explore_share,
        paid_shadow=_paid_shadow(message.paid_shadow),
        storage_away=_STORAGE_AWAY[message.storage_away],
    )


def _paid_shadow(message: pb.PaidShadow) -> PaidShadow:
    for index, name in enumerate(message.models):
        if name.startswith("routers/"):
            raise InvalidFieldError(
                f"paid_shadow.models[{index}]", f"must be the id of one of the router's models, not {name[:160]!r}"
            )
    return PaidShadow(message.share, message.max_usd_per_day, tuple(message.models))


def objective_from_proto(message: pb.Objective) -> Objective:
    """What a router or a policy is after. Raises InvalidFieldError."""
    return Objective(
        message.budget_usd_per_request if message.HasField("budget_usd_per_request") else None,
        message.quality_value_usd if message.HasField("quality_value_usd") else None,
        message.latency_usd_per_second,
        message.budget_usd_per_day if message.HasField("budget_usd_per_day") else None,
        message.budget_usd_per_month if message.HasField("budget_usd_per_month") else None,
    )


def _reward_rule(message: pb.RewardRule) -> RewardRule:
    if message.join not in _JOINS:
        raise InvalidFieldError("reward_rule.join", f"must be a REWARD_JOIN value, not {message.join}")
    default = RewardRule()
    return RewardRule(
        seconds(message.join_window) if message.HasField("join_window") else default.join_window_seconds,
        dict(message.signal_weights),
        message.missing_reward if message.HasField("missing_reward") else None,
        message.error_reward if message.HasField("error_reward") else None,
        _JOINS[message.join],
    )


def exploration_from_proto(message: pb.Exploration) -> Exploration:
    """How much is tried; the defaults where nothing is said. Raises InvalidFieldError."""
    default = Exploration()
    return Exploration(
        message.strength if message.HasField("strength") else default.strength,
        message.burn_in_rewards if message.HasField("burn_in_rewards") else default.burn_in_rewards,
        message.max_utility_loss if message.HasField("max_utility_loss") else default.max_utility_loss,
        message.trial_rewards if message.HasField("trial_rewards") else default.trial_rewards,
    )


def objective_to_proto(objective: Objective) -> pb.Objective:
    """What a router or a policy is after."""
    return pb.Objective(
        budget_usd_per_request=objective.budget_usd_per_request,
        quality_value_usd=objective.quality_value_usd,
        latency_usd_per_second=objective.latency_usd_per_second,
        budget_usd_per_day=objective.budget_usd_per_day,
        budget_usd_per_month=objective.budget_usd_per_month,
    )


def exploration_to_proto(exploration: Exploration) -> pb.Exploration:
    """How much is tried."""
    return pb.Exploration(
        strength=exploration.strength,
        burn_in_rewards=exploration.burn_in_rewards,
        max_utility_loss=exploration.max_utility_loss,
        trial_rewards=exploration.trial_rewards,
    )


def router_spec_to_proto(spec: RouterSpec) -> pb.Router:
    """The spec of a router, every default spelled out."""
    rule = pb.RewardRule(
        join_window=duration(spec.reward_rule.join_window_seconds),
        signal_weights=spec.reward_rule.signal_weights,
        missing_reward=spec.reward_rule.missing_reward,
        error_reward=spec.reward_rule.error_reward,
        join=_JOIN_VALUES[spec.reward_rule.join],
    )
    return pb.Router(
        display_name=spec.display_name,
        objective=objective_to_proto(spec.objective),
        reward_rule=rule,
        exploration=exploration_to_proto(spec.exploration),
        features=pb.Features(embedding_dimensions=spec.embedding_dimensions),
        learner=LEARNER_VALUES[spec.learner],
        policy=spec.policy,
        store_prompts=spec.store_prompts,
        session_ttl=duration(spec.session_ttl_seconds),
        session_switch_gain=spec.session_switch_gain,
        mode=_MODE_VALUES[spec.mode],
        shadow_explore_share=spec.shadow_explore_share,
        paid_shadow=pb.PaidShadow(
            share=spec.paid_shadow.share,
            max_usd_per_day=spec.paid_shadow.max_usd_per_day,
            models=spec.paid_shadow.models,
        ),
        storage_away=_STORAGE_AWAY_VALUES[spec.storage_away],
    )


def model_spec_from_proto(message: pb.Model) -> ModelSpec:
    """The spec of a model. Raises InvalidFieldError."""
    if message.state not in _STATES:
        raise InvalidFieldError("state", f"must be a MODEL_STATE value, not {message.state}")
    return ModelSpec(
        display_name=message.display_name,
        prices=Prices(
            message.prices.input_usd_per_million_tokens,
            message.prices.output_usd_per_million_tokens,
            message.prices.usd_per_request,
            (
                message.prices.cached_input_usd_per_million_tokens
                if message.prices.HasField("cached_input_usd_per_million_tokens")
                else None
            ),
        ),
        context_window_tokens=message.context_window_tokens,
        capabilities=tuple(message.capabilities),
        state=_STATES[message.state],
    )


def model_spec_to_proto(spec: ModelSpec) -> pb.Model:
    """The spec of a model."""
    return pb.Model(
        display_name=spec.display_name,
        prices=pb.Prices(
            input_usd_per_million_tokens=spec.prices.input_usd_per_million_tokens,
            output_usd_per_million_tokens=spec.prices.output_usd_per_million_tokens,
            usd_per_request=spec.prices.usd_per_request,
            cached_input_usd_per_million_tokens=spec.prices.cached_input_usd_per_million_tokens,
        ),
        context_window_tokens=spec.context_window_tokens,
        capabilities=spec.capabilities,
        state=_STATE_VALUES[spec.state],
    )
