"""What is looked up in the log before a batch is written."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from typing import Any

from sqlalchemy import BindParameter, Connection, bindparam, select

from policy.log import DecisionRecord, ReportRecord
from server.storage.codec import load_decision, load_report
from server.storage.recent import Subject
from server.storage.schema import decisions, reports

_KEYS_PER_QUERY = 400
# Built once: putting a statement together costs more than running it.
_IDS: BindParameter[Any] = bindparam("ids", expanding=True)
_SUBJECTS = select(decisions.c.decision_id, *(decisions.c[each.name] for each in fields(Subject))).where(
    decisions.c.decision_id.in_(_IDS)
)
_EARLIER = select(reports).where(reports.c.decision_id.in_(_IDS)).order_by(reports.c.seq)
_OF_REQUESTS = select(decisions).where(
    decisions.c.router_uid == bindparam("router_uid"), decisions.c.request_id.in_(_IDS)
)


def decisions_by_request(
    connection: Connection, drafts: Iterable[DecisionRecord]
) -> dict[tuple[int, str], DecisionRecord]:
    """What was decided for the same requests before, by the router's uid and the request_id."""
    by_router: dict[int, list[str]] = defaultdict(list)
    for draft in drafts:
        if draft.request_id:
            by_router[draft.router_uid].append(draft.request_id)
    found: dict[tuple[int, str], DecisionRecord] = {}
    for router_uid, request_ids in by_router.items():
        for keys in _chunks(request_ids):
            for row in connection.execute(_OF_REQUESTS, {"router_uid": router_uid, "ids": keys}):
                found[router_uid, row.request_id] = load_decision(row)
    return found


def report_subjects(connection: Connection, decision_ids: Sequence[str]) -> dict[str, Subject]:
    """What reports on these decisions are about, by decision_id."""
    return {
        row[0]: Subject(*row[1:])
        for keys in _chunks(decision_ids)
        for row in connection.execute(_SUBJECTS, {"ids": keys})
    }


def earlier_reports(connection: Connection, decision_ids: Sequence[str]) -> dict[str, list[ReportRecord]]:
    """The reports on these decisions, by decision_id, the first ones first; an empty list where there are none."""
    found: dict[str, list[ReportRecord]] = defaultdict(list)
    for keys in _chunks(decision_ids):
        for row in connection.execute(_EARLIER, {"ids": keys}):
            found[row.decision_id].append(load_report(row))
    return found


def _chunks(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(keys), _KEYS_PER_QUERY):
        yield keys[start : start + _KEYS_PER_QUERY]
