"""The books of second calls: how many were offered, made and reported, and what they have cost."""

from __future__ import annotations

from dataclasses import dataclass, replace

from policy.choices import Choice
from policy.log import ReportRecord


@dataclass(frozen=True, slots=True)
class SecondCalls:
    """The books of second calls, over the decisions that count.

    Of `offers`, decisions in which one might have been drawn, `calls` had one, and in `capped` others the day's
    money was used up. `rewards` are those learned from second calls, of which `charged` had their cost
    reported; `spent_usd` is what they cost, and what those are taken to have cost of which other things were
    reported. Of `untold` nothing at all was reported: they were not made, as far as is known, and cost nothing.
    """

    offers: int = 0
    calls: int = 0
    capped: int = 0
    rewards: int = 0
    charged: int = 0
    spent_usd: float = 0.0
    untold: int = 0

    def entered(self, choice: Choice) -> SecondCalls:
        """With this decision, which has begun to count."""
        second = choice.second
        if second is None:
            return self
        return replace(
            self,
            offers=self.offers + (not second.capped),
            calls=self.calls + bool(choice.second_model),
            capped=self.capped + second.capped,
        )

    def reported(self, report: ReportRecord) -> SecondCalls:
        """With this report on a second call."""
        return replace(
            self,
            rewards=self.rewards + (report.learned_reward is not None and report.replaces_reward is None),
            charged=self.charged + report.settles,
            spent_usd=self.spent_usd + (report.charged_usd or 0.0),
        )

    def closed(self, choice: Choice, reports: int, charged_usd: float | None) -> SecondCalls:
        """When the window of a decision closes, of whose second call so much was reported."""
        if not choice.second_model or charged_usd is not None:
            return self
        if not reports:
            return replace(self, untold=self.untold + 1)
        return replace(self, spent_usd=self.spent_usd + choice.second_cost_usd)
