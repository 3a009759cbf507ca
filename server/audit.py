"""Checks a log against itself: every draw made again, every revision of a reward followed back to what it
replaces, every snapshot rebuilt from the first record, or from the first snapshot since the log was dropped.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from zipfile import BadZipFile

from policy.choices import Choice
from policy.exploration import draw
from policy.join import joined
from policy.learner import RouterLearner, StateVersionError
from policy.log import DecisionRecord, LogRecord, ReportRecord
from policy.promotion import PolicyRecord
from policy.second import drawn_second
from policy.shadow import explores, mixed
from server.learner_fold import LearnerFold
from server.storage.codec import DamagedRecordError
from server.storage.reader import LogDroppedError, LogReader, StoredSnapshot
from server.storage.second_days import Day, day_of

_PAGE = 1000
_ROUNDING = 1e-9
_DAMAGED = (ValueError, LookupError, TypeError, StopIteration, OSError, EOFError, BadZipFile, zlib.error)
_EXAMPLES_MAX = 10


@dataclass
class Audit:
    """What was checked and what failed; `examples` names some of the failures. `imported` decisions are none
    of the `decisions`, as what drew them is not known here. `days` are those on which second calls were paid for.

    Up to position `dropped` the log is not there any more. Of the snapshots, `unchecked` are from before it was
    dropped, or are what the others were rebuilt from.
    """

    decisions: int = 0
    imported: int = 0
    draws_wrong: int = 0
    revisions: int = 0
    revisions_wrong: int = 0
    snapshots: int = 0
    snapshots_wrong: int = 0
    days: int = 0
    days_wrong: int = 0
    unreadable: int = 0
    dropped: int = 0
    unchecked: int = 0
    examples: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        wrong = self.draws_wrong or self.revisions_wrong or self.snapshots_wrong or self.days_wrong
        return not (wrong or self.unreadable)

    def blame(self, what: str) -> None:
        """Keeps an example of a failure."""
        if len(self.examples) < _EXAMPLES_MAX:
            self.examples.append(what)


def audit(reader: LogReader, on_progress: Callable[[int], object]) -> Audit:
    """Checks the whole log; `on_progress` hears how many positions of it were passed."""
    result = Audit()
    for check in (_check_records, _check_snapshots):
        try:
            check(reader, result, on_progress)
        except _DAMAGED as error:
            result.unreadable += 1
            known = isinstance(error, DamagedRecordError)
            what = str(error) if known else f"{type(error).__name__}: {error}"
            result.blame(f"the log cannot be read to its end: {what}")
    return result


def _check_records(reader: LogReader, result: Audit, on_progress: Callable[[int], object]) -> None:
    result.dropped, _ = reader.dropped()
    seq = result.dropped
    head, stored = reader.second_days()
    spent: dict[Day, float] = {}
    first = reader.page(seq, 1).records if result.dropped else ()
    # Of the first day that is left a part may have been dropped.
    partial = day_of(0, first[0].time_us)[1] if first else -1
    while True:
        page = reader.page(seq, _PAGE)
        if page.upto == seq:
            return _check_days(spent, stored, partial, result)
        for record in page.records:
            if isinstance(record, DecisionRecord):
                _check_draw(record, result)
            elif isinstance(record, PolicyRecord) and record.restored and record.router:
                reader.recalled(record.router.uid, record.restored)
        reported = [each for each in page.records if isinstance(each, ReportRecord)]
        rewarded = [each for each in reported if each.learned_reward is not None]
        joined_with = reader.reports(sorted({each.decision_id for each in rewarded}))
        _spend([each for each in page.records if each.seq <= head], reader, spent)
        floor, _ = reader.dropped()
        if floor > max(result.dropped, seq):
            raise LogDroppedError("the retention has dropped what was about to be checked: run it again")
        _check_revisions(rewarded, joined_with, result)
        on_progress(page.upto - seq)
        seq = page.upto


def _spend(records: Sequence[LogRecord], reader: LogReader, spent: dict[Day, float]) -> None:
    """Adds what second calls have cost by these records."""
    told = [each for each in records if isinstance(each, ReportRecord) and each.second]
    told = [each for each in told if each.charged_usd is not None]
    decisions = reader.decisions(sorted({each.decision_id for each in told}))
    told = [each for each in told if each.decision_id in decisions]
    for each in records:
        if isinstance(each, DecisionRecord) and each.choice.second_model:
            day = day_of(each.router_uid, each.time_us)
            spent[day] = spent.get(day, 0.0) + each.choice.second_cost_usd
    for report in told:
        decision = decisions[report.decision_id]
        predicted = decision.choice.second_cost_usd if report.settles else 0.0
        day = day_of(decision.router_uid, decision.time_us)
        spent[day] = spent.get(day, 0.0) + (report.charged_usd or 0.0) - predicted


def _check_days(spent: Mapping[Day, float], stored: Mapping[Day, float], partial: int, result: Audit) -> None:
    """What the cap on second calls is held against is what they have cost by the log, each day after `partial`."""
    for day in sorted(day for day in {*spent, *stored} if day[1] > partial):
        result.days += 1
        logged, kept = spent.get(day, 0.0), stored.get(day, 0.0)
        if not math.isclose(logged, kept, rel_tol=_ROUNDING, abs_tol=_ROUNDING):
            result.days_wrong += 1
            result.blame(
                f"second calls of router {day[0]}, day {day[1]}: {logged!r} USD by the log, {kept!r} by the books"
            )


def _check_draw(record: DecisionRecord, result: Audit) -> None:
    """The model follows from the logged propensities and the decision id, and its propensity is the logged one."""
    choice = record.choice
    if not choice.candidates:
        raise DamagedRecordError(f"decision {record.decision_id} at position {record.seq} has no candidates")
    if choice.imported:
        result.imported += 1
        wrong = _wrong_propensity(choice, choice.model)
    else:
        result.decisions += 1
        wrong = _wrong_draw(record)
    if wrong:
        result.draws_wrong += 1
        result.blame(f"decision {record.decision_id}: {', '.join(wrong)}")


def _wrong_draw(record: DecisionRecord) -> list[str]:
    choice = record.choice
    probabilities = [each.probability for each in choice.candidates]
    if choice.shadow is None:
        wrong = _wrong_propensity(choice, choice.candidates[draw(record.decision_id, probabilities)].model)
    else:
        wrong = _wrong_shadow(record.decision_id, choice)
    if abs(sum(probabilities) - 1.0) > _ROUNDING:
        wrong.append(f"the propensities sum to {sum(probabilities)!r}")
    return wrong + _wrong_second(record)


def _wrong_second(record: DecisionRecord) -> list[str]:
    """The second call follows from the logged offer and the decision id; a day without money gives none."""
    choice, second = record.choice, record.choice.second
    if second is None:
        return []
    names = [each.model for each in choice.candidates]
    if len(second.pool) != len(names) or abs(sum(second.pool) - 1.0) > _ROUNDING or second.share <= 0.0:
        return ["its offer of a second call is none"]
    if second.pool[names.index(choice.model)] not in (0.0, 1.0):
        return ["its second call might have been to the same model"]
    index = drawn_second(record.decision_id, second.share, second.pool)
    expected = "" if index is None or second.capped else names[index]
    if expected == second.model:
        return []
    return [f"the draw gives the second model {expected or 'none'}, logged {second.model or 'none'}"]


def _wrong_shadow(decision_id: str, choice: Choice) -> list[str]:
    """In shadow mode two draws belong to a decision: the policy's, and whether it is taken."""
    shadow = choice.shadow
    names = [each.model for each in choice.candidates]
    if shadow is None or shadow.incumbent_model not in names or len(shadow.proposal) != len(names):
        return ["its incumbent and its proposal are not of its candidates"]
    proposed = names[draw(decision_id, shadow.proposal)]
    drawn = proposed if explores(decision_id, shadow.explore_share) else shadow.incumbent_model
    wrong = _wrong_propensity(choice, drawn)
    if proposed != choice.proposed_model:
        wrong.append(f"the draw proposes {proposed}, logged {choice.proposed_model}")
    incumbent = names.index(shadow.incumbent_model)
    if mixed(shadow.proposal, incumbent, shadow.explore_share) != [each.probability for each in choice.candidates]:
        wrong.append("the propensities are not those of the proposal and the incumbent together")
    return wrong


def _wrong_propensity(choice: Choice, drawn: str) -> list[str]:
    """What is wrong of the chosen model and its propensity, if this was drawn."""
    propensity = next((each.probability for each in choice.candidates if each.model == drawn), None)
    if drawn != choice.model:
        return [f"the draw gives {drawn}, logged {choice.model}"]
    if propensity != choice.probability:
        return [f"the propensity was {propensity!r}, logged {choice.probability!r}"]
    return []


def _check_revisions(
    rewarded: list[ReportRecord], reports: Mapping[str, list[ReportRecord]], result: Audit
) -> None:
    """What a report replaces is what its decision's reward about that model was, by the reports before it."""
    for report in rewarded:
        before = joined(False, [each for each in reports[report.decision_id] if each.seq < report.seq])
        was = before.call(report.second).taught.get(report.subject)
        result.revisions += report.replaces_reward is not None
        expected = (was.reward, was.seq) if was else (None, 0)
        if (report.replaces_reward, report.replaces_seq) != expected:
            result.revisions_wrong += 1
            result.blame(
                f"report {report.seq} on decision {report.decision_id}: the reward was {expected[0]!r} "
                f"by report {expected[1]}, logged {report.replaces_reward!r} by report {report.replaces_seq}"
            )


def _check_snapshots(reader: LogReader, result: Audit, on_progress: Callable[[int], object]) -> None:
    """Each stored snapshot equals what the log gives when it is learned from its beginning."""
    fold, rest = _beginning(reader, result)
    for stored in rest:
        while fold.seq < stored.seq:
            advanced = fold.advance(_PAGE, stored.seq)
            if not advanced:
                break  # It is from beyond the end of the log.
            on_progress(advanced)
        verdict = _is_snapshot(stored, fold)
        if verdict is None:
            continue
        result.snapshots += 1
        if not verdict:
            result.snapshots_wrong += 1
            result.blame(f"snapshot {stored.seq} of routers/{stored.router.id} is not what the log gives")


def _beginning(reader: LogReader, result: Audit) -> tuple[LearnerFold, Iterable[StoredSnapshot]]:
    """What to learn from, and the snapshots to check.

    Where the log was dropped, that is each router's first snapshot since: what is learned after it needs
    nothing that was dropped before.
    """
    floor, floored = reader.dropped()
    if not floor:
        return LearnerFold(reader, []), reader.all_snapshots()
    stored = list(reader.all_snapshots())
    since = [each for each in stored if each.seq >= floored]
    first = {each.router.id: each for each in reversed(since)}
    rest = [each for each in since if each is not first[each.router.id]]
    result.unchecked = len(stored) - len(rest)
    return LearnerFold(reader, list(first.values())), rest


def _is_snapshot(stored: StoredSnapshot, fold: LearnerFold) -> bool | None:
    """Whether the log gives this snapshot; None for one of another version, which cannot be compared."""
    learner = fold.learner(stored.router.id)
    if learner is None or learner.router != stored.router:
        return False
    if (fold.seq, fold.closed_through_us) != (stored.seq, stored.closed_through_us):
        return False
    try:
        kept = RouterLearner.restore(stored.router, stored.state)
    except StateVersionError:
        return None
    except _DAMAGED:
        return False
    return kept.fingerprint() == learner.fingerprint()
