"""Counters as Prometheus needs them, from totals that a learner keeps."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable


class Rising:
    """What has been added to totals since this process began to follow them.

    A learner's totals are there again after a restart, shrink a little when a cost is corrected and more when a
    snapshot is restored. Prometheus would take each for a counter that began again at 0, and see all of the total
    as if it had just come.
    """

    def __init__(self) -> None:
        self._last: dict[Hashable, float] = {}
        self._added: dict[Hashable, float] = defaultdict(float)
        self._asked: set[Hashable] = set()

    def begin(self, key: Hashable, total: float) -> None:
        """Follows the total from here on. One that is not begun with is followed from 0."""
        self._last[key] = total

    def added(self, key: Hashable, total: float) -> float:
        """What has been added to the total, which is this by now."""
        self._added[key] += max(0.0, total - self._last.get(key, 0.0))
        self._last[key] = total
        self._asked.add(key)
        return self._added[key]

    def forget_others(self) -> None:
        """Follows no more what was not asked for since this was called last: it has gone."""
        for key in self._last.keys() - self._asked:
            self._last.pop(key)
            self._added.pop(key, None)
        self._asked = set()
