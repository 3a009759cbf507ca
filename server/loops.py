"""Makes the loops that learn and evaluate: where others share the database, with what tells them of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Engine

from server.evaluation_loop import EvaluationLoop, Found
from server.learner_loop import LearnerLoop, Submit
from server.registry import Registry
from server.storage.reader import LogReader
from server.view_publisher import ViewPublisher
from server.views import CandidateViews, Views

# Where other servers write too, nobody says so.
_POLL_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Loops:
    """`readers` are the learner's and the evaluation's, `shared` says whether others use the database too. Views
    are published through an engine of their own.
    """

    engine: Engine
    view_engine: Engine
    readers: tuple[LogReader, LogReader]
    registry: Registry
    views: Views
    candidate_views: CandidateViews
    submit: Submit
    clock_us: Callable[[], int]
    snapshot_seconds: float
    evaluation_seconds: float
    shared: bool

    def learner(self, on_health: Callable[[bool], object]) -> LearnerLoop:
        """One that says how it is."""
        publisher = ViewPublisher(self.view_engine, self.clock_us, canaries=False)
        return LearnerLoop(
            self.readers[0],
            self.views,
            self.submit,
            self.clock_us,
            on_health,
            self.snapshot_seconds,
            *((publisher.put, _POLL_SECONDS) if self.shared else ()),
        )

    def evaluation(
        self,
        on_health: Callable[[bool], object],
        on_alarm: Callable[[bool], object],
        on_found: Callable[[str, Found | None], object],
    ) -> EvaluationLoop:
        """One that says how it is, how the live policies do, and what it has found of a router."""
        publisher = ViewPublisher(self.view_engine, self.clock_us, canaries=True)
        return EvaluationLoop(
            self.engine,
            self.readers[1],
            self.registry,
            self.candidate_views,
            self.submit,
            self.clock_us,
            on_health,
            on_alarm,
            on_found,
            self.evaluation_seconds,
            *((publisher.put, _POLL_SECONDS) if self.shared else ()),
        )
