"""What a report needs to know of its decision, and the newest decisions in memory, which most reports are on."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

from policy.log import DecisionRecord
from policy.quick import quick

_KEPT = 16_384


@quick
@dataclass(frozen=True, slots=True)
class Subject:
    """The decision that a report is on. Nothing of it ever changes."""

    router: str
    router_uid: int
    model: str
    time_us: int
    expire_us: int
    deferred: bool
    second_model: str | None
    second_cost_usd: float | None

    @classmethod
    def of(cls, decision: DecisionRecord) -> Subject:
        """That of a decision as logged."""
        choice = decision.choice
        return cls(
            decision.router,
            decision.router_uid,
            choice.model,
            decision.time_us,
            decision.expire_us,
            decision.deferred,
            choice.second_model or None,
            choice.second_cost_usd if choice.second_model else None,
        )


class RecentDecisions:
    """Those that this process has committed last. Only a shortcut: all are in the log. For one thread."""

    def __init__(self) -> None:
        self._subjects: OrderedDict[str, Subject] = OrderedDict()

    def put(self, decisions: Iterable[DecisionRecord]) -> None:
        """Takes decisions that are committed; the oldest go when there are too many."""
        for each in decisions:
            self._subjects[each.decision_id] = Subject.of(each)
        while len(self._subjects) > _KEPT:
            self._subjects.popitem(last=False)

    def find(self, decision_ids: Iterable[str], time_us: int) -> dict[str, Subject]:
        """Those that are here and whose window is open at this time: what is older may have been dropped."""
        found = ((each, self._subjects.get(each)) for each in decision_ids)
        return {each: subject for each, subject in found if subject is not None and time_us <= subject.expire_us}
