"""What can be appended to the log, and how a batch of it is written in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import accumulate
from operator import attrgetter
from typing import Any, Protocol

from sqlalchemy import BigInteger, Connection, bindparam, case, update

from policy.domain import InvalidFieldError, Prices, RewardRule, Router
from policy.join import joined, resolve
from policy.log import DecisionRecord, LogRecord, ReportRecord, altered
from policy.quick import quick
from server.errors import (
    DecisionExpiredError,
    DecisionNotFoundError,
    ModelNotFoundError,
    PointsmanError,
)
from server.storage import partitions
from server.storage.before_write import decisions_by_request, earlier_reports, report_subjects
from server.storage.bulk import insert_rows
from server.storage.codec import decision_row, report_row
from server.storage.recent import RecentDecisions, Subject
from server.storage.schema import decisions, log_head, reports
from server.storage.second_days import SecondDays, day_of
from server.storage.tail import LogPage

_NOW_US = bindparam("now_us", type_=BigInteger)
# Built once: putting a statement together costs more than running it.
_RESERVE = (
    update(log_head)
    .values(
        seq=log_head.c.seq + bindparam("count", type_=BigInteger),
        time_us=case((log_head.c.time_us > _NOW_US, log_head.c.time_us), else_=_NOW_US),
    )
    .returning(log_head.c.seq, log_head.c.time_us, log_head.c.partitioned_until)
)


class Disposition(StrEnum):
    """What became of a report, or of an imported decision."""

    RECORDED = "recorded"
    DUPLICATE = "duplicate"
    LATE = "late"


class Catalogue(Protocol):
    """What the join needs to know of the registry."""

    def router(self, router_id: str) -> Router | None:
        """The router as it is now, or None."""
        ...

    def knows_model(self, router_id: str, model_id: str) -> bool:
        """Whether the router has, or once had, this model."""
        ...


@quick
@dataclass(frozen=True, slots=True)
class DecisionWrite:
    """Appends a decision; gives it as logged, or the earlier one with the same request_id.

    `second_max_usd` is what second calls of its router may cost on its day.
    """

    draft: DecisionRecord
    window_us: int
    second_max_usd: float = 0.0


@quick
@dataclass(frozen=True, slots=True)
class ReportWrite:
    """Appends a report or an activation; gives its disposition.

    `served_router` is the router that the caller named the served model with, empty if none. If `permitted` is
    given, to the caller there are no decisions but of these routers.
    """

    draft: ReportRecord
    served_router: str = ""
    permitted: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Transact:
    """Runs `apply(connection, seq, time_us)` in the batch's transaction; gives what it returns.

    A PointsmanError or InvalidFieldError that it raises undoes it alone, not the batch. Once it is committed,
    `stored` hears in the event loop what it has returned, before the next batch is made, and also if its caller
    has gone. With `logs` it may write what the followers of the log read, who then have to ask the database.
    """

    apply: Callable[[Connection, int, int], Any]
    stored: Callable[[Any], object] = lambda _result: None
    logs: bool = True


@dataclass(frozen=True, slots=True)
class ImportedRow:
    """A decision made elsewhere and what came of it, each without its position, time and join."""

    decision: DecisionRecord
    report: ReportRecord


@dataclass(frozen=True, slots=True)
class ImportWrite:
    """Appends decisions made elsewhere, each with its report right after it; gives a disposition for each.

    A row whose request_id its router knows already is a duplicate, and is not written.
    """

    rows: Sequence[ImportedRow]


Write = DecisionWrite | ReportWrite | ImportWrite | Transact


@dataclass(frozen=True, slots=True)
class WrittenBatch:
    """One result for each write, an exception object for each that was refused; the log's time for them; and what
    the log gained, None where a Transact may have logged what this module knows nothing of.
    """

    results: list[Any]
    time_us: int
    page: LogPage | None


def write_batch(
    connection: Connection,
    writes: Sequence[Write],
    now_us: int,
    catalogue: Catalogue,
    recent: RecentDecisions,
) -> WrittenBatch:
    """Writes the batch. Decisions that are among the `recent` ones are not read back for their reports.

    The update of `log_head` comes before all other statements: it holds off every other writer until the commit,
    so that positions become visible in their order, and the log's time never runs backwards. What can be made
    before it is.
    """
    rows = {i: decision_row(each.draft) for i, each in enumerate(writes) if isinstance(each, DecisionWrite)}
    positions = [2 * len(each.rows) if isinstance(each, ImportWrite) else 1 for each in writes]
    first, time_us, partitioned_until = _reserve(connection, sum(positions), now_us)
    newest = max(_decision_ids(writes), default="")
    if newest and newest >= partitioned_until:
        partitions.extend(connection, partitioned_until, newest)
    results: list[Any] = [None] * len(writes)
    decision_drafts: list[tuple[int, DecisionRecord, float]] = []
    report_drafts: list[tuple[int, ReportRecord, ReportWrite]] = []
    imports: list[tuple[int, int, ImportWrite]] = []
    transacts: list[tuple[int, int, Transact]] = []
    starts = accumulate(positions, initial=first)
    for index, (write, seq) in enumerate(zip(writes, starts, strict=False)):
        if isinstance(write, DecisionWrite):
            expire_us = time_us + write.window_us
            draft = altered(write.draft, seq=seq, time_us=time_us, expire_us=expire_us)
            decision_drafts.append((index, draft, write.second_max_usd))
        elif isinstance(write, ReportWrite):
            report_drafts.append((index, altered(write.draft, seq=seq, time_us=time_us), write))
        elif isinstance(write, ImportWrite):
            imports.append((index, seq, write))
        else:
            transacts.append((index, seq, write))
    records: list[LogRecord] = []
    if decision_drafts:
        records += _write_decisions(connection, decision_drafts, rows, results)
    if report_drafts:
        records += _write_reports(connection, report_drafts, catalogue, recent, results)
    for index, seq, write in imports:
        results[index], imported = _write_import(connection, write, seq, time_us, catalogue)
        records += imported
    # Last, so that a change of the registry sees every decision that was made before it.
    for index, seq, transact in transacts:
        results[index] = _transact(connection, transact, seq, time_us)
    records.sort(key=attrgetter("seq"))
    is_whole = not any(transact.logs for _, _, transact in transacts)
    page = LogPage(first - 1, records, first + sum(positions) - 1) if is_whole else None
    return WrittenBatch(results, time_us, page)


def _reserve(connection: Connection, count: int, now_us: int) -> tuple[int, int, str]:
    """The first of `count` positions of the log, the log's time for them, and where its partitions end."""
    head = connection.execute(_RESERVE, {"count": count, "now_us": now_us}).one()
    return head.seq - count + 1, head.time_us, head.partitioned_until


def _decision_ids(writes: Sequence[Write]) -> Iterator[str]:
    for write in writes:
        if isinstance(write, DecisionWrite):
            yield write.draft.decision_id
        elif isinstance(write, ImportWrite):
            yield from (row.decision.decision_id for row in write.rows)


def _transact(connection: Connection, write: Transact, seq: int, time_us: int) -> Any:
    savepoint = connection.begin_nested()
    try:
        result = write.apply(connection, seq, time_us)
    except (PointsmanError, InvalidFieldError) as refusal:
        savepoint.rollback()
        return refusal
    savepoint.commit()
    return result


def _write_decisions(
    connection: Connection,
    writes: Sequence[tuple[int, DecisionRecord, float]],
    rows: Mapping[int, dict[str, Any]],
    results: list[Any],
) -> list[DecisionRecord]:
    """Writes the drafts, each with what second calls may cost on its day. Their `rows` have no positions and times
    yet. Fills in the results; gives the records that are new.
    """
    drafts = [draft for _, draft, _ in writes]
    known = decisions_by_request(connection, drafts)
    days = SecondDays(connection)
    days.read([day_of(each.router_uid, each.time_us) for each in drafts if each.choice.second])
    fresh, fresh_rows = [], []
    for index, draft, second_max_usd in writes:
        key = draft.router_uid, draft.request_id
        earlier = known.get(key)
        if earlier is not None:
            results[index] = earlier
            continue
        results[index] = granted = days.granted(draft, second_max_usd)
        if granted.request_id:
            known[key] = granted
        fresh.append(granted)
        row = rows[index] if granted is draft else decision_row(granted)
        fresh_rows.append(row | {"seq": draft.seq, "time_us": draft.time_us, "expire_us": draft.expire_us})
    if fresh:
        insert_rows(connection, decisions, fresh_rows)
        days.store()
    return fresh


def _write_import(
    connection: Connection, write: ImportWrite, seq: int, time_us: int, catalogue: Catalogue
) -> tuple[list[Disposition], list[DecisionRecord | ReportRecord]]:
    """The disposition of each row, and the records that are new: of each new row two, one after the other."""
    seen = set(decisions_by_request(connection, [row.decision for row in write.rows]))
    dispositions: list[Disposition] = []
    fresh: list[tuple[DecisionRecord, ReportRecord]] = []
    for position, row in enumerate(write.rows):
        key = row.decision.router_uid, row.decision.request_id
        dispositions.append(Disposition.DUPLICATE if key in seen else Disposition.RECORDED)
        if key not in seen:
            seen.add(key)
            fresh.append(_stamped(row, seq + 2 * position, time_us, catalogue))
    if fresh:
        insert_rows(connection, decisions, [decision_row(decision) for decision, _ in fresh])
        insert_rows(connection, reports, [report_row(report) for _, report in fresh])
    return dispositions, [record for pair in fresh for record in pair]


def _stamped(
    row: ImportedRow, seq: int, time_us: int, catalogue: Catalogue
) -> tuple[DecisionRecord, ReportRecord]:
    """The row's decision at this position of the log, and its report, joined, at the next."""
    decision = altered(row.decision, seq=seq, time_us=time_us)
    draft = altered(row.report, seq=seq + 1, time_us=time_us)
    router = _router_of(decision, catalogue)
    rule = router.spec.reward_rule if router else RewardRule()
    prices = _prices(router, decision.choice.model)
    return decision, resolve(draft, joined(False, []), decision.choice.model, rule, prices)


def _router_of(decision: DecisionRecord | Subject, catalogue: Catalogue) -> Router | None:
    """The router as it is now, None if it was deleted, whatever has its id since.

    Where another server has made it anew, and this one has yet to hear of it, it is what this one knows of.
    """
    router = catalogue.router(decision.router)
    return router if router is not None and router.uid <= decision.router_uid else None


def _prices(router: Router | None, model: str) -> Prices | None:
    """Those of the model as it is now, None if it is gone."""
    return {each.id: each.spec.prices for each in router.models}.get(model) if router else None


def _write_reports(
    connection: Connection,
    writes: Sequence[tuple[int, ReportRecord, ReportWrite]],
    catalogue: Catalogue,
    recent: RecentDecisions,
    results: list[Any],
) -> list[ReportRecord]:
    """Fills in the results; gives the records that are new."""
    decision_ids = sorted({draft.decision_id for _, draft, _ in writes})
    subjects = recent.find(decision_ids, writes[0][1].time_us)
    subjects |= report_subjects(connection, [each for each in decision_ids if each not in subjects])
    earlier = earlier_reports(connection, decision_ids)
    days = SecondDays(connection)
    seconds = {draft.decision_id for _, draft, _ in writes if draft.second}
    days.read([day_of(row.router_uid, row.time_us) for each, row in subjects.items() if each in seconds])
    fresh = []
    for index, draft, write in writes:
        decision_id = draft.decision_id
        try:
            decision = subjects.get(decision_id)
            if decision is None or (write.permitted is not None and decision.router not in write.permitted):
                raise DecisionNotFoundError(decision_id)
            siblings = earlier[decision_id]
            report, disposition = _judge(draft, write.served_router, decision, siblings, catalogue)
        except (PointsmanError, InvalidFieldError) as refusal:
            results[index] = refusal
            continue
        if disposition is not Disposition.DUPLICATE:
            siblings.append(report)
            fresh.append(report)
            days.settle(decision, report)
        results[index] = disposition
    if fresh:
        insert_rows(connection, reports, [report_row(each) for each in fresh])
        days.store()
    return fresh


def _judge(
    draft: ReportRecord,
    served_router: str,
    decision: Subject,
    siblings: Sequence[ReportRecord],
    catalogue: Catalogue,
) -> tuple[ReportRecord, Disposition]:
    """The report with its part in the join, and its disposition. Raises for one that is refused."""
    if draft.report_id and any(each.report_id == draft.report_id for each in siblings):
        return draft, Disposition.DUPLICATE
    if draft.second and not decision.second_model:
        raise InvalidFieldError("second", f"must not be set: {draft.decision_id} names no second_model")
    called = (decision.second_model or "") if draft.second else decision.model
    state = joined(decision.deferred, siblings)
    if draft.activation and state.active:
        return draft, Disposition.DUPLICATE
    late = draft.time_us > decision.expire_us
    if draft.activation and late:
        raise DecisionExpiredError(draft.decision_id)
    router = _router_of(decision, catalogue)
    known = router is None or catalogue.knows_model(decision.router, draft.served_model)
    if draft.served_model and (served_router not in ("", decision.router) or not known):
        raise ModelNotFoundError(decision.router, draft.served_model, "served_model")
    rule = router.spec.reward_rule if router else RewardRule()
    for name in rule.signal_weights:
        if not 0.0 <= draft.signals.get(name, 0.0) <= 1.0:
            raise InvalidFieldError(
                f"signals[{name}]",
                f"must be in [0, 1], since the router's reward rule weighs it, not {draft.signals[name]!r}",
            )
    prices = _prices(router, draft.served_model or called)
    report = resolve(altered(draft, late=late) if late else draft, state, called, rule, prices)
    return report, Disposition.LATE if late else Disposition.RECORDED
