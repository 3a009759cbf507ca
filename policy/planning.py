"""What the learned policy would spend on many queries at once, for the pacer's plan."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from policy.domain import FloatArray
from policy.pacer import SpendAt
from policy.shares import Experience, Rules, expected_spend


@dataclass(frozen=True)
class Outlooks:
    """As `policies.Outlook`, for many queries under whatever price of money; no model is excluded.

    Axes: `quality`, `costs_usd` (models, queries).
    """

    quality: FloatArray
    costs_usd: FloatArray
    experience: Experience
    rules: Rules
    unit_usd: float


def spend_curve(outlooks: Outlooks, value_usd: float) -> SpendAt:
    """What the queries cost in budgets, which are `outlooks.unit_usd`, where quality is worth `value_usd`."""
    unit_usd = outlooks.unit_usd

    @cache  # The price that is found was tried before.
    def spend_at(price: float) -> tuple[float, float]:
        money = price / unit_usd + 1.0 / value_usd
        return expected_spend(
            outlooks.quality, outlooks.costs_usd, outlooks.experience, outlooks.rules, money, unit_usd
        )

    return spend_at
