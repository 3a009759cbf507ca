"""The end of the log in memory gives what the database would, or nothing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from policy.log import LogRecord, TickRecord
from server.storage.tail import LogPage, LogTail


def page(after: int, upto: int) -> LogPage:
    """A page of ticks."""
    return LogPage(after, [TickRecord(seq, seq) for seq in range(after + 1, upto + 1)], upto)


def seqs(found: LogPage | None) -> list[int]:
    records: list[LogRecord] = found.records if found else []
    return [each.seq for each in records]


def test_pages_that_follow_on_each_other_are_joined_up_to_the_limit() -> None:
    tail = LogTail()
    for after in (0, 3, 6):
        tail.put(page(after, after + 3))
    found = tail.take(0, 5)
    assert found is not None
    assert (found.after, found.upto, seqs(found)) == (0, 6, [1, 2, 3, 4, 5, 6])
    assert seqs(tail.take(6, 5)) == [7, 8, 9]
    assert tail.take(9, 5) is None


def test_a_gap_is_left_to_the_database() -> None:
    tail = LogTail()
    tail.put(page(0, 3))
    tail.put(page(5, 8))
    assert seqs(tail.take(0, 100)) == [1, 2, 3]
    assert tail.take(3, 100) is None
    assert seqs(tail.take(5, 100)) == [6, 7, 8]


def test_of_a_page_that_was_read_in_part_elsewhere_the_rest_is_given() -> None:
    tail = LogTail()
    for after in (0, 3, 6):
        tail.put(page(after, after + 3))
    found = tail.take(4, 100)
    assert found is not None
    assert (found.after, found.upto, seqs(found)) == (4, 9, [5, 6, 7, 8, 9])


def test_a_page_of_which_nothing_was_stored_is_passed_over() -> None:
    tail = LogTail()
    tail.put(LogPage(0, [], 3))
    tail.put(page(3, 5))
    found = tail.take(1, 100)
    assert found is not None
    assert (found.after, found.upto, seqs(found)) == (1, 5, [4, 5])


def test_the_oldest_pages_go_when_there_are_too_many() -> None:
    tail = LogTail()
    for number in range(100):
        tail.put(page(number * 1000, number * 1000 + 1000))
    assert tail.take(0, 100) is None
    assert seqs(tail.take(92_000, 1)) == list(range(92_001, 93_001))


@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(1, 20)), max_size=30),
    st.integers(0, 10),
    st.integers(1, 60),
)
def test_pages_that_overlap_give_each_record_once_and_in_order(
    made: list[tuple[int, int]], after: int, limit: int
) -> None:
    tail = LogTail()
    for start, length in made:
        tail.put(page(start, start + length))
    while (found := tail.take(after, limit)) is not None:
        assert (found.after, seqs(found)) == (after, list(range(after + 1, found.upto + 1)))
        after = found.upto


def test_a_page_that_came_in_later_is_found_behind_one_that_does_not_follow() -> None:
    """Written here after a gap of another server's, and then the gap as it was read for the learner."""
    tail = LogTail()
    tail.put(page(4, 6))
    tail.put(page(8, 9))
    tail.put(page(2, 7))
    found = tail.take(2, 100)
    assert found is not None
    assert (found.upto, seqs(found)) == (7, [3, 4, 5, 6, 7])
    assert tail.take(7, 100) is None
    assert seqs(tail.take(8, 100)) == [9]
