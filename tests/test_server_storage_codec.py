"""What is written down reads back as it was."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from servers import draft_decision, draft_report, hex_id

from policy.choices import Candidate, Choice, Exclusion, Shadow
from policy.domain import (
    Exploration,
    InvalidFieldError,
    LearnerKind,
    Model,
    ModelError,
    ModelSpec,
    ModelState,
    Objective,
    Prices,
    RewardJoin,
    RewardRule,
    Router,
    RouterMode,
    RouterSpec,
)
from policy.log import DecisionRecord, Usage
from server.storage.codec import (
    decision_row,
    dump_router,
    dump_spec,
    load_decision,
    load_model_spec,
    load_report,
    load_router,
    load_router_spec,
    parse_spec,
    report_row,
)

ROUTER_SPEC = RouterSpec(
    display_name="Ünïcode ☃",
    objective=Objective(None, 1e-7, 1 / 3, 0.1 + 0.2),
    reward_rule=RewardRule(123.456, {"thumbs": 0.1, "edit": 2.0}, 0.0, 0.25, RewardJoin.MEAN),
    exploration=Exploration(0.3, 7, 0.02, 33),
    embedding_dimensions=17,
    learner=LearnerKind.VOWPAL_WABBIT,
    policy="fixed:openai/gpt-4o",
    store_prompts=True,
    session_ttl_seconds=1.5,
    mode=RouterMode.SHADOW,
)
MODEL_SPEC = ModelSpec("M", Prices(0.1, 1 / 3, 1e-9), 128_000, ("tools", "json"), ModelState.DISABLED)


def test_a_decision_with_everything_set_reads_back_equal() -> None:
    excluded = Candidate("c", 0.0, 0.1, 1 / 3, 2.0, -1e300, Exclusion.COST_LIMIT, "too dear: ≥ 1")
    drawn = Candidate("openai/gpt-4o", 0.1 + 0.2, 0.7, 1e-300, 0.5, 0.123456789012345678)
    shadow = Shadow("c", 1 / 3, (0.1 + 0.2, 0.7))
    choice = Choice(
        "openai/gpt-4o", 0.1 + 0.2, (drawn, excluded), ("b",), "learned", 9, 1 / 7, True, "b", True, shadow
    )
    features = np.random.default_rng(5).normal(size=57).astype(np.float32)
    record = DecisionRecord(
        3,
        10,
        20,
        "r",
        hex_id(1),
        choice,
        features,
        1.25,
        4,
        5,
        True,
        True,
        "req",
        "ses",
        "inc",
        "v1",
        "prompt\0 ☃",
        7,
        {"tenant": "acmé\0"},
        {"turns": 1 / 3},
    )
    loaded = load_decision(SimpleNamespace(**decision_row(record)))
    assert loaded.features.tobytes() == features.tobytes()
    for name in DecisionRecord.__dataclass_fields__:
        if name != "features":
            assert getattr(loaded, name) == getattr(record, name), name


def test_a_decision_with_nothing_optional_reads_back_without_it() -> None:
    loaded = load_decision(SimpleNamespace(**decision_row(draft_decision(hex_id(2)))))
    assert (loaded.request_id, loaded.session_id, loaded.prompt) == ("", "", None)


def test_a_prompt_that_is_stored_though_empty_differs_from_one_that_is_not_stored() -> None:
    loaded = load_decision(SimpleNamespace(**decision_row(draft_decision(hex_id(2), prompt=""))))
    assert loaded.prompt == ""


def test_a_report_with_everything_set_reads_back_equal() -> None:
    report = draft_report(
        hex_id(1),
        report_id="r-1",
        reward=0.1 + 0.2,
        signals={"thumbs": 1 / 3, "☃": -5.0},
        usage=Usage(10, 20, 1e-9),
        latency_seconds=0.25,
        served_model="b",
        error=ModelError.RATE_LIMITED,
        event_time_us=17,
        late=True,
        activation=False,
        subject="b",
        learned_reward=0.3,
        replaces_reward=0.0,
        replaces_seq=41,
        charged_usd=0.4,
        settles=True,
        activates=True,
    )
    assert load_report(SimpleNamespace(**report_row(report))) == report


@pytest.mark.parametrize("usage", [None, Usage(0, 0, None), Usage(0, 0, 0.0)])
def test_no_usage_and_usage_of_nothing_are_told_apart(usage: Usage | None) -> None:
    report = draft_report(hex_id(1), reward=0.0, usage=usage)
    assert load_report(SimpleNamespace(**report_row(report))).usage == usage


def test_specs_and_routers_read_back_equal() -> None:
    router = Router("r", ROUTER_SPEC, (Model("a", 1, ModelSpec()), Model("openai/gpt-4o", 7, MODEL_SPEC)))
    assert load_router(dump_router(router)) == router
    assert load_router_spec(dump_spec(ROUTER_SPEC)) == ROUTER_SPEC
    assert load_model_spec(dump_spec(MODEL_SPEC)) == MODEL_SPEC
    assert load_router_spec(dump_spec(RouterSpec())) == RouterSpec()


def test_a_spec_written_before_there_were_budgets_of_periods_reads_back_without_one() -> None:
    text = dump_spec(RouterSpec(objective=Objective(0.5)))
    older = text.replace(',"budget_usd_per_day":null,"budget_usd_per_month":null', "")
    assert older != text
    assert load_router_spec(older).objective == Objective(0.5)


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"colour": "red"}, "colour"),
        ({"prices": {"input": 3}}, "prices.input"),
        ({"prices": {"usd_per_request": "cheap"}}, "prices.usd_per_request"),
        ({"state": "asleep"}, "state"),
    ],
)
def test_a_written_spec_that_is_wrong_names_the_field(values: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidFieldError) as caught:
        parse_spec(ModelSpec, values)
    assert caught.value.field == field
