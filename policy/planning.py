"""What the learned policy would choose by on many queries at once, for the pacer's plan."""

from __future__ import annotations

from dataclasses import dataclass

from policy.domain import FloatArray
from policy.exploration import Rules
from policy.quick import quick
from policy.shares import Experience, solved


@quick
@dataclass(frozen=True, slots=True)
class Outlooks:
    """As `policies.Outlook`, for many queries under whatever price of money; no model is excluded.

    Axes: `quality`, `costs_usd` (models, queries). Quality is worth `value_usd` at least, and a budget is
    `unit_usd`.
    """

    quality: FloatArray
    costs_usd: FloatArray
    experience: Experience
    rules: Rules
    unit_usd: float
    value_usd: float

    def solve(self, target: float, last: float) -> tuple[float, float, float]:
        """The price of money at which a query costs `target` budgets: see `policy.shares.solved`."""
        return solved(
            self.quality,
            self.costs_usd,
            self.experience,
            self.rules,
            self.unit_usd,
            self.value_usd,
            target,
            last,
        )
