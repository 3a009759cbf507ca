"""What must hold of a history and the log that it left. Each check gives one line for each violation."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import pairwise

from faults.history import Answer, ChangeCall, History, ReportCall, RouteCall
from faults.stored import Follower, Stored, StoredDecision, StoredReport

_ROUNDING = 1e-9


def violations(history: History, stored: Stored, follower: Follower) -> list[str]:
    """All that is wrong."""
    checks = (
        answers_are_stored(history, stored),
        a_request_has_one_answer(history),
        reports_are_stored(history, stored),
        dispositions_follow(history),
        nothing_is_invented(history, stored),
        positions_are_in_order(stored),
        a_follower_missed_nothing(follower, stored),
        propensities_are_probabilities(stored),
    )
    return [*history.unexpected, *(line for check in checks for line in check)]


def answers_are_stored(history: History, stored: Stored) -> Iterator[str]:
    """Every decision that was acknowledged is in the log once, as it was told."""
    by_id: dict[str, list[StoredDecision]] = defaultdict(list)
    for row in stored.decisions:
        by_id[row.decision_id].append(row)
    for call in history.routes:
        if call.answer is None:
            continue
        name = f"decision {call.answer.decision_id} (request {call.request_id} of {call.router}, by {call.server})"
        rows = by_id[call.answer.decision_id]
        if len(rows) != 1:
            yield f"{name} was acknowledged and is in the log {len(rows)} times"
            continue
        yield from (f"{name}: {what}" for what in _otherwise(call, call.answer, rows[0]))


def _otherwise(call: RouteCall, answer: Answer, row: StoredDecision) -> Iterator[str]:
    told = (call.router, call.request_id, answer.model, answer.probability, answer.candidates, answer.fallbacks)
    kept = (row.router, row.request_id, row.model, row.propensity, row.candidates, row.fallbacks)
    names = ("router", "request_id", "model", "probability", "candidates", "fallbacks")
    for name, one, other in zip(names, told, kept, strict=True):
        if one != other:
            yield f"{name} {one!r} was told, {other!r} is in the log"


def a_request_has_one_answer(history: History) -> Iterator[str]:
    """A request gets the same answer whenever and wherever it is asked."""
    first: dict[tuple[str, str], RouteCall] = {}
    for call in history.routes:
        if call.answer is None:
            continue
        known = first.setdefault((call.router, call.request_id), call)
        assert known.answer is not None
        if known.answer.digest != call.answer.digest:
            yield (
                f"request {call.request_id} of {call.router} was given decision {known.answer.decision_id} by "
                f"{known.server}, and another answer, {call.answer.decision_id}, by {call.server}"
            )


def reports_are_stored(history: History, stored: Stored) -> Iterator[str]:
    """Every report that was acknowledged is in the log exactly once, as it was sent, and in time."""
    by_key: dict[tuple[str, str], list[StoredReport]] = defaultdict(list)
    for row in stored.reports:
        by_key[row.decision_id, row.report_id].append(row)
    for key, calls in _by_key(history).items():
        if not any(each.disposition for each in calls):
            continue
        name, rows = _name(key), by_key[key]
        if not key[1]:  # An activation is stored only where nothing else had made the decision count.
            needed = int(any(each.disposition == "RECORDED" for each in calls))
            if not needed <= len(rows) <= 1:
                yield f"{name} is in the log {len(rows)} times"
        elif len(rows) != 1:
            yield f"{name} was acknowledged and is in the log {len(rows)} times"
        elif (rows[0].reward, rows[0].cost_usd) != (calls[0].reward, calls[0].cost_usd):
            yield f"{name} is in the log with another reward or cost than was sent"
        elif rows[0].late:
            yield f"{name} is in the log as late, though its window was open"


def dispositions_follow(history: History) -> Iterator[str]:
    """RECORDED once at most and never after an acknowledgement; DUPLICATE only of what was sent before."""
    for key, calls in _by_key(history).items():
        name = _name(key)
        recorded = [each for each in calls if each.disposition == "RECORDED"]
        if len(recorded) > 1:
            yield f"{name} was answered RECORDED {len(recorded)} times"
        for call in calls:
            others = [each for each in calls if each is not call]
            if call.disposition == "RECORDED" and any(
                each.disposition and each.ended < call.began for each in others
            ):
                yield f"{name} was answered RECORDED after it had been acknowledged"
            if call.disposition == "DUPLICATE" and key[1] and not any(each.began < call.ended for each in others):
                yield f"{name} was answered DUPLICATE at its first try"
            if call.disposition not in ("", "RECORDED", "DUPLICATE"):
                yield f"{name} was answered {call.disposition}"


def nothing_is_invented(history: History, stored: Stored) -> Iterator[str]:
    """Whatever is in the log was sent by a client, and is there once at most, answered or not."""
    asked = {(each.router, each.request_id): each for each in history.routes}
    for row in stored.decisions:
        call = asked.get((row.router, row.request_id))
        if call is None or (call.session_id, call.deferred) != (row.session_id, row.deferred):
            yield f"decision {row.decision_id} of request {row.request_id!r} of {row.router} was never asked for"
    requests = Counter((row.router_uid, row.request_id) for row in stored.decisions)
    for (_, request), count in requests.items():
        if count > 1:
            yield f"request {request} has {count} decisions"
    for decision_id, count in Counter(row.decision_id for row in stored.decisions).items():
        if count > 1:
            yield f"decision {decision_id} is in the log {count} times"
    sent = _by_key(history)
    for key, count in Counter((row.decision_id, row.report_id) for row in stored.reports).items():
        if key not in sent:
            yield f"{_name(key)} is in the log and was never sent"
        if count > 1:
            yield f"{_name(key)} is in the log {count} times"


def positions_are_in_order(stored: Stored) -> Iterator[str]:
    """A position is of one row, below the log's end; time never runs backwards along them."""
    rows = stored.rows()
    for before, after in pairwise(rows):
        if before.seq == after.seq:
            yield f"position {before.seq} is that of {before.key} and of {after.key}"
        if before.time_us > after.time_us:
            yield f"{after.key} at {after.seq} is earlier than {before.key} at {before.seq}"
    if rows and (rows[-1].seq > stored.head_seq or rows[-1].time_us > stored.head_time_us):
        yield f"{rows[-1].key} at {rows[-1].seq} is beyond the end of the log, {stored.head_seq}"


def a_follower_missed_nothing(follower: Follower, stored: Stored) -> Iterator[str]:
    """Who had read up to a position had read all that there ever is up to it, and all of that stayed."""
    yield from follower.wrong
    kept = {row.seq: row.key for row in stored.rows()}
    for seq, key in kept.items():
        if seq <= follower.cursor and follower.seen.get(seq) != key:
            seen = follower.seen.get(seq, "nothing")
            yield f"{key} at {seq}: who followed the log had read beyond it, and seen {seen} there"
    for seq, key in follower.seen.items():
        if seq not in kept:
            yield f"{key} at {seq} was read by who followed the log, and is gone"


def propensities_are_probabilities(stored: Stored) -> Iterator[str]:
    """Each lies in (0, 1], is that of the model among the candidates, and those sum to 1."""
    for row in stored.decisions:
        if not 0.0 < row.propensity <= 1.0:
            yield f"decision {row.decision_id} has propensity {row.propensity!r}"
        if row.candidates.get(row.model) != row.propensity:
            yield f"decision {row.decision_id}: its propensity is not that of {row.model} among its candidates"
        if not math.isclose(sum(row.candidates.values()), 1.0, abs_tol=_ROUNDING):
            yield f"decision {row.decision_id}: its propensities sum to {sum(row.candidates.values())!r}"


def budget_is_kept(stored: Stored, router: str, budget_usd: float, over: float, requests: int) -> Iterator[str]:
    """All that a router has spent is at most `over` budgets, and those of so many `requests` on top.

    A decision of which no cost was told costs what was predicted.
    """
    spent_usd, decisions = spending(stored, router)
    most_usd = budget_usd * (over * decisions + requests)
    if spent_usd > most_usd:
        yield f"{router} spent {spent_usd:.4f} USD on {decisions} decisions, more than {most_usd:.4f}"


def spending(stored: Stored, router: str) -> tuple[float, int]:
    """What the decisions that count have cost, in USD, and how many those are."""
    told: dict[str, list[float]] = defaultdict(list)
    for report in stored.reports:
        told[report.decision_id] += [] if report.cost_usd is None else [report.cost_usd]
    mine = [
        row for row in stored.decisions if row.router == router and (not row.deferred or row.decision_id in told)
    ]
    costs = [sum(told[row.decision_id]) if told.get(row.decision_id) else row.costs_usd[row.model] for row in mine]
    return math.fsum(costs), len(mine)


def registry_is_one_of(changes: list[ChangeCall], initial: float | None, found: float | None) -> bool:
    """Whether the registry's last state can have come of these changes of one thing.

    It is what the last acknowledged change made of it, or one that was not answered: that may be carried out at
    any time later, by a server that was paused. A refused one has changed nothing.
    """
    acknowledged = [each.value for each in changes if not each.error]
    unanswered = [
        each.value for each in changes if each.error not in ("", "ALREADY_EXISTS", "NOT_FOUND", "ABORTED")
    ]
    return found in ([initial, *acknowledged][-1], *unanswered)


def _by_key(history: History) -> dict[tuple[str, str], list[ReportCall]]:
    found: dict[tuple[str, str], list[ReportCall]] = defaultdict(list)
    for call in history.reports:
        found[call.key].append(call)
    return found


def _name(key: tuple[str, str]) -> str:
    return f"report {key[1]!r} on {key[0]}" if key[1] else f"the activation of {key[0]}"
