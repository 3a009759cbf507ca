"""Evaluates candidate policies on a router's log, decision by decision, beside the policy that made it."""

from __future__ import annotations

import io
import json
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import numpy as np

from policy.candidates import CANDIDATES_MAX, CandidateSpec, comparators
from policy.confidence import Bounds
from policy.contenders import Build, Contender, Learning, Sight, contender
from policy.domain import Candidate, InvalidFieldError, RewardJoin, Router, require_number
from policy.estimators import LEVEL
from policy.evidence import Events, LeftOut, Metric
from policy.join import Joined
from policy.league import Results, Tally
from policy.log import DecisionRecord, ReportRecord
from policy.settlement import Limits, Pending, events
from policy.verdict import Requirements
from policy.view import PolicyView

STATE_VERSION = 2
EVENTS_IN_A_BATCH = 256

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


@dataclass(slots=True)
class _Entry:
    spec: CandidateSpec
    comparator: bool
    contender: Contender
    tally: Tally


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
    other models, which the support shows.

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
        self._build = build
        self._entries: dict[str, _Entry] = {}
        self._pending: OrderedDict[int, Pending] = OrderedDict()
        self._batch: list[Pending] = []
        self._counts = dict.fromkeys(_COUNTS, 0)
        self._answered_upto = from_seq
        self._compare()
        specs = list(candidates)
        if len(specs) > CANDIDATES_MAX:
            raise InvalidFieldError("candidates", f"must be at most {CANDIDATES_MAX}")
        for spec in specs:
            self._enter_candidate(spec)
        self._line_up()

    def on_registry(self, router: Router) -> None:
        """The router or its models have changed. A model that is new gets its comparator from here on."""
        self._router = router
        self._compare()
        for entry in self._entries.values():
            entry.contender.on_registry(router)
        self._line_up()

    def on_candidates(
        self, candidates: Iterable[CandidateSpec], learned: Mapping[str, bytes] = MappingProxyType({})
    ) -> None:
        """These are the candidates from here on. One that is new begins without events, one that is gone is
        forgotten with its name, which no other may have after it.

        `learned` has, for new ones that are to begin with it, what a learner in their place would know: its state.
        """
        wanted = {spec.id: spec for spec in candidates}
        for name in [name for name, entry in self._entries.items() if not entry.comparator and name not in wanted]:
            del self._entries[name]
        for name, spec in wanted.items():
            if name not in self._entries:
                self._enter(spec, comparator=False)
                entered = self._entries[name].contender
                if name in learned and isinstance(entered, Learning):
                    entered.begin_with(learned[name])
        self._line_up()

    def restart(self) -> None:
        """The live policy is another from here on: what was found of differences to the former one is put away.

        What the candidates have learned stays. Decisions of the former live policy are settled no more.
        """
        for entry in self._entries.values():
            entry.tally = self._blank_tally()
        self._pending.clear()
        self._batch = []
        self._counts = dict.fromkeys(_COUNTS, 0)

    def view(self, candidate: str, snapshot: int) -> PolicyView | None:
        """What the candidate would decide with now, under this position of the log; None if it does not learn."""
        entry = self._entries.get(candidate)
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
        decision = _with_alternatives(decision, self._router)
        sight = Sight.of(decision)
        answers = [entry.contender.answer(sight) for entry in self._entries.values()]
        reason = _left_out(decision)
        if reason is not None:
            self._leave_out(reason, self._lineup)
            return
        self._pending[decision.seq] = Pending.of(decision, self._router.spec, self._bounds, self._lineup, answers)
        if len(self._pending) > self._settings.pending_max:
            self._pending.popitem(last=False)
            self._counts["evicted"] += 1

    def on_report(self, report: ReportRecord, decision: DecisionRecord) -> None:
        """A report on one of the router's decisions was logged. Raises OrderError if it was not answered yet."""
        self._require_answered(decision)
        if report.seq <= decision.seq:
            raise OrderError(f"a report at {report.seq} is on a decision after it, at {decision.seq}")
        for entry in self._entries.values():
            entry.contender.on_report(report, decision)
        if report.late:
            return
        pending = self._pending.get(decision.seq)
        if pending is None:
            self._counts["revised"] += report.replaces_reward is not None
            return
        pending.note(report)
        joins_first = self._router.spec.reward_rule.join is RewardJoin.FIRST
        if decision.choice.imported or (pending.complete and joins_first):
            self._settle(self._pending.pop(decision.seq))

    def on_close(self, decision: DecisionRecord, joined: Joined) -> None:
        """A decision's window has closed. Raises OrderError if it was not answered yet."""
        self._require_answered(decision)
        for entry in self._entries.values():
            entry.contender.on_close(decision, joined)
        pending = self._pending.pop(decision.seq, None)
        if pending is None:
            return
        if not joined.active:
            self._counts["abandoned"] += 1
            return
        pending.close(self._router.spec.reward_rule.missing_reward)
        self._settle(pending)

    def answers(self, decision: DecisionRecord) -> Mapping[str, Mapping[str, float]]:
        """What each candidate has answered a pending decision: its probability of each model. Empty if settled."""
        pending = self._pending.get(decision.seq)
        if pending is None:
            return {}
        rows = zip(pending.lineup, pending.answers.tolist(), strict=True)
        return {name: dict(zip(pending.models, row, strict=True)) for name, row in rows}

    @property
    def bounds(self) -> Mapping[Metric, Bounds]:
        """Between what each metric was declared to lie, for the sequences."""
        return self._bounds

    def results(self) -> Results:
        """What is known now. Asking changes nothing."""
        waiting: dict[str, list[Events]] = {}
        for name, found in events(self._batch, self._bounds):
            waiting.setdefault(name, []).append(found)
        candidates = tuple(
            entry.tally.with_events(waiting.get(name, ())).result(entry.spec, entry.comparator)
            for name, entry in self._entries.items()
        )
        return Results(**self._counts, pending=len(self._pending), candidates=candidates)

    def _require_answered(self, decision: DecisionRecord) -> None:
        if decision.seq > self._answered_upto:
            raise OrderError(f"an outcome of decision {decision.decision_id} came before it was answered")

    def _settle(self, pending: Pending) -> None:
        """Makes an event of it. Batches are of a fixed number, so that a page's size has no part in any bit."""
        if pending.fallback:
            self._leave_out(LeftOut.SERVED_BY_FALLBACK, pending.lineup)
            if not pending.error:
                return
        elif np.isnan(pending.reward):
            self._leave_out(LeftOut.NO_REWARD, pending.lineup)
        self._counts["settled"] += 1
        self._batch.append(pending)
        if len(self._batch) == EVENTS_IN_A_BATCH:
            batch, self._batch = self._batch, []
            for name, found in events(batch, self._bounds):
                if name in self._entries:
                    self._entries[name].tally.add(found)

    def _leave_out(self, reason: LeftOut, lineup: Sequence[str]) -> None:
        for name in lineup:
            if name in self._entries:
                self._entries[name].tally.estimators.leave_out(reason)

    def _compare(self) -> None:
        """Gives every model its comparator, and takes away those of models that are gone."""
        wanted = {spec.id: spec for spec in comparators(self._router)}
        for name in [name for name, entry in self._entries.items() if entry.comparator and name not in wanted]:
            del self._entries[name]
        for name, spec in wanted.items():
            if name not in self._entries:
                self._enter(spec, comparator=True)

    def _enter_candidate(self, spec: CandidateSpec) -> None:
        """One that is the same as a comparator takes its place."""
        there = self._entries.get(spec.id)
        taken = there is not None and not (there.comparator and there.spec == spec)
        if taken or (spec.id.startswith("fixed:") and spec.policy != spec.id):
            raise InvalidFieldError("candidates", f"{spec.id!r} stands twice, or is the name of a comparator")
        self._enter(spec, comparator=False)

    def _enter(self, spec: CandidateSpec, comparator: bool) -> None:
        self._entries[spec.id] = _Entry(spec, comparator, self._build(spec, self._router), self._blank_tally())

    def _blank_tally(self) -> Tally:
        return Tally(self._settings.requirements, self._bounds, self._settings.level)

    def _line_up(self) -> None:
        self._lineup = tuple(self._entries)

    def state(self) -> bytes:
        """The whole state but the router, the candidates and the settings, pending decisions included."""
        meta: dict[str, Any] = {
            "version": STATE_VERSION,
            "counts": self._counts,
            "answered_upto": self._answered_upto,
            "lineup": self._lineup,
            "bounds": {metric: [each.low, each.high] for metric, each in self._bounds.items()},
            "pending": [each.dump() for each in self._pending.values()],
            "batch": [each.dump() for each in self._batch],
        }
        arrays = {"meta": np.frombuffer(json.dumps(meta).encode(), dtype=np.uint8)}
        for number, entry in enumerate(self._entries.values()):
            arrays[f"{number} contender"] = np.frombuffer(entry.contender.state(), dtype=np.uint8)
            arrays |= {f"{number} tally {name}": array for name, array in entry.tally.state().items()}
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
        with np.load(io.BytesIO(state), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        meta = json.loads(arrays["meta"].tobytes())
        if meta["version"] != STATE_VERSION:
            raise ValueError(f"the state has version {meta['version']}, this evaluation {STATE_VERSION}")
        evaluation = cls(router, candidates, settings, build=build)
        evaluation._take_back(meta, arrays)
        return evaluation

    def _take_back(self, meta: Mapping[str, Any], arrays: Mapping[str, Any]) -> None:
        if set(meta["lineup"]) != set(self._entries):
            raise ValueError(f"the state is of other candidates: {', '.join(meta['lineup'])}")
        # As they were declared, whatever the registry has become since.
        self._bounds = {Metric(name): Bounds(*ends) for name, ends in meta["bounds"].items()}
        ordered = {name: self._entries[name] for name in meta["lineup"]}
        self._entries = {}
        for number, entry in enumerate(ordered.values()):
            self._enter(entry.spec, entry.comparator)
            entered = self._entries[entry.spec.id]
            entered.contender.restore(self._router, arrays[f"{number} contender"].tobytes())
            prefix = f"{number} tally "
            entered.tally.restore(
                {name.removeprefix(prefix): each for name, each in arrays.items() if name.startswith(prefix)}
            )
        self._line_up()
        self._counts = {name: int(meta["counts"][name]) for name in _COUNTS}
        self._answered_upto = meta["answered_upto"]
        self._pending = OrderedDict((values["seq"], Pending.load(values)) for values in meta["pending"])
        self._batch = [Pending.load(values) for values in meta["batch"]]


def _with_alternatives(decision: DecisionRecord, router: Router) -> DecisionRecord:
    """An imported decision that is told without its candidates may have been any of the router's models.

    With the drawn one as its only candidate every contender would have chosen that as well, with all of its
    probability.
    """
    choice = decision.choice
    if not choice.imported or len(choice.candidates) > 1 or choice.probability >= 1.0:
        return decision
    others = [model.id for model in router.models if model.id != choice.model]
    candidates = (*choice.candidates, *(Candidate(model, 0.0, 0.0, 0.0, 0.0, 0.0) for model in others))
    return replace(decision, choice=replace(choice, candidates=candidates))


def _left_out(decision: DecisionRecord) -> LeftOut | None:
    if decision.exploit_only:
        return LeftOut.EXPLOIT_ONLY
    if decision.choice.sticky:
        return LeftOut.STICKY
    return None if 0.0 < decision.choice.probability <= 1.0 else LeftOut.NO_PROPENSITY
