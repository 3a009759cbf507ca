"""Evaluates candidate policies on a router's log, decision by decision, beside the policy that made it."""

from __future__ import annotations

import io
import json
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np

from policy.array_state import json_array, loaded, part_of, prefixed
from policy.candidates import CandidateSpec
from policy.confidence import Bounds
from policy.contenders import Build, Learned, Learning, Sight, contender
from policy.domain import RewardJoin, Router, require_number
from policy.estimators import LEVEL
from policy.evidence import Events, LeftOut, Metric
from policy.guard import Crossed, Guard
from policy.join import Joined
from policy.league import Results, Tally
from policy.log import DecisionRecord, ReportRecord
from policy.paired import PairedComparison
from policy.roster import Roster
from policy.settlement import Limits, Pending, answers, events, left_out, with_alternatives
from policy.verdict import Requirements
from policy.view import PolicyView

STATE_VERSION = 8
EVENTS_IN_A_BATCH = 512

_COUNTS = ("decisions", "settled", "evicted", "abandoned", "shadow", "incumbents", "revised")


class OrderError(ValueError):
    """The log came in an order in which a candidate could have learned an outcome before its answer."""


@dataclass(frozen=True, slots=True)
class EvaluationSettings:
    """How candidates are judged. `pending_max` bounds the decisions that wait for their outcome.

    `level` is that of every interval and sequence. Raises InvalidFieldError.
    """

    requirements: Requirements = field(default_factory=Requirements)
    limits: Limits = field(default_factory=Limits)
    level: float = LEVEL
    pending_max: int = 50_000

    def __post_init__(self) -> None:
        require_number("level", self.level, 0.0, 1.0 - 1e-12, above=True)
        require_number("pending_max", self.pending_max, 1, 10_000_000)


class Evaluation:
    """The candidates and the standing comparators of one router, from one position of its log on.

    Every candidate answers a decision when it comes, before anything can be told of it: the answer is fixed
    then, and kept until the decision is settled (progressive evaluation; Blum, Kalai & Langford 1999). By the
    join rule FIRST a decision is settled when the quality and the cost of the drawn model are known, by the
    others, or if one never comes, when its window closes. What is reported later is not entered. An imported
    decision has no window: all that is known of it comes with its one report.

    Left out, and counted, are sticky and exploit-only decisions and those without a propensity. One that another
    model has served counts only if the drawn one is known to have failed, and then only as an error. One
    without a reward says nothing of quality and utility, but of cost and errors. Shadow decisions are taken at
    their true propensities; an incumbent that was obeyed without exploring has 1, so that it says nothing of
    other models, which the support shows. Second calls are compared apart, and are no events of these.

    The same records in the same order give the same bits, wherever `state` and `restore` come in between.
    Memory is bounded: events are kept as sums, and pending decisions up to a number. Raises InvalidFieldError
    for names that stand twice or are a comparator's.
    """

    def __init__(
        self,
        router: Router,
        candidates: Iterable[CandidateSpec] = (),
        settings: EvaluationSettings | None = None,
        from_seq: int = 0,
        build: Build = contender,
    ) -> None:
        self._router = router
        self._settings = settings or EvaluationSettings()
        self._bounds = self._settings.limits.bounds(router)
        self._requirements = self._settings.requirements
        self._guard = Guard()
        self._guard.require(self._requirements)
        self._roster = Roster(build, self._blank_tally)
        self._pending: OrderedDict[int, Pending] = OrderedDict()
        self._batch: list[Pending] = []
        self._counts = dict.fromkeys(_COUNTS, 0)
        self._answered_upto = from_seq
        self._paired = self._new_comparison()
        self._roster.compare(router)
        self._roster.enter(candidates, router)
        self._line_up()

    def on_registry(self, router: Router) -> None:
        """The router or its models have changed. A model that is new gets its comparator from here on."""
        self._router = router
        self._roster.compare(router)
        self._line_up()
        for _, asked in self._roster.asked:
            asked.on_registry(router)

    def on_candidates(
        self, candidates: Iterable[CandidateSpec], learned: Mapping[str, Learned] = MappingProxyType({})
    ) -> None:
        """These are the candidates from here on. One that is new begins without events, one that is gone is
        forgotten with its name, which no other may have after it.

        `learned` has, for new ones that are to begin with it, what a learner in their place would know.
        """
        self._roster.replace(candidates, learned, self._router)
        self._line_up()

    def on_requirements(self, requirements: Requirements, seq: int) -> None:
        """By these the candidates are judged from this position on. A factor that was not followed before is
        followed from here on, by sequences that begin without events.
        """
        if requirements == self._requirements:
            return
        self._requirements = requirements
        self._guard.require(requirements)
        self._enter_events()
        for entry in self._roster.entries.values():
            entry.tally.follow(requirements, seq)

    def restart(self, seq: int, *, promoted: bool) -> None:
        """The live policy is another from this position on: what was found of differences to the former one is
        put away. Whether it was `promoted` is for the guard.

        What the candidates have learned stays. Decisions of the former live policy are settled no more.
        """
        self._guard.begin(seq, promoted=promoted)
        for entry in self._roster.entries.values():
            entry.tally = self._blank_tally()
        self._pending.clear()
        self._paired.restart()
        self._batch = []
        self._counts = dict.fromkeys(_COUNTS, 0)

    def view(self, candidate: str, snapshot: int) -> PolicyView | None:
        """What the candidate would decide with now, under this position of the log; None if it does not learn."""
        entry = self._roster.entries.get(candidate)
        if entry is None or not isinstance(entry.contender, Learning):
            return None
        return entry.contender.view(snapshot)

    def on_decision(self, decision: DecisionRecord) -> None:
        """A decision was logged: every candidate answers it. Raises OrderError if it was answered before."""
        if decision.seq <= self._answered_upto:
            raise OrderError(f"decision {decision.decision_id} at {decision.seq} was answered before")
        self._answered_upto = decision.seq
        if decision.router_uid != self._router.uid:
            return  # Another router's that had the same name.
        self._counts["decisions"] += 1
        self._counts["shadow"] += bool(decision.choice.proposed_model)
        self._counts["incumbents"] += bool(decision.incumbent_model)
        decision = with_alternatives(decision, self._router)
        given: dict[int, tuple[float, ...]] = {}
        if self._roster.asked:
            sight = Sight.of(decision)
            given = {number: tuple(asked.answer(sight)) for number, asked in self._roster.asked}
        reason = left_out(decision)
        if reason is not None:
            self._roster.leave_out(reason, self._roster.numbers)
            return
        pending = Pending.of(decision, self._router.spec, self._bounds, self._roster.numbers, given)
        self._pending[decision.seq] = pending
        self._paired.begin(decision, pending)
        if len(self._pending) > self._settings.pending_max:
            self._pending.popitem(last=False)
            self._counts["evicted"] += 1

    def on_report(self, report: ReportRecord, decision: DecisionRecord) -> None:
        """A report on one of the router's decisions was logged. Raises OrderError if it was not answered yet."""
        if decision.router_uid != self._router.uid:
            return  # Another router's that had the same name, of which nothing was answered here.
        self._require_answered(decision)
        if report.seq <= decision.seq:
            raise OrderError(f"a report at {report.seq} is on a decision after it, at {decision.seq}")
        for _, asked in self._roster.asked:
            asked.on_report(report, decision)
        self._guard.on_report(report, decision)
        if report.late:
            return
        joins_first = self._router.spec.reward_rule.join is RewardJoin.FIRST
        self._paired.on_report(report, decision.seq, joins_first)
        if report.second:
            return
        pending = self._pending.get(decision.seq)
        if pending is None:
            self._counts["revised"] += report.replaces_reward is not None
            return
        pending.note(report)
        if decision.choice.imported or (pending.complete and joins_first):
            self._settle(self._pending.pop(decision.seq))

    def on_close(self, decision: DecisionRecord, joined: Joined) -> None:
        """A decision's window has closed. Raises OrderError if it was not answered yet."""
        if decision.router_uid != self._router.uid:
            return
        self._require_answered(decision)
        for _, asked in self._roster.asked:
            asked.on_close(decision, joined)
        missing_reward = self._router.spec.reward_rule.missing_reward
        self._paired.on_close(decision.seq, joined.active, missing_reward)
        pending = self._pending.pop(decision.seq, None)
        if pending is None:
            return
        if not joined.active:
            self._counts["abandoned"] += 1
            return
        pending.close(missing_reward)
        self._settle(pending)

    def answers(self, decision: DecisionRecord) -> Mapping[str, Mapping[str, float]]:
        """What each candidate has answered a pending decision: its probability of each model. Empty if settled."""
        pending = self._pending.get(decision.seq)
        if pending is None:
            return {}
        numbers, probabilities, _ = answers([pending], self._roster.standing)
        rows = zip(numbers, probabilities[:, 0].tolist(), strict=True)
        names = self._roster.names
        return {
            names[number]: dict(zip(pending.models, row, strict=True)) for number, row in rows if number in names
        }

    @property
    def crossed(self) -> Crossed | None:
        """The guardrail that the live policy has crossed since it was promoted, None if none."""
        return self._guard.crossed

    @property
    def bounds(self) -> Mapping[Metric, Bounds]:
        """Between what each metric was declared to lie, for the sequences."""
        return self._bounds

    def results(self) -> Results:
        """What is known now. Asking changes nothing."""
        waiting: dict[int, list[Events]] = {}
        for number, found in events(self._batch, self._roster.standing, self._bounds):
            waiting.setdefault(number, []).append(found)
        candidates = tuple(
            entry.tally.with_events(waiting.get(entry.number, ())).result(entry.spec, entry.comparator)
            for entry in self._roster.entries.values()
        )
        paired = self._paired.results()
        return Results(**self._counts, pending=len(self._pending), candidates=candidates, paired=paired)

    def _require_answered(self, decision: DecisionRecord) -> None:
        if decision.seq > self._answered_upto:
            raise OrderError(f"an outcome of decision {decision.decision_id} came before it was answered")

    def _settle(self, pending: Pending) -> None:
        """Makes an event of it. Batches are of a fixed number, so that a page's size has no part in any bit."""
        if pending.fallback:
            self._roster.leave_out(LeftOut.SERVED_BY_FALLBACK, pending.lineup)
            if not pending.error:
                return
        elif np.isnan(pending.reward):
            self._roster.leave_out(LeftOut.NO_REWARD, pending.lineup)
        self._counts["settled"] += 1
        self._paired.settle(pending)
        self._batch.append(pending)
        if len(self._batch) == EVENTS_IN_A_BATCH:
            self._enter_events()

    def _enter_events(self) -> None:
        batch, self._batch = self._batch, []
        for number, found in events(batch, self._roster.standing, self._bounds):
            tally = self._roster.tally(number)
            if tally is not None:
                tally.add(found)

    def _blank_tally(self) -> Tally:
        return Tally(self._requirements, self._bounds, self._settings.level)

    def _line_up(self) -> None:
        self._roster.sort_out()
        self._paired.line_up(self._roster.names, self._roster.standing)

    def _new_comparison(self) -> PairedComparison:
        return PairedComparison(self._bounds, self._settings.level, self._settings.pending_max)

    def state(self, rest: Callable[[], object] = lambda: None) -> bytes:
        """The whole state but the router, the candidates and the settings, pending decisions included.

        `rest` is called now and then, since there may be many of them; nothing is to be followed meanwhile.
        """
        entered, entered_arrays = self._roster.state()
        paired, paired_arrays = self._paired.state()
        meta: dict[str, Any] = {
            "version": STATE_VERSION,
            "counts": self._counts,
            "answered_upto": self._answered_upto,
            **entered,
            "requirements": asdict(self._requirements),
            "guard": self._guard.state(),
            "bounds": {metric: [each.low, each.high] for metric, each in self._bounds.items()},
            "pending": (each.dump() for each in self._pending.values()),
            "batch": [each.dump() for each in self._batch],
            "paired": paired,
        }
        arrays = {"meta": json_array(meta, rest)}
        arrays |= prefixed("paired", paired_arrays)
        arrays |= entered_arrays
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **arrays)
        return buffer.getvalue()

    @classmethod
    def restore(
        cls,
        router: Router,
        candidates: Iterable[CandidateSpec],
        state: bytes,
        settings: EvaluationSettings | None = None,
        build: Build = contender,
    ) -> Evaluation:
        """The evaluation that gave `state` when its router, candidates and settings were these.

        Raises ValueError for another version's state or other candidates.
        """
        arrays = loaded(state)
        meta = json.loads(arrays["meta"].tobytes())
        if meta["version"] != STATE_VERSION:
            raise ValueError(f"the state has version {meta['version']}, this evaluation {STATE_VERSION}")
        evaluation = cls(router, candidates, settings, build=build)
        evaluation._take_back(meta, arrays)
        return evaluation

    def _take_back(self, meta: Mapping[str, Any], arrays: Mapping[str, Any]) -> None:
        names = [name for _, name in meta["entries"]]
        if set(names) != set(self._roster.entries):
            raise ValueError(f"the state is of other candidates: {', '.join(names)}")
        # As they were declared, whatever the registry has become since.
        self._bounds = {Metric(name): Bounds(*ends) for name, ends in meta["bounds"].items()}
        self._requirements = Requirements(**meta["requirements"])
        self._guard.require(self._requirements)
        self._guard.restore(meta["guard"])
        self._roster.restore(meta, arrays, self._router)
        self._paired = self._new_comparison()
        self._paired.restore(meta["paired"], part_of(arrays, "paired"))
        self._line_up()
        self._counts = {name: int(meta["counts"][name]) for name in _COUNTS}
        self._answered_upto = meta["answered_upto"]
        self._pending = OrderedDict((each.seq, each) for each in map(Pending.load, meta["pending"]))
        self._batch = [Pending.load(values) for values in meta["batch"]]
