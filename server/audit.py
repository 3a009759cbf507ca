"""Checks a log against itself: every draw made again, every snapshot rebuilt from the first record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from policy.exploration import draw
from policy.learner import RouterLearner
from policy.log import DecisionRecord
from server.learner_fold import LearnerFold
from server.storage.reader import LogReader

_PAGE = 1000
_EXAMPLES_MAX = 10


@dataclass
class Audit:
    """What was checked and what failed; `examples` names some of the failures."""

    decisions: int = 0
    draws_wrong: int = 0
    snapshots: int = 0
    snapshots_wrong: int = 0
    examples: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return not self.draws_wrong and not self.snapshots_wrong

    def blame(self, what: str) -> None:
        """Keeps an example of a failure."""
        if len(self.examples) < _EXAMPLES_MAX:
            self.examples.append(what)


def audit(reader: LogReader, on_progress: Callable[[int], object]) -> Audit:
    """Checks the whole log; `on_progress` hears how many positions of it were passed."""
    result = Audit()
    seq = 0
    while True:
        page = reader.page(seq, _PAGE)
        if page.upto == seq:
            break
        for record in page.records:
            if isinstance(record, DecisionRecord):
                _check_draw(record, result)
        on_progress(page.upto - seq)
        seq = page.upto
    _check_snapshots(reader, result, on_progress)
    return result


def _check_draw(record: DecisionRecord, result: Audit) -> None:
    """The model follows from the logged propensities and the decision id, and its propensity is the logged one."""
    choice = record.choice
    probabilities = [each.probability for each in choice.candidates]
    drawn = choice.candidates[draw(record.decision_id, probabilities)]
    result.decisions += 1
    if drawn.model != choice.model or drawn.probability != choice.probability:
        result.draws_wrong += 1
        result.blame(f"decision {record.decision_id}: the draw gives {drawn.model}, logged {choice.model}")


def _check_snapshots(reader: LogReader, result: Audit, on_progress: Callable[[int], object]) -> None:
    """Each stored snapshot equals what the log gives when it is learned from its beginning."""
    fold = LearnerFold(reader, [])
    for stored in reader.all_snapshots():
        while fold.seq < stored.seq:
            on_progress(fold.advance(_PAGE, stored.seq))
        rebuilt = fold.learner(stored.router.id)
        kept = RouterLearner.restore(stored.router, stored.state)
        result.snapshots += 1
        if rebuilt is None or rebuilt.fingerprint() != kept.fingerprint():
            result.snapshots_wrong += 1
            result.blame(f"snapshot {stored.seq} of routers/{stored.router.id} is not what the log gives")
