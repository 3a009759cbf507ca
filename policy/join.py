"""Joins reports to their decision: which reward is learned, what is charged, when it counts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from policy.domain import Prices, RewardRule
from policy.log import ReportRecord, Usage


@dataclass(frozen=True, slots=True)
class Joined:
    """What is known of a decision from its reports so far. `served_model` is empty unless one was told."""

    active: bool
    reward: float | None = None
    charged_usd: float | None = None
    served_model: str = ""


def joined(deferred: bool, reports: Iterable[ReportRecord]) -> Joined:
    """What the reports stored so far make of a decision. Late ones make nothing."""
    state = Joined(active=not deferred)
    for report in reports:
        if report.late:
            continue
        reward = report.learned_reward if state.reward is None else state.reward
        charged = state.charged_usd
        if report.charged_usd is not None:
            charged = (charged or 0.0) + report.charged_usd
        state = Joined(True, reward, charged, report.served_model or state.served_model)
    return state


def resolve(
    report: ReportRecord,
    state: Joined,
    chosen_model: str,
    rule: RewardRule,
    prices: Prices | None,
) -> ReportRecord:
    """The report with its part in the join filled in.

    `prices` are those of the model the report is about, None if it is gone. The first reward of a
    decision is the one that is learned; every usage is charged, since every call costs.
    """
    report = replace(report, subject=report.served_model or chosen_model)
    if report.late:
        return report
    charged = None if report.usage is None else usage_cost_usd(report.usage, prices)
    return replace(
        report,
        learned_reward=reward_of(report, rule) if state.reward is None else None,
        charged_usd=charged,
        settles=charged is not None and state.charged_usd is None,
        activates=not state.active,
    )


def reward_of(report: ReportRecord, rule: RewardRule) -> float | None:
    """The reward in [0, 1] that one report makes by the router's rule, or None.

    An explicit reward comes first, then the weighted mean of those of the rule's signals that are
    present, then the rule's reward for a failed call.
    """
    if report.reward is not None:
        return report.reward
    weights = {name: weight for name, weight in rule.signal_weights.items() if name in report.signals}
    if weights:
        total = sum(weight * report.signals[name] for name, weight in weights.items())
        return min(1.0, max(0.0, total / sum(weights.values())))
    return rule.error_reward if report.error is not None else None


def usage_cost_usd(usage: Usage, prices: Prices | None) -> float | None:
    """What a call cost in USD: as reported, or else by its tokens; None where neither tells.

    Usage without any number says nothing of what the call cost.
    """
    if usage.cost_usd is not None:
        return usage.cost_usd
    if prices is None or not prices.known or not (usage.input_tokens or usage.output_tokens):
        return None
    return prices.cost_usd(usage.input_tokens, usage.output_tokens)
