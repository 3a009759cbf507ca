"""What the parts of a server share: its settings and clock, its database and log, and what it has in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Engine

from server.clock import LogClock
from server.metrics.endpoint import Metrics
from server.registry import Registry
from server.settings import Settings
from server.storage.bounded_reads import BoundedReads
from server.storage.database import Database
from server.storage.group_commit import GroupCommit
from server.storage.reader import LogReader
from server.storage.tail import LogTail
from server.usecases.change_registry import ChangeRegistry
from server.views import CandidateViews, Views


@dataclass(frozen=True, slots=True)
class Parts:
    """`reader` is the learner's and the requests', `evaluation_reader` the evaluation's. Every change of the
    registry goes through `change`.
    """

    settings: Settings
    clock: LogClock
    database: Database
    reader: LogReader
    evaluation_reader: LogReader
    registry: Registry
    views: Views
    candidate_views: CandidateViews
    metrics: Metrics
    log: GroupCommit
    reads: BoundedReads
    change: ChangeRegistry

    @property
    def engine(self) -> Engine:
        """That of the database, for what must not be lost."""
        return self.database.engine


def make_parts(settings: Settings, clock: LogClock, on_commit: Callable[[], None]) -> Parts:
    """Makes them; connects to nothing yet. Raises InvalidFieldError for a database's URL that is none.

    `on_commit` is called when the log has grown.
    """
    database = Database(settings.database_url, settings.durability, several=settings.several)
    tails = LogTail(), LogTail()
    registry, views = Registry(), Views()
    metrics = Metrics(registry, views, clock)
    log = GroupCommit(
        database.engine,
        registry,
        clock,
        on_commit,
        settings.write_queue_max,
        tails,
        on_batch=metrics.batches.add,
        on_time=clock.reached,
    )
    return Parts(
        settings,
        clock,
        database,
        LogReader(database.engine, tails[0], tails[1]),
        LogReader(database.engine, tails[1]),
        registry,
        views,
        CandidateViews(),
        metrics,
        log,
        BoundedReads(settings.storage_wait_seconds),
        ChangeRegistry(registry, log, settings.window_seconds_max),
    )
