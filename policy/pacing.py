"""Pacing: keeps a router to its budget, whether of a request, a day or a month, or none."""

from __future__ import annotations

from typing import Any

from policy.allowance import Allowance, Standing
from policy.array_state import ArrayState
from policy.domain import FloatArray, Objective
from policy.log import DecisionRecord
from policy.pacer import Pacer, Solve

_MOVED = 0.05
_CHEAPEST_SHARE = 0.5
_DEAREST_SHARE = 1e-4


class Pacing:
    """The pacer, in USD. The budget of a request that it works in is `budget_usd`, None if there is none.

    With a period's budget that is what is left of it for a request, as of the last plan. A plan is due before
    its time when the pacer says so, when what is left has moved by 5 %, and at the first decision of a
    period. When nothing is left the plan is made for less than the cheapest model costs: then money is so
    dear that no other is called.
    """

    def __init__(self, objective: Objective) -> None:
        self._pacer = Pacer()
        self._allowance: Allowance | None = None
        self._from_seq = 0
        self._planned_us = 0
        self._least_usd = 0.0
        self.budget_usd: float | None = None
        self.change(objective)

    def change(self, objective: Objective) -> None:
        """The router has this objective from now on.

        What was spent of a period stays spent when its amount changes. Between kinds of budget nothing
        is carried over but the price, in USD, which stands until the next plan.
        """
        self._objective = objective
        of_request, of_period = objective.budget_usd_per_request, objective.period_budget
        period = of_period[0] if of_period else None
        before = self._allowance.period if self._allowance else None
        if period is not before:
            self._allowance = Allowance(period) if period else None
            self._from_seq, self._planned_us, self._least_usd = 0, 0, 0.0
            self._pacer.repays, self._pacer.debt = period is None, 0.0
        if not objective.budgeted:
            self._from_seq, self._pacer.debt = 0, 0.0
            self.budget_usd = None
        elif of_request is not None:
            self._rebase(of_request)

    def commit(self, decision: DecisionRecord, time_us: int, predicted_usd: float) -> None:
        """A decision counts, from this time on."""
        if not self._objective.budgeted:
            return
        self._from_seq = self._from_seq or decision.seq
        if self._allowance:
            self._allowance.commit(time_us, predicted_usd)
        if self.budget_usd:
            expected = sum([each.probability * each.cost_usd for each in decision.choice.candidates])
            self._pacer.commit(predicted_usd / self.budget_usd, expected / self.budget_usd)

    def settle(self, decision: DecisionRecord, time_us: int, predicted_usd: float, real_usd: float) -> None:
        """The real cost of a decision that counts from `time_us` on has become known."""
        if not self._owed(decision):
            return
        if self._allowance:
            self._allowance.settle(time_us, predicted_usd, real_usd)
        if self.budget_usd:
            self._pacer.settle(predicted_usd / self.budget_usd, real_usd / self.budget_usd)

    def charge(self, decision: DecisionRecord, real_usd: float) -> None:
        """A further call of a settled decision has cost this."""
        if not self._owed(decision):
            return
        if self._allowance:
            self._allowance.charge(real_usd)
        if self.budget_usd:
            self._pacer.charge(real_usd / self.budget_usd)

    def close(self, decision: DecisionRecord, predicted_usd: float) -> None:
        """No usage came of a decision before its window closed: its prediction is what it cost."""
        if self._allowance and self._owed(decision):
            self._allowance.settle(decision.time_us, predicted_usd, predicted_usd)

    def _owed(self, decision: DecisionRecord) -> bool:
        """What was decided without this budget is not owed to it."""
        return 0 < self._from_seq <= decision.seq

    @property
    def due(self) -> bool:
        """Whether a plan is due before its time."""
        if self.budget_usd and self._pacer.due:
            return True
        standing = self.standing
        if standing is None:
            return False
        if standing.start_us != self._planned_us or not self.budget_usd:
            return True
        now_usd = max(standing.per_request_usd, self._least_usd)
        return abs(now_usd - self.budget_usd) > _MOVED * self.budget_usd

    @property
    def standing(self) -> Standing | None:
        """How a period's budget stands; None without one, and before its first decision."""
        of_period = self._objective.period_budget
        if self._allowance is None or of_period is None or not self._allowance.begun:
            return None
        return self._allowance.standing(of_period[1], self._pacer.realised_over_predicted)

    def renew(self, cheapest_usd: float, dearest_usd: float) -> float | None:
        """The budget of a request to plan for next, in USD; None where there is none yet.

        `cheapest_usd` and `dearest_usd` are the mean costs of a call of the cheapest and the dearest model.
        """
        standing = self.standing
        if standing is not None:
            self._planned_us = standing.start_us
            self._least_usd = max(_CHEAPEST_SHARE * cheapest_usd, _DEAREST_SHARE * dearest_usd, 1e-12)
            self._rebase(max(standing.per_request_usd, self._least_usd))
        return None if self._allowance and standing is None else self.budget_usd

    def plan(self, solve: Solve, dearest: float) -> None:
        """Solves for the price. Amounts are in the budget that `renew` has given."""
        self._pacer.plan(solve, dearest)

    def _rebase(self, budget_usd: float) -> None:
        if self.budget_usd and self.budget_usd != budget_usd:
            self._pacer.rescale(budget_usd / self.budget_usd)
        self.budget_usd = budget_usd

    @property
    def price(self) -> float:
        """The price of money in utility per USD, 0 without a budget."""
        return self._pacer.price / self.budget_usd if self.budget_usd else 0.0

    def meta(self) -> dict[str, Any]:
        """The state but that of a period; see `restore`."""
        return {
            "pacer": self._pacer.state(),
            "from_seq": self._from_seq,
            "planned_us": self._planned_us,
            "least_usd": self._least_usd,
            "budget_usd": self.budget_usd,
        }

    def arrays(self) -> dict[str, FloatArray]:
        """The state of a period, empty without one."""
        return self._allowance.state() if self._allowance else {}

    def restore(self, meta: dict[str, Any], arrays: ArrayState) -> None:
        """Goes on to the same bits as the one of this objective that gave `meta` and `arrays`."""
        self._pacer = Pacer(**meta["pacer"])
        self._from_seq, self._planned_us = meta["from_seq"], meta["planned_us"]
        self._least_usd, self.budget_usd = meta["least_usd"], meta["budget_usd"]
        if self._allowance:
            self._allowance.restore(arrays)
