"""The join: which of a decision's reports teaches, charges, settles and activates."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from random import Random
from typing import Any

import pytest
from builders import decision, model, models, raw_report, report, router
from hypothesis import given
from hypothesis import strategies as st

from policy.domain import ModelError, Prices, RewardJoin, RewardRule
from policy.join import joined, reward_of, usage_cost_usd
from policy.log import ReportRecord, Usage

BY = router(models("a", "b"))


def after(*told: dict[str, Any], deferred: bool = False) -> list[ReportRecord]:
    """These reports on one decision, each resolved after those before it."""
    made, stored = decision("a", deferred=deferred), []
    for number, each in enumerate(told):
        stored.append(report(made, BY, tuple(stored), made.seq + 1 + number, **each))
    return stored


def test_the_first_reward_is_learned_and_a_later_one_is_not() -> None:
    first, second = after({"reward": 0.25}, {"reward": 0.75})
    assert (first.learned_reward, second.learned_reward) == (0.25, None)
    assert joined(False, [first, second]).reward == 0.25


def test_usage_first_and_the_reward_days_later_belong_together() -> None:
    usage, thumbs = after({"usage": Usage(cost_usd=0.5)}, {"reward": 1.0})
    assert (usage.charged_usd, usage.learned_reward) == (0.5, None)
    assert (thumbs.charged_usd, thumbs.learned_reward) == (None, 1.0)


def test_every_usage_is_charged_and_only_the_first_settles() -> None:
    first, second = after({"usage": Usage(cost_usd=0.5)}, {"usage": Usage(cost_usd=0.25)})
    assert (first.charged_usd, first.settles) == (0.5, True)
    assert (second.charged_usd, second.settles) == (0.25, False)
    assert joined(False, [first, second]).charged_usd == 0.75


def test_a_call_that_cost_nothing_settles_its_decision() -> None:
    free, later = after({"usage": Usage(cost_usd=0.0)}, {"usage": Usage(cost_usd=0.25)})
    assert (free.charged_usd, free.settles, later.settles) == (0.0, True, False)


def test_a_late_report_makes_nothing() -> None:
    late, after_it = after({"reward": 1.0, "usage": Usage(cost_usd=1.0), "late": True}, {"reward": 0.5})
    assert (late.learned_reward, late.charged_usd, late.settles, late.activates) == (None, None, False, False)
    assert after_it.learned_reward == 0.5
    assert joined(True, [late]).active is False


def test_the_first_report_on_a_deferred_decision_makes_it_count_and_only_the_first() -> None:
    first, second = after({"activation": True}, {"reward": 0.5}, deferred=True)
    assert (first.activates, second.activates) == (True, False)
    assert joined(True, []).active is False
    assert joined(True, [first]).active is True


def test_a_decision_that_was_not_deferred_counts_without_any_report() -> None:
    assert joined(False, []).active is True
    assert after({"reward": 0.5})[0].activates is False


def test_a_report_is_about_the_model_that_served() -> None:
    chosen, other = after({"reward": 0.5}, {"reward": 0.5, "served_model": "b"})
    assert (chosen.subject, other.subject) == ("a", "b")


def test_the_reward_told_goes_before_signals_and_signals_before_an_error() -> None:
    rule = RewardRule(signal_weights={"thumbs": 1.0}, error_reward=0.125)
    everything = raw_report(reward=0.25, signals={"thumbs": 0.5}, error=ModelError.REFUSED)
    assert reward_of(everything, rule) == 0.25
    assert reward_of(replace(everything, reward=None), rule) == 0.5
    assert reward_of(replace(everything, reward=None, signals={}), rule) == 0.125


def test_a_reward_of_zero_is_a_reward() -> None:
    assert reward_of(raw_report(reward=0.0, signals={"s": 1.0}), RewardRule(signal_weights={"s": 1.0})) == 0.0


def test_an_error_is_no_reward_unless_the_rule_says_so() -> None:
    assert reward_of(raw_report(error=ModelError.TIMEOUT), RewardRule()) is None


def test_the_signals_that_are_present_are_weighted_and_unknown_ones_ignored() -> None:
    rule = RewardRule(signal_weights={"thumbs": 3.0, "resolved": 1.0, "absent": 100.0})
    told = raw_report(signals={"thumbs": 1.0, "resolved": 0.0, "unheard_of": 0.0})
    assert reward_of(told, rule) == 0.75
    assert reward_of(raw_report(signals={"unheard_of": 1.0}), rule) is None


@given(st.dictionaries(st.sampled_from("abc"), st.floats(-1e300, 1e300), min_size=1))
def test_signals_of_any_size_make_a_reward_between_0_and_1(signals: dict[str, float]) -> None:
    rule = RewardRule(signal_weights={"a": 1e6, "b": 1.0, "c": 1e-6})
    reward = reward_of(raw_report(signals=signals), rule)
    assert reward is not None
    assert 0.0 <= reward <= 1.0


@pytest.mark.parametrize(
    ("usage", "prices", "expected"),
    [
        (Usage(1000, 2000, 0.5), Prices(1.0, 2.0), 0.5),
        (Usage(1000, 2000, 0.0), Prices(1.0, 2.0), 0.0),
        (Usage(1000, 2000), Prices(1.0, 2.0), 0.005),
        (Usage(1000, 2000), Prices(), None),
        (Usage(1000, 2000), None, None),
    ],
)
def test_a_call_costs_what_is_reported_or_else_its_tokens_or_else_nobody_knows(
    usage: Usage, prices: Prices | None, expected: float | None
) -> None:
    assert usage_cost_usd(usage, prices) == expected


def test_tokens_are_charged_at_the_prices_of_the_model_that_served() -> None:
    by = router([model("a", 1, output_price=1.0), model("b", 2, output_price=10.0)])
    told = report(decision("a"), by, usage=Usage(output_tokens=1000), served_model="b")
    assert told.charged_usd == pytest.approx(0.01)


reports = st.fixed_dictionaries(
    {"late": st.booleans()},
    optional={
        "reward": st.floats(0, 1),
        "usage": st.builds(Usage, cost_usd=st.none() | st.floats(0, 1)),
        "activation": st.booleans(),
    },
)


@given(st.lists(reports, max_size=6), st.booleans())
def test_one_reward_is_learned_one_usage_settles_and_all_is_charged(
    told: list[dict[str, Any]], deferred: bool
) -> None:
    stored = after(*told, deferred=deferred)
    state = joined(deferred, stored)
    learned = [each.learned_reward for each in stored if each.learned_reward is not None]
    charged = [each.charged_usd for each in stored if each.charged_usd is not None]
    assert learned == ([] if state.reward is None else [state.reward])
    assert sum(each.settles for each in stored) == (state.charged_usd is not None)
    assert state.charged_usd == (pytest.approx(sum(charged)) if charged else None)
    assert sum(each.activates for each in stored) == (deferred and state.active)


def by_rule(rule: RewardRule, *told: dict[str, Any]) -> list[ReportRecord]:
    """As `after`, by this rule."""
    of, made, stored = replace(BY, spec=replace(BY.spec, reward_rule=rule)), decision("a"), []
    for number, each in enumerate(told):
        stored.append(report(made, of, tuple(stored), made.seq + 1 + number, **each))
    return stored


def joined_by(join: RewardJoin, *told: dict[str, Any], **rule: Any) -> float | None:
    """What these reports come to."""
    return joined(False, by_rule(RewardRule(join=join, **rule), *told)).reward


JUDGE_AND_THUMBS = ({"signals": {"judge": 0.6}}, {"signals": {"thumbs": 0.0}})
WEIGHTS = {"judge": 1.0, "thumbs": 2.0}


@pytest.mark.parametrize(
    ("join", "expected"),
    [
        (RewardJoin.FIRST, 0.6),
        (RewardJoin.LAST, 0.0),
        (RewardJoin.MEAN, 0.3),
        (RewardJoin.WEIGHTED, pytest.approx(0.2)),
    ],
)
def test_a_judge_at_once_and_thumbs_later_come_to_what_the_rule_says(join: RewardJoin, expected: float) -> None:
    assert joined_by(join, *JUDGE_AND_THUMBS, signal_weights=WEIGHTS) == expected


def test_a_changed_reward_says_what_it_replaces_and_which_report_had_made_it() -> None:
    judge, usage, thumbs, again = by_rule(
        RewardRule(join=RewardJoin.LAST), {"reward": 0.6}, {"usage": Usage(1, 1)}, {"reward": 0.0}, {"reward": 1.0}
    )
    assert (judge.learned_reward, judge.replaces_reward, judge.replaces_seq) == (0.6, None, 0)
    assert (usage.learned_reward, usage.replaces_reward) == (None, None)
    assert (thumbs.learned_reward, thumbs.replaces_reward, thumbs.replaces_seq) == (0.0, 0.6, judge.seq)
    assert (again.learned_reward, again.replaces_reward, again.replaces_seq) == (1.0, 0.0, thumbs.seq)


def test_a_reward_that_stays_what_it_was_teaches_nothing() -> None:
    _, same = by_rule(RewardRule(join=RewardJoin.LAST), {"reward": 0.5}, {"reward": 0.5})
    assert (same.learned_reward, same.replaces_reward, same.replaces_seq) == (None, None, 0)


def test_the_reward_is_weighed_as_a_signal_of_its_name_with_1_where_no_weight_is_given() -> None:
    told = {"reward": 1.0, "signals": {"thumbs": 0.0}}
    assert joined_by(RewardJoin.WEIGHTED, told, signal_weights={"thumbs": 1.0}) == 0.5
    assert joined_by(RewardJoin.WEIGHTED, told, signal_weights={"thumbs": 1.0, "reward": 3.0}) == 0.75
    assert joined_by(RewardJoin.WEIGHTED, {"reward": 0.25}) == 0.25


def test_of_a_signal_told_again_the_latest_value_is_weighed() -> None:
    told = ({"signals": {"judge": 0.0, "thumbs": 1.0}}, {"signals": {"judge": 1.0}})
    assert joined_by(RewardJoin.WEIGHTED, *told, signal_weights=WEIGHTS) == 1.0


def test_the_reward_of_a_failed_call_stands_only_where_no_signal_is_weighed() -> None:
    failed, judged = {"error": ModelError.REFUSED}, {"reward": 1.0}
    for told in ((failed, judged), (judged, failed)):
        assert joined_by(RewardJoin.WEIGHTED, *told, error_reward=0.0) == 1.0
        assert joined_by(RewardJoin.MEAN, *told, error_reward=0.0) == 0.5
    assert joined_by(RewardJoin.WEIGHTED, failed, error_reward=0.25) == 0.25
    assert joined_by(RewardJoin.WEIGHTED, failed) is None


@pytest.mark.parametrize("join", list(RewardJoin))
def test_rewards_of_different_models_that_served_are_joined_apart(join: RewardJoin) -> None:
    rule = RewardRule(join=join)
    chosen, other, revised = by_rule(
        rule, {"reward": 0.25}, {"reward": 1.0, "served_model": "b"}, {"reward": 0.0, "served_model": "b"}
    )
    assert (other.subject, other.learned_reward, other.replaces_reward) == ("b", 1.0, None)
    assert revised.replaces_reward == (None if join is RewardJoin.FIRST else 1.0)
    state = joined(False, [chosen, other, revised])
    assert state.taught["a"].reward == 0.25
    assert state.taught["b"].reward == {RewardJoin.FIRST: 1.0, RewardJoin.MEAN: 0.5}.get(join, 0.0)


@pytest.mark.parametrize("join", list(RewardJoin))
def test_a_late_reward_takes_no_part_in_the_join(join: RewardJoin) -> None:
    rule = RewardRule(join=join)
    first, late = by_rule(rule, {"reward": 0.25}, {"reward": 1.0, "late": True})
    assert (late.learned_reward, late.replaces_reward, late.replaces_seq) == (None, None, 0)
    assert joined(False, [first, late]).reward == 0.25


def test_a_changed_rule_alters_nothing_until_the_next_reward_which_is_joined_by_it() -> None:
    made, first = decision("a"), by_rule(RewardRule(), {"reward": 0.0}, {"reward": 0.5})
    now = replace(BY, spec=replace(BY.spec, reward_rule=RewardRule(join=RewardJoin.MEAN)))
    usage = report(made, now, first, made.seq + 3, usage=Usage(1, 1))
    assert usage.learned_reward is None
    third = report(made, now, [*first, usage], made.seq + 4, reward=1.0)
    assert (third.learned_reward, third.replaces_reward, third.replaces_seq) == (0.5, 0.0, made.seq + 1)


values = st.lists(st.floats(0, 1), min_size=1, max_size=8)


@given(values, st.randoms(use_true_random=False))
def test_the_order_of_arrival_has_no_part_in_the_mean(rewards: list[float], random: Random) -> None:
    told = [{"reward": each} for each in rewards]
    found = joined_by(RewardJoin.MEAN, *told)
    random.shuffle(told)
    assert joined_by(RewardJoin.MEAN, *told) == found
    assert found == pytest.approx(sum(rewards) / len(rewards))


@given(st.dictionaries(st.sampled_from("abcdef"), st.floats(0, 1), min_size=1), st.randoms(use_true_random=False))
def test_the_order_of_arrival_of_different_signals_has_no_part_in_the_weighted_mean(
    signals: dict[str, float], random: Random
) -> None:
    weights = {name: 0.1 * number for number, name in enumerate("abcdef", start=1)}
    told = [{"signals": {name: value}} for name, value in signals.items()]
    found = joined_by(RewardJoin.WEIGHTED, *told, signal_weights=weights)
    random.shuffle(told)
    assert joined_by(RewardJoin.WEIGHTED, *told, signal_weights=weights) == found
    assert joined_by(RewardJoin.WEIGHTED, {"signals": signals}, signal_weights=weights) == found


@given(values)
def test_of_rewards_in_order_the_first_counts_or_the_last(rewards: list[float]) -> None:
    told = [{"reward": each} for each in rewards]
    assert joined_by(RewardJoin.FIRST, *told) == rewards[0]
    assert joined_by(RewardJoin.LAST, *told) == rewards[-1]
    assert joined_by(RewardJoin.LAST, *reversed(told)) == rewards[0]


@given(st.sampled_from(RewardJoin), values)
def test_each_change_replaces_the_one_before_it(join: RewardJoin, rewards: list[float]) -> None:
    stored = by_rule(RewardRule(join=join), *({"reward": each} for each in rewards))
    changes = [each for each in stored if each.learned_reward is not None]
    assert changes[0] is stored[0]
    for before, this in pairwise(changes):
        assert (this.replaces_reward, this.replaces_seq) == (before.learned_reward, before.seq)
        assert this.learned_reward != before.learned_reward
