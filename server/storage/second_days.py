"""What second calls have cost on each day, kept in the log's own transactions: so the cap on it holds however many
requests come at once, to however many servers, and across restarts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy import Connection, insert, select, tuple_, update

from policy.log import DecisionRecord, ReportRecord
from server.storage.recent import Subject
from server.storage.schema import second_days

DAY_US = 86_400_000_000

Day = tuple[int, int]
"""A router's uid, and the number of a day since 1970 in UTC."""


class SecondDays:
    """The days that one batch is about. `store` writes what has changed.

    Whoever has one must hold the head of the log, so that no other writer comes in between.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._known: dict[Day, float] = {}
        self._there: set[Day] = set()
        self._changed: set[Day] = set()

    def read(self, days: Sequence[Day]) -> None:
        """Reads these days at once, each by its router's uid and its number."""
        wanted = sorted(set(days))
        self._known = dict.fromkeys(wanted, 0.0)
        if not wanted:
            return
        key = tuple_(second_days.c.router_uid, second_days.c.day)
        for row in self._connection.execute(select(second_days).where(key.in_(wanted))):
            self._known[row.router_uid, row.day] = row.usd
            self._there.add((row.router_uid, row.day))

    def granted(self, draft: DecisionRecord, max_usd: float) -> DecisionRecord:
        """The decision with its second call, whose predicted cost is set aside, or with the offer taken back.

        It is taken back where what the dearest possible one costs is not left of the day's money, whether or not
        one was drawn, and whatever it was: else the cheap ones would go on being called when the dear ones are
        not, more often than their probability says.
        """
        second = draft.choice.second
        if second is None:
            return draft
        day = day_of(draft.router_uid, draft.time_us)
        if self._known[day] + second.most_usd > max_usd:
            capped = replace(second, model="", capped=True)
            return replace(draft, choice=replace(draft.choice, second=capped))
        if draft.choice.second_model:
            self._add(day, draft.choice.second_cost_usd)
        return draft

    def settle(self, decision: Subject, report: ReportRecord) -> None:
        """Takes what a report says of a second call's cost, in the place of its prediction the first time."""
        if report.second and report.charged_usd is not None:
            predicted = (decision.second_cost_usd or 0.0) if report.settles else 0.0
            self._add(day_of(decision.router_uid, decision.time_us), report.charged_usd - predicted)

    def _add(self, day: Day, usd: float) -> None:
        self._known[day] += usd
        self._changed.add(day)

    def store(self) -> None:
        """Writes what has changed."""
        for day in sorted(self._changed):
            router_uid, number = day
            if day in self._there:
                mine = (second_days.c.router_uid == router_uid) & (second_days.c.day == number)
                self._connection.execute(update(second_days).where(mine).values(usd=self._known[day]))
            else:
                values = {"router_uid": router_uid, "day": number, "usd": self._known[day]}
                self._connection.execute(insert(second_days).values(values))


def day_of(router_uid: int, time_us: int) -> Day:
    """The day that a decision of this time belongs to."""
    return router_uid, time_us // DAY_US
