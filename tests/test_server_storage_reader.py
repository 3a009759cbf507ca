"""Reading the log: pages in order, closing times never split."""

from __future__ import annotations

import pytest
from engines import BOTH_ENGINES
from servers import Disk, draft_decision, draft_report, hex_id, seeded

from policy.domain import RouterSpec
from policy.log import DecisionRecord, RegistryRecord, ReportRecord
from server.storage import registry_store
from server.storage.reader import LogReader
from server.storage.tail import LogPage, LogTail
from server.storage.writes import DecisionWrite, ReportWrite

pytestmark = BOTH_ENGINES


@pytest.fixture
def log(disk: Disk) -> Disk:
    disk.put_router("default", RouterSpec(embedding_dimensions=8), "a", "b")
    return disk


def pages(log: Disk, limit: int) -> list[list[object]]:
    found, after = [], 0
    while (page := log.reader.page(after, limit)).upto > after:
        assert all(after < each.seq <= page.upto for each in page.records)
        assert page.upto <= after + limit
        found.append(page.records)
        after = page.upto
    assert after == log.reader.head()
    return found


@pytest.mark.parametrize("limit", [1, 2, 7, 1000])
def test_pages_of_any_size_give_every_record_once_and_in_order(log: Disk, limit: int) -> None:
    for i in range(20):
        log.write(
            DecisionWrite(draft_decision(hex_id(i), request_id=f"r{i // 2}"), 1000),
            ReportWrite(draft_report(hex_id(i // 4), report_id="once")),
        )
    records = [each for page in pages(log, limit) for each in page]
    seqs = [each.seq for each in records]
    assert seqs == sorted(set(seqs))
    kinds = [sum(isinstance(each, kind) for each in records) for kind in (DecisionRecord, ReportRecord)]
    assert kinds == [10, 3]  # Of report 0..4 on decisions 0, 2, 4: hex_id(1), (3) were never stored.
    assert sum(isinstance(each, RegistryRecord) for each in records) == 3


def test_positions_that_hold_nothing_are_passed_over_not_waited_for(log: Disk) -> None:
    log.decide(draft_decision(hex_id(1)))
    for _ in range(9):
        log.write(ReportWrite(draft_report(hex_id(404))))
    page = log.reader.page(4, 5)
    assert (page.records, page.upto) == ([], 9)


def test_a_page_that_is_read_back_is_handed_on_to_the_other_follower(log: Disk) -> None:
    for number in range(5):
        log.decide(draft_decision(hex_id(number)))
    other = LogTail()
    page = LogReader(log.engine, LogTail(), other).page(0, 100)
    assert other.take(0, 100) == LogPage(0, page.records, page.upto)
    assert other.take(0, 100) is None


def test_an_empty_log_has_no_page(disk: Disk) -> None:
    page = disk.reader.page(0, 10)
    assert (page.records, page.upto, disk.reader.head()) == ([], 0, 0)


def test_expired_gives_every_decision_once_and_never_splits_a_closing_time(log: Disk) -> None:
    random = seeded("closing times")
    windows = [random.choice((10, 10, 10, 20, 30, 31)) for _ in range(60)]
    log.write(*(DecisionWrite(draft_decision(hex_id(i)), window) for i, window in enumerate(windows)))
    for limit in (1, 3, 10, 1000):
        after, seen = 0, []
        while found := log.reader.expired(after, log.now_us + 30, limit):
            times = [each.expire_us for each in found]
            assert times == sorted(times)
            assert min(times) > after, "a closing time was split between two calls"
            after = times[-1]
            seen.extend(each.decision_id for each in found)
        assert sorted(seen) == sorted(hex_id(i) for i, window in enumerate(windows) if window <= 30)


def test_the_bounds_of_expired_are_above_the_first_and_up_to_the_second(log: Disk) -> None:
    first = log.decide(draft_decision(hex_id(1)), 10)
    log.decide(draft_decision(hex_id(2)), 20)
    found = log.reader.expired(first.expire_us, first.expire_us + 10, 100)
    assert [each.decision_id for each in found] == [hex_id(2)]
    assert log.reader.expired(first.expire_us, first.expire_us + 9, 100) == []


def test_the_next_expiry_is_the_first_after_a_time(log: Disk) -> None:
    late = log.decide(draft_decision(hex_id(1)), 20)
    soon = log.decide(draft_decision(hex_id(2)), 10)
    assert log.reader.next_expiry_us(0) == soon.expire_us
    assert log.reader.next_expiry_us(soon.expire_us) == late.expire_us
    assert log.reader.next_expiry_us(late.expire_us) is None


def test_a_sessions_model_is_that_of_its_last_decision_in_time(log: Disk) -> None:
    decided = [log.decide(draft_decision(hex_id(i), session_id="s", seed=i)) for i in range(5)]
    last = decided[-1]
    found = log.reader.session_decision(1, "s", last.time_us)
    assert found is not None
    assert (found.decision_id, found.choice.model) == (last.decision_id, last.choice.model)
    assert log.reader.session_decision(1, "s", last.time_us + 1) is None
    assert log.reader.session_decision(1, "other", 0) is None
    assert log.reader.session_decision(2, "s", 0) is None


def test_decisions_and_reports_are_found_beyond_one_query(log: Disk) -> None:
    ids = [hex_id(i) for i in range(950)]
    log.write(*(DecisionWrite(draft_decision(each), 1000) for each in ids))
    log.write(*(ReportWrite(draft_report(each)) for each in ids))
    assert set(log.reader.decisions(ids)) == set(log.reader.reports(ids)) == set(ids)


def test_reports_of_a_decision_stand_in_the_order_of_the_log(log: Disk) -> None:
    decision = log.decide(draft_decision(hex_id(1)))
    for name in "cab":
        log.report(decision, report_id=name, reward=1.0)
    assert [each.report_id for each in log.reader.reports([hex_id(1)])[hex_id(1)]] == ["c", "a", "b"]


def test_a_deleted_router_is_in_the_log_as_none(log: Disk) -> None:
    log.change("default", registry_store.delete_router("default", None))
    last = log.reader.page(log.reader.head() - 1, 1).records[0]
    assert isinstance(last, RegistryRecord)
    assert (last.router_id, last.router) == ("default", None)
