"""Joins reports to their decision: which reward is learned, what is charged, when it counts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import fsum

from policy.domain import Prices, RewardJoin, RewardRule
from policy.log import ReportRecord, Usage, altered

_REWARD = "reward"


@dataclass(frozen=True, slots=True)
class Taught:
    """What was last learned of a decision about one model, and the position of the report that said so."""

    reward: float
    seq: int


@dataclass(frozen=True, slots=True)
class Joined:
    """What is known of a decision's call, or of its second call, from its reports so far.

    `reward` is the one told last, of whichever model; `taught` has each model's. `served_model` is
    empty unless one was told. `reports` are those that came in time. `second` is the same of the second call, None
    where nothing was reported of it; the two have nothing to do with each other, but that a report on either
    makes the decision count.
    """

    active: bool
    reward: float | None = None
    charged_usd: float | None = None
    served_model: str = ""
    taught: Mapping[str, Taught] = field(default_factory=dict)
    reports: Sequence[ReportRecord] = ()
    second: Joined | None = None

    def call(self, second: bool) -> Joined:
        """What is known of the decision's own call, or of its second one."""
        return (self.second or Joined(self.active)) if second else self


def joined(deferred: bool, reports: Iterable[ReportRecord]) -> Joined:
    """What the reports stored so far make of a decision. Late ones make nothing."""
    in_time = [report for report in reports if not report.late]
    active = not deferred or bool(in_time)
    second = [report for report in in_time if report.second]
    if not second:
        return _joined(active, in_time, None)
    return _joined(active, [report for report in in_time if not report.second], _joined(active, second, None))


def _joined(active: bool, in_time: Sequence[ReportRecord], second: Joined | None) -> Joined:
    """What these reports on one call make of it."""
    reward, charged, served = None, None, ""
    taught: dict[str, Taught] = {}
    for report in in_time:
        if report.learned_reward is not None:
            reward = report.learned_reward
            taught[report.subject] = Taught(reward, report.seq)
        if report.charged_usd is not None:
            charged = (charged or 0.0) + report.charged_usd
        served = report.served_model or served
    return Joined(active, reward, charged, served, taught, in_time, second)


def resolve(
    report: ReportRecord,
    state: Joined,
    chosen_model: str,
    rule: RewardRule,
    prices: Prices | None,
) -> ReportRecord:
    """The report with its part in the join filled in.

    `chosen_model` is that of the call which the report is on, the second one's of a report on it. `prices` are
    those of the model the report is about, None if it is gone. Rewards of one call are joined by the rule
    as it is now, for each model that served by itself; every usage is charged, since every call costs.
    """
    state = state.call(report.second)
    subject = report.served_model or chosen_model
    if report.late:
        return altered(report, subject=subject)
    charged = None if report.usage is None else usage_cost_usd(report.usage, prices)
    before = state.taught.get(subject)
    same_subject = [each for each in state.reports if each.subject == subject]
    reward = _joined_reward([*same_subject, report], before, rule)
    if before is not None and reward == before.reward:
        reward = None  # It changes nothing.
    replaced = before if reward is not None else None
    return altered(
        report,
        subject=subject,
        learned_reward=reward,
        replaces_reward=replaced.reward if replaced else None,
        replaces_seq=replaced.seq if replaced else 0,
        charged_usd=charged,
        settles=charged is not None and state.charged_usd is None,
        activates=not state.active,
    )


def _joined_reward(reports: Sequence[ReportRecord], before: Taught | None, rule: RewardRule) -> float | None:
    """The reward that these reports about one model come to, None if the last of them says nothing of it.

    Sums are rounded once, so that the order of what is summed has no part in the mean.
    """
    newest = reward_of(reports[-1], rule)
    if newest is None or rule.join is RewardJoin.LAST:
        return newest
    if rule.join is RewardJoin.FIRST:
        return before.reward if before else newest
    if rule.join is RewardJoin.WEIGHTED:
        return _weighted(reports, rule)
    rewards = [each for each in (reward_of(report, rule) for report in reports) if each is not None]
    return fsum(rewards) / len(rewards)


def _weighted(reports: Sequence[ReportRecord], rule: RewardRule) -> float | None:
    """The weighted mean of the latest value of each signal, or the reward of a failed call where there is none."""
    latest: dict[str, float] = {}
    for report in reports:
        latest |= _signals_of(report, rule)
    return _weighted_mean(latest, rule) if latest else rule.error_reward


def _signals_of(report: ReportRecord, rule: RewardRule) -> dict[str, float]:
    """The signals that the rule weighs, the reward among them: where no weight is given for it, it has 1."""
    signals = {name: value for name, value in report.signals.items() if name in rule.signal_weights}
    return signals if report.reward is None else {**signals, _REWARD: report.reward}


def _weighted_mean(signals: Mapping[str, float], rule: RewardRule) -> float:
    weights = [rule.signal_weights.get(name, 1.0) for name in signals]
    total = fsum(weight * value for weight, value in zip(weights, signals.values(), strict=True))
    return min(1.0, max(0.0, total / fsum(weights)))


def reward_of(report: ReportRecord, rule: RewardRule) -> float | None:
    """The reward in [0, 1] that one report makes by itself, or None.

    An explicit reward comes first, then the weighted mean of those of the rule's signals that are
    present, then the rule's reward for a failed call.
    """
    if report.reward is not None:
        return report.reward
    signals = _signals_of(report, rule)
    if signals:
        return _weighted_mean(signals, rule)
    return rule.error_reward if report.error is not None else None


def usage_cost_usd(usage: Usage, prices: Prices | None) -> float | None:
    """What a call cost in USD: as reported, or else by its tokens; None where neither tells.

    Usage without any number says nothing of what the call cost.
    """
    if usage.cost_usd is not None:
        return usage.cost_usd
    if prices is None or not prices.known or not (usage.input_tokens or usage.output_tokens):
        return None
    return prices.cost_usd(usage.input_tokens, usage.output_tokens, usage.cached_input_tokens)
