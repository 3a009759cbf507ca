"""The end of the log in memory: what this process wrote, or read for another, for who follows the log."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

from policy.log import LogRecord

_SIZE_MAX = 8192


@dataclass(frozen=True, slots=True)
class LogPage:
    """The records at positions in (after, upto], in order; nothing is missing from them above `floor`.

    Up to there decisions and reports were dropped when the page was read.
    """

    after: int
    records: list[LogRecord]
    upto: int
    floor: int = 0


class LogTail:
    """The newest pages, as committed. Saves one follower of the log from reading back what was just written.

    Only a shortcut: where a page is not here, because another process wrote it or it was pushed
    out, the reader goes to the database. What one follower has read there may be put here for another, beside what
    was written, so that pages may overlap. Safe to use from any thread.
    """

    def __init__(self) -> None:
        self._pages: deque[LogPage] = deque()
        self._size = 0
        self._lock = threading.Lock()

    def put(self, page: LogPage) -> None:
        """Adds a committed page; the oldest go when there are too many."""
        with self._lock:
            self._pages.append(page)
            self._size += _size(page)
            while self._size > _SIZE_MAX:
                self._drop()

    def take(self, after: int, limit: int) -> LogPage | None:
        """The pages that follow on `after`, joined until they span `limit` positions; None if there are none.

        They are gone from here then, and so are those before them. Of a page that was begun elsewhere the rest is
        given.
        """
        records: list[LogRecord] = []
        upto = after
        with self._lock:
            while upto - after < limit and (page := self._next(upto)) is not None:
                records += (
                    [each for each in page.records if each.seq > upto] if page.after < upto else page.records
                )
                upto = page.upto
        return None if upto == after else LogPage(after, records, upto)

    def _next(self, after: int) -> LogPage | None:
        """A page that follows on `after`. Where several write the log, those of this process have gaps between
        them, and what was read for another comes in later.
        """
        while self._pages and self._pages[0].upto <= after:
            self._drop()
        for number, page in enumerate(self._pages):
            if page.after <= after < page.upto:
                del self._pages[number]
                self._size -= _size(page)
                return page
        return None

    def _drop(self) -> None:
        self._size -= _size(self._pages.popleft())


def _size(page: LogPage) -> int:
    """A page takes room even if it is of positions without records, such as refused reports."""
    return 1 + len(page.records)
