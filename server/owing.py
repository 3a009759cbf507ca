"""What exploring owes by the decisions of this process, whether or not a learner hears of them."""

from __future__ import annotations

from collections import OrderedDict

from policy.books import expected_loss, owed_after
from policy.choices import Choice


class Owing:
    """For each router what the decisions made here owe: see `books.loss_limit`.

    A view says what all decisions owe, but only of those it has learned. While no learner is there it stays as it
    is, and by it alone each decision might give up what one may, for ever. With this, `n` decisions of `m`
    processes give up at most `(n + 500 * m) * loss_max` in expectation, whatever the views know. At most
    `size_max` routers are in debt at a time; of more the one that decided longest ago is let off.
    """

    def __init__(self, size_max: int = 10_000) -> None:
        self._size_max = size_max
        self._owed: OrderedDict[int, float] = OrderedDict()

    def of(self, router_uid: int) -> float:
        """The utility that the router owes by what was decided here."""
        return self._owed.get(router_uid, 0.0)

    def add(self, router_uid: int, choice: Choice, loss_max: float) -> None:
        """Notes a decision of the router, which may give up `loss_max` on average."""
        owed = owed_after(self._owed.pop(router_uid, 0.0), expected_loss(choice), loss_max)
        if owed:
            self._owed[router_uid] = owed
            if len(self._owed) > self._size_max:
                self._owed.popitem(last=False)
