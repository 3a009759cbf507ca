"""The learner and the evaluation of this server, while it is the one that learns."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from server.evaluation_loop import EvaluationLoop, Found
from server.learner_loop import LearnerLoop

Heard = Callable[[bool], object]
OnFound = Callable[[str, Found | None], object]
Find = Callable[[str], Found | None]


@dataclass(slots=True)
class _Said:
    """What the loops of a turn have said of themselves. Nobody hears of it any more once the turn is over."""

    learns: bool = False
    evaluates: bool = False
    satisfied: bool | None = None


@dataclass(frozen=True, slots=True)
class _Turn:
    learner: LearnerLoop
    evaluation: EvaluationLoop
    said: _Said
    since_us: int


class Learning:
    """Begins and ends with the server's turn to learn.

    `make_learner` makes a loop that says how it is; `make_evaluation` one that says how it is, how the live
    policies do, and what it has found of a router. `on_change` is called after anything here has changed, from any
    thread. `find_stored` tells what another server has found.
    """

    def __init__(
        self,
        make_learner: Callable[[Heard], LearnerLoop],
        make_evaluation: Callable[[Heard, Heard, OnFound], EvaluationLoop],
        on_found: OnFound,
        on_change: Callable[[], object],
        find_stored: Find,
        clock_us: Callable[[], int],
    ) -> None:
        self._make_learner = make_learner
        self._make_evaluation = make_evaluation
        self._on_found = on_found
        self._on_change = on_change
        self._find_stored = find_stored
        self._clock_us = clock_us
        self._turn: _Turn | None = None
        # A turn begins and ends in other threads than the one that stops the server.
        self._lock = threading.Lock()
        self._stopped = False
        self.died = False

    @property
    def active(self) -> bool:
        """Whether it is this server's turn."""
        return self._turn is not None

    @property
    def since_us(self) -> int | None:
        """When its turn began; None while it is another's."""
        turn = self._turn
        return None if turn is None else turn.since_us

    @property
    def learns(self) -> bool:
        """Whether the learner works, and has caught up with the log since its turn began."""
        turn = self._turn
        return turn is not None and turn.said.learns

    @property
    def evaluates(self) -> bool:
        """The same of the evaluation."""
        turn = self._turn
        return turn is not None and turn.said.evaluates

    @property
    def satisfied(self) -> bool | None:
        """Whether no model alone is known here to be better than a live policy; None before it was looked."""
        turn = self._turn
        return None if turn is None else turn.said.satisfied

    @property
    def learned_upto(self) -> int | None:
        """The position of the log up to which it is learned; None while nothing is."""
        turn = self._turn
        return turn.learner.position if turn is not None and turn.said.learns else None

    @property
    def evaluated_upto(self) -> int | None:
        """The position of the log up to which it is evaluated; None while nothing is."""
        turn = self._turn
        return None if turn is None else turn.evaluation.position

    def begin(self) -> None:
        """It is this server's turn, unless it has been stopped."""
        said = _Said()
        learner = self._make_learner(partial(self._hear, said, "learns"))
        evaluation = self._make_evaluation(
            partial(self._hear, said, "evaluates"),
            partial(self._hear, said, "satisfied"),
            partial(self._pass_on, said),
        )
        with self._lock:
            if self._stopped:
                return
            self._turn = _Turn(learner, evaluation, said, self._clock_us())
            learner.start()
            evaluation.start()
        self._on_change()

    def abandon(self) -> None:
        """It is another server's turn: nothing more is saved or published. Does not wait."""
        with self._lock:
            turn, self._turn = self._turn, None
            if turn is not None:
                turn.learner.abandon()
                turn.evaluation.abandon()
        if turn is not None:
            self._on_change()

    def stop(self) -> None:
        """Learns what is in the log, saves all, and ends the turn. Waits, not to be called in the event loop."""
        with self._lock:
            self._stopped, turn = True, self._turn
        if turn is not None:
            # The learner first: what the evaluation saves is a position that a snapshot need not know.
            turn.learner.stop()
            turn.evaluation.stop()
        self._turn = None

    def notify(self) -> None:
        """Says that the log has grown."""
        turn = self._turn
        if turn is not None:
            turn.learner.notify()
            turn.evaluation.notify()

    def find(self, router: str) -> Found | None:
        """What the evaluation knows of a router now, or where another server evaluates, what it has saved. Raises
        EvaluationUnavailableError where that of this server is busy, StorageUnavailableError.
        """
        turn = self._turn
        found = None if turn is None else turn.evaluation.find(router)
        return self._find_stored(router) if found is None else found

    def _hear(self, said: _Said, what: str, well: bool) -> None:
        setattr(said, what, well)
        turn = self._turn
        self.died |= turn is not None and turn.learner.died
        self._on_change()

    def _pass_on(self, said: _Said, router: str, found: Found | None) -> None:
        turn = self._turn
        if turn is not None and turn.said is said:
            self._on_found(router, found)
