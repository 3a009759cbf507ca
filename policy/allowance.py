"""The allowance: what a request may cost on average, so that a day's or a month's budget lasts to its end."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import numpy as np

from policy.array_state import ArrayState
from policy.domain import FloatArray, Period
from policy.traffic import Traffic

_MINUTE_US = 60_000_000
_DAY_US = 1440 * _MINUTE_US
_TRAFFIC = "traffic "
_EPOCH = date(1970, 1, 1).toordinal()


def span(period: Period, time_us: int) -> tuple[int, int]:
    """The calendar day or month, in UTC, in which a time lies: its start, and its end, which is the next one's."""
    day = time_us // _DAY_US
    if period is Period.DAY:
        return day * _DAY_US, (day + 1) * _DAY_US
    first = date.fromordinal(_EPOCH + day).replace(day=1)
    year, month = divmod(first.year * 12 + first.month, 12)
    following = date(year, month + 1, 1)
    return (first.toordinal() - _EPOCH) * _DAY_US, (following.toordinal() - _EPOCH) * _DAY_US


@dataclass(frozen=True, slots=True)
class Standing:
    """How a period's budget stands. `start_us` is when the period began, in microseconds since 1970.

    `budget_usd` is the period's budget, of its first period the part that fell to it; `spent_usd` what is
    charged to it and what is predicted for calls in flight; `per_request_usd` what is left for each
    request that is expected to come.
    """

    start_us: int
    budget_usd: float
    spent_usd: float
    per_request_usd: float


class Allowance:
    """Follows a period's spend and traffic, by the time of the decisions; there is no other clock.

    Quality grows ever more slowly with spend, so a budget buys the most if money has one price for all
    requests of the period: then all have the same budget, which is what is left of the period's over the
    number of requests to come. A first period begins with its first decision under the budget and has the
    part of the budget that falls to the time left, since what was decided before it is not charged to it.

    A decision belongs to the period in which it was made or, if it was deferred, was activated. It is in
    flight at its predicted cost until its real one is known. If that comes when its period is over, the
    prediction stands: the period's money was divided by it and cannot be divided again, while the new
    period is not to pay for calls of the old one. Predictions in flight are corrected by how real costs
    compare with predicted ones, so that reports which all come late do not let every period overspend.
    """

    def __init__(self, period: Period) -> None:
        self.period = period
        # A month has no weeks of its own, but traffic has: so its cycle is a week, in hours.
        self._traffic = Traffic(96, 15 * _MINUTE_US) if period is Period.DAY else Traffic(168, 60 * _MINUTE_US)
        self.start_us, self._end_us, self._now_us = 0, 0, 0
        self._share = 1.0
        self._charged_usd, self._flying_usd = 0.0, 0.0

    @property
    def begun(self) -> bool:
        """Whether there was a decision yet."""
        return self._end_us > 0

    def commit(self, time_us: int, predicted_usd: float) -> None:
        """A decision counts from this time on."""
        self._now_us = max(time_us, self._now_us)
        if self._now_us >= self._end_us:
            first = not self.begun
            self.start_us, self._end_us = span(self.period, self._now_us)
            length = self._end_us - self.start_us
            self._share = (self._end_us - self._now_us) / length if first else 1.0
            self._charged_usd = self._flying_usd = 0.0
        self._traffic.arrive(self._now_us)
        self._flying_usd += predicted_usd

    def settle(self, time_us: int, predicted_usd: float, real_usd: float) -> None:
        """The real cost of a decision of this time has become known."""
        if time_us >= self.start_us:
            self._flying_usd -= predicted_usd
            self._charged_usd += real_usd

    def charge(self, real_usd: float) -> None:
        """A further call has cost this, which nothing was predicted for: so this period pays, whenever it was."""
        self._charged_usd += real_usd

    def standing(self, amount_usd: float, realised: float) -> Standing:
        """How the budget stands if it is `amount_usd` a period; `realised` is real over predicted cost."""
        budget_usd = amount_usd * self._share
        spent_usd = self._charged_usd + realised * max(0.0, self._flying_usd)
        left_usd = max(0.0, budget_usd - spent_usd)
        # One more than is expected, so that a last request does not get all that is left before the next comes.
        per_request_usd = left_usd / (self._traffic.to_come(self._end_us) + 1.0)
        return Standing(self.start_us, budget_usd, spent_usd, per_request_usd)

    def state(self) -> dict[str, FloatArray]:
        """Everything but the period; `restore` takes it."""
        numbers = [
            *(self.start_us, self._end_us, self._now_us),
            *(self._share, self._charged_usd, self._flying_usd),
        ]
        traffic = {_TRAFFIC + name: each for name, each in self._traffic.state().items()}
        return {"numbers": np.array(numbers, dtype=np.float64), **traffic}

    def restore(self, state: ArrayState) -> None:
        """Goes on to the same bits as the one that gave `state`."""
        numbers = state["numbers"].tolist()
        self.start_us, self._end_us, self._now_us = (int(each) for each in numbers[:3])
        self._share, self._charged_usd, self._flying_usd = numbers[3:]
        named = {name: each for name, each in state.items() if name.startswith(_TRAFFIC)}
        self._traffic.restore({name.removeprefix(_TRAFFIC): each for name, each in named.items()})
