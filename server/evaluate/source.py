"""Where logged decisions come from, and how an evaluation is fed with them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from policy.domain import Router
from policy.evaluation import Evaluation
from policy.join import joined
from policy.log import DecisionRecord, ReportRecord

_SAY_AFTER = 512


@dataclass(frozen=True, slots=True)
class Logged:
    """A decision with all that will ever be reported of it, and the router that it was made with.

    The same router object as in the decision before means that nothing has changed.
    """

    router: Router
    decision: DecisionRecord
    reports: tuple[ReportRecord, ...]


def feed(evaluation: Evaluation, source: Iterable[Logged], on_decisions: Callable[[int], object]) -> None:
    """Gives a source's decisions to an evaluation, each with its outcome before the next; `on_decisions` hears now
    and then how many more are done.

    A live log, in which outcomes come later and in any order, is followed by calling the evaluation as the
    log's records come, as `LearnerFold` does with a learner.
    """
    router: Router | None = None
    done = 0
    for done, logged in enumerate(source, 1):
        if logged.router is not router:
            router = logged.router
            evaluation.on_registry(router)
        evaluation.on_decision(logged.decision)
        for report in logged.reports:
            evaluation.on_report(report, logged.decision)
        evaluation.on_close(logged.decision, joined(logged.decision.deferred, logged.reports))
        if done % _SAY_AFTER == 0:
            on_decisions(_SAY_AFTER)
    on_decisions(done % _SAY_AFTER)
