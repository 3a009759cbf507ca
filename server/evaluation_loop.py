"""The evaluation at work: follows the log behind the learner, saves its state, watches the live policy."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from policy.confidence import Bounds
from policy.estimators import LEVEL
from policy.evaluation import Evaluation
from policy.evidence import Metric
from policy.guard import Crossed
from policy.league import Results
from policy.promotion import Promotion, better_fixed, judged
from policy.verdict import Requirements
from server.errors import EvaluationUnavailableError, PointsmanError
from server.evaluation_fold import EvaluationFold
from server.learner_fold import ReplayStoppedError
from server.registry import Registry
from server.storage.evaluation_store import forget_evaluations, load_evaluations, put_evaluation
from server.storage.reader import LogReader
from server.storage.writes import Transact
from server.views import CandidateViews, NewViews, OnViews

logger = logging.getLogger(__name__)

_PAGE = 64
_RETRY_SECONDS = 1.0
_IDLE_SECONDS_MAX = 60.0
_GATHER_SECONDS = 0.3
# While requests come in: nine tenths of the time are theirs.
_PAUSES_BUSY = 9.0
_PAUSES_SAVING = 3.0
_PAUSE_SECONDS_MAX = 1.0
# Saving and watching may take this share of the time: requests are slow meanwhile, and that is not to be one in a
# hundred of them.
_UPKEEP_SHARE = 0.002
_UPKEEP_GAP_SECONDS_MAX = 15.0
_WATCH_SECONDS = 1.0
_FIND_SECONDS = 1.0

Submit = Callable[[Transact], object]


@dataclass(frozen=True, slots=True)
class Found:
    """What an evaluation has found at a position of the log. Since `since` the live policy has been what it is.

    `worse_than` is the standing comparator that is better than the live policy with confidence, empty if none is,
    and `crossed` the guardrail that the live policy has crossed since it was promoted.
    """

    position: int
    since: int
    results: Results
    bounds: Mapping[Metric, Bounds]
    requirements: Requirements
    level: float
    worse_than: str
    crossed: Crossed | None = None


def found_of(evaluation: Evaluation, position: int, since: int, requirements: Requirements) -> Found:
    """What an evaluation that has come to this position has found."""
    results = judged(evaluation.results(), requirements)
    return Found(
        position=position,
        since=since,
        results=results,
        bounds=evaluation.bounds,
        requirements=requirements,
        level=LEVEL,
        worse_than=better_fixed(results),
        crossed=evaluation.crossed,
    )


class EvaluationLoop:
    """Runs in a thread of its own, and may lag behind: nothing waits for it. Half of the time it pauses, and nine
    tenths while the log grows.

    `notify` wakes it when something was committed. `on_health` hears whether it works, `on_alarm` whether the
    live policies are as good as each model alone, as far as is known, and `on_found` what was found of a router
    whenever it is looked at, None once it is gone. `on_views` takes the canaries' views as they are published
    here. Whatever others write is seen after at most `idle_seconds_max`.
    """

    def __init__(
        self,
        engine: Engine,
        reader: LogReader,
        registry: Registry,
        candidate_views: CandidateViews,
        submit: Submit,
        clock_us: Callable[[], int],
        on_health: Callable[[bool], object],
        on_alarm: Callable[[bool], object],
        on_found: Callable[[str, Found | None], object],
        save_seconds: float,
        on_views: OnViews = lambda _seq, _views, _settled: None,
        idle_seconds_max: float = 60.0,
    ) -> None:
        self._engine = engine
        self._reader = reader
        self._registry = registry
        self._candidate_views = candidate_views
        self._submit = submit
        self._clock_us = clock_us
        self._on_health = on_health
        self._on_alarm = on_alarm
        self._on_found = on_found
        self._save_seconds = save_seconds
        self._on_views = on_views
        self._idle_seconds_max = idle_seconds_max
        self._lock = threading.Lock()
        self._fold: EvaluationFold | None = None
        self._alarms: dict[str, str] = {}
        self._crossed: set[str] = set()
        self._contradicted: dict[str, frozenset[str]] = {}
        self._wake = threading.Event()
        self._stopping = False
        self._abandoned = False
        self._thread = threading.Thread(target=self._run, name="evaluation", daemon=True)

    def start(self) -> None:
        """Starts following the log."""
        self._thread.start()

    def notify(self) -> None:
        """Says that the log has grown."""
        self._wake.set()

    def stop(self) -> None:
        """Saves the state as it is, and ends; what is left of the log is for the next start. Where it is learning
        what a candidate begins with, it ends with what was saved last.
        """
        self._stopping = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()

    def abandon(self) -> None:
        """Ends soon, without saving or finding anything more, since another server goes on. Does not wait."""
        self._abandoned = True
        self._wake.set()

    @property
    def position(self) -> int | None:
        """Up to where the log is evaluated, as of the last page; None while nothing is."""
        fold = self._fold
        return None if fold is None else fold.seq

    def find(self, router: str) -> Found | None:
        """What is known of a router now; None if the evaluation has not come to it. Waits for a page, but for no
        longer than a second. Raises EvaluationUnavailableError then.
        """
        # The windows that ended while no server ran are closed with one record: whoever asks meanwhile must not
        # keep a thread that others wait for.
        if not self._lock.acquire(timeout=_FIND_SECONDS):
            raise EvaluationUnavailableError(router)
        try:
            return self._find(router)
        finally:
            self._lock.release()

    def _find(self, router: str) -> Found | None:
        """What `find` finds; for who has the lock."""
        fold = self._fold
        evaluation = fold.follower(router) if fold is not None else None
        if fold is None or evaluation is None:
            return None
        entry = self._registry.entry(router)
        if entry is not None and entry.router.uid != fold.uid(router):
            return None  # Of another router that has its name, and that the log has still to end or begin.
        requirements = (entry.promotion if entry else Promotion()).requirements
        return found_of(evaluation, fold.seq, fold.since_seq(router), requirements)

    def _run(self) -> None:
        while True:
            try:
                self._begin()
                return
            except ReplayStoppedError:
                return  # Saved is what was saved last: what comes after it is for the next start.
            except (SQLAlchemyError, OSError, PointsmanError) as error:
                if self._abandoned:
                    return
                logger.error("the evaluation cannot reach the log, and starts again: %s", error)
                self._on_health(False)
                if self._stopping:
                    return
                self._wake.clear()
                self._wake.wait(_RETRY_SECONDS)
            except Exception:
                logger.exception("the evaluation has died; routing and learning go on")
                self._on_health(False)
                return

    def _begin(self) -> None:
        try:
            self._follow()
        finally:
            # Before anybody hears that it has ended: nothing is found from here on.
            with self._lock:
                self._fold = None

    def _follow(self) -> None:
        fold = self._open()
        with self._lock:
            self._fold = fold
            published = self._publish(fold, set(fold.routers))
        self._on_views(fold.seq, published, False)
        save = _Due(self._save_seconds)
        watch = _Due(_WATCH_SECONDS)
        watch.changed |= set(fold.routers)
        healthy = False
        while True:
            began = time.thread_time()
            page = fold.read(_PAGE)
            with self._lock:
                advanced = fold.follow(page)
                if self._abandoned:
                    return
                save.changed |= fold.changed
                watch.changed |= fold.changed
                published = self._publish(fold, fold.changed)
                urgent = {router for router in fold.changed if fold.crossed(router)} - self._crossed
                fold.changed = set()
            self._on_views(fold.seq, published, advanced < _PAGE)
            # Not by the clock: it would fall behind, and while it waited for others it has held up nobody.
            spent = time.thread_time() - began
            if not healthy and advanced < _PAGE:
                self._on_health(True)
                healthy = True
            if watch.now or urgent:
                watch.do(self._watch)
            if save.changed and (save.now or self._stopping):
                save.do(self._save)
            if self._stopping:
                return
            if advanced >= _PAGE:
                self._give_way(spent)
            elif advanced:
                time.sleep(_GATHER_SECONDS)
            else:
                self._rest(min(save.seconds, watch.seconds))

    def _open(self) -> EvaluationFold:
        stored = load_evaluations(self._engine)
        try:
            return EvaluationFold(self._reader, stored, self._ends)
        except ValueError as error:
            logger.warning("the whole log is evaluated again: %s", error)
            self._submit(Transact(forget_evaluations(stored), logs=False))
            return EvaluationFold(self._reader, [], self._ends)

    def _ends(self) -> bool:
        return self._stopping or self._abandoned

    def _publish(self, fold: EvaluationFold, routers: set[str]) -> NewViews:
        """Publishes what the canaries know, for the decisions that they have a share in; gives it."""
        published = {}
        for router in routers:
            entry, evaluation = self._registry.entry(router), fold.follower(router)
            name = entry.canary.spec.id if entry and entry.canary else ""
            view = evaluation.view(name, fold.seq) if evaluation is not None and name else None
            self._candidate_views.publish(router, name, view)
            published[router] = (name, view)
        return published

    def _give_way(self, spent_seconds: float) -> None:
        """Leaves the processor to those who are waited for: longer while the log grows, for then they work too."""
        growing = self._wake.is_set()
        self._wake.clear()
        time.sleep(min(spent_seconds * (_PAUSES_BUSY if growing else 1.0), _PAUSE_SECONDS_MAX))

    def _rest(self, seconds: float) -> None:
        """Waits for the log to grow, or for something else to be due."""
        self._wake.wait(min(max(seconds, 0.001), self._idle_seconds_max))
        if not self._stopping:
            time.sleep(_GATHER_SECONDS)
        self._wake.clear()

    def _save(self, routers: set[str]) -> None:
        fold = self._fold
        if fold is None:
            return
        # Without the lock: this thread alone changes what is saved, and who asks meanwhile need not wait.
        every = sorted(routers | set(fold.routers))
        found = {router: fold.snapshot(router, _Rest(lambda: self._stopping)) for router in every}
        parts = [put_evaluation(router, fold.seq, stored) for router, stored in found.items()]

        def apply(connection: Connection, seq: int, time_us: int) -> None:
            # In one transaction: a restart reads on from the oldest of them.
            for part in parts:
                part(connection, seq, time_us)

        self._submit(Transact(apply, logs=False))

    def _watch(self, routers: set[str]) -> None:
        """Looks whether a model alone is better than the live policy, or that has crossed a guardrail; says so
        once, and once when a model alone is no longer better.
        """
        for router in sorted(routers):
            with self._lock:
                found = self._find(router)
            of = {"router": router}
            name = found.worse_than if found else ""
            before = self._alarms.pop(router, "")
            if name:
                self._alarms[router] = name
            if name and not before:
                message = "the live policy of routers/%s is worse than %s, with confidence"
                logger.warning(message, router, name, extra=of)
            crossed = found.crossed if found else None
            if crossed and router not in self._crossed:
                message = "the live policy of routers/%s has crossed a guardrail: %s"
                logger.warning(message, router, crossed.sentence, extra=of)
            self._crossed = self._crossed | {router} if crossed else self._crossed - {router}
            self._on_found(router, found)
            if found is not None:
                self._say_contradictions(router, found)
            else:
                self._contradicted.pop(router, None)
            if before and not name:
                logger.warning("the live policy of routers/%s is no longer known to be worse", router, extra=of)
        self._on_alarm(not self._alarms)

    def _say_contradictions(self, router: str, found: Found) -> None:
        """Says once of each candidate that pairs and single calls contradict one another."""
        now = frozenset(found.results.paired.disagreeing)
        before = self._contradicted.get(router, frozenset())
        self._contradicted[router] = now
        for name in sorted(now - before):
            logger.warning(
                "routers/%s: second calls contradict what is estimated of %s from single ones: "
                "propensities or rewards are wrong",
                router,
                name,
                extra={"router": router},
            )


class _Rest:
    """Leaves the processor to others, three times as long as it was used since the last time; not `in_a_hurry`.

    Shorter than between pages: the log goes on meanwhile, and what is in memory of it is of some seconds.
    """

    def __init__(self, in_a_hurry: Callable[[], bool]) -> None:
        self._in_a_hurry = in_a_hurry
        self._used = time.thread_time()

    def __call__(self) -> None:
        if not self._in_a_hurry():
            time.sleep(_PAUSES_SAVING * (time.thread_time() - self._used))
        self._used = time.thread_time()


class _Due:
    """Something to be done for the routers that have changed, now and then: the dearer it is the more rarely."""

    def __init__(self, seconds: float) -> None:
        self._every = seconds
        self._at = time.monotonic() + seconds
        self.changed: set[str] = set()

    @property
    def seconds(self) -> float:
        """How long until it is due; infinite if nothing has changed."""
        return self._at - time.monotonic() if self.changed else _IDLE_SECONDS_MAX

    @property
    def now(self) -> bool:
        return self.seconds <= 0.0

    def do(self, what: Callable[[set[str]], None]) -> None:
        """Does it, and says when it is due again."""
        began = time.monotonic()
        changed, self.changed = self.changed, set()
        what(changed)
        now = time.monotonic()
        self._at = now + max(self._every, min((now - began) / _UPKEEP_SHARE, _UPKEEP_GAP_SECONDS_MAX))
