"""What the clients asked and what they were answered, in the order in which it happened."""

from __future__ import annotations

import itertools
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass
class Answer:
    """What a client was told of a decision. `digest` is of the whole response."""

    decision_id: str
    model: str
    probability: float
    candidates: dict[str, float]
    fallbacks: list[str]
    digest: str


@dataclass
class RouteCall:
    """One try at a decision. Without an answer, `error` is the code that it failed with.

    `began` and `ended` are places in the one order of everything that happened; `ended` is 0 of one that was
    never ended. So are they of the other calls.
    """

    router: str
    request_id: str
    session_id: str
    deferred: bool
    server: str
    began: int
    ended: int = 0
    answer: Answer | None = None
    error: str = ""


@dataclass
class ReportCall:
    """One try at a report; one without a `report_id` is an activation."""

    decision_id: str
    report_id: str
    reward: float | None
    cost_usd: float | None
    server: str
    began: int
    ended: int = 0
    disposition: str = ""
    error: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """What makes it the same as another."""
        return self.decision_id, self.report_id


@dataclass
class ChangeCall:
    """One try at a change of the registry. `value` is the model's price afterwards, None if it is removed."""

    router: str
    model: str
    value: float | None
    server: str
    began: int
    ended: int = 0
    error: str = ""


@dataclass
class History:
    """All calls, each written down before it is sent."""

    routes: list[RouteCall] = field(default_factory=list)
    reports: list[ReportCall] = field(default_factory=list)
    changes: list[ChangeCall] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    _order: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def now(self) -> int:
        """The next place in the order."""
        return next(self._order)

    def acknowledged(self) -> int:
        """How many calls were answered."""
        routes = sum(each.answer is not None for each in self.routes)
        return routes + sum(bool(each.disposition) for each in self.reports)

    def failures(self) -> dict[str, int]:
        """How often calls failed, by code."""
        found: dict[str, int] = {}
        for each in (*self.routes, *self.reports, *self.changes):
            if each.error:
                found[each.error] = found.get(each.error, 0) + 1
        return found

    def write(self, path: Path) -> None:
        """As JSON lines, to look at what a violation names."""
        with path.open("w") as file:
            for kind, calls in (("route", self.routes), ("report", self.reports), ("change", self.changes)):
                for each in calls:
                    file.write(json.dumps({"kind": kind, **asdict(each)}) + "\n")
