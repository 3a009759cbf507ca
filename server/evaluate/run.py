"""An evaluation of what a file has, from its first row to its last."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from policy.candidates import CandidateSpec
from policy.domain import Router
from policy.evaluation import Evaluation, EvaluationSettings
from policy.features import Featuriser
from policy.settlement import Limits
from policy.verdict import Requirements
from server.evaluate.log_file import LogFile
from server.evaluate.source import feed
from server.rows.file import RowFile


def evaluate_rows(
    rows: RowFile,
    router: Router,
    router_name: str | None,
    candidates: Sequence[CandidateSpec],
    requirements: Requirements,
    limits: Limits,
    level: float,
    on_decisions: Callable[[int], object],
) -> Evaluation:
    """The candidates by all rows of the router that is called so, or of the only one; `on_decisions` hears now and
    then how many more are done. Raises UnreadableFileError.
    """
    settings = EvaluationSettings(requirements=requirements, limits=limits, level=level)
    evaluation = Evaluation(router, candidates, settings)
    featuriser = Featuriser() if any(each.learns for each in candidates) else None
    feed(evaluation, LogFile(rows, router, router_name, featuriser), on_decisions)
    return evaluation
