"""Compares policies and models on pairs of calls, beside what is estimated from single ones."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np

from policy.array_state import ArrayState, part_of, prefixed
from policy.confidence import Bounds, ConfidenceSequence, Contrast
from policy.crosscheck import Agreement, Check, SingleCalls
from policy.domain import FloatArray
from policy.estimators import Estimate, Estimators
from policy.evidence import Events, Interval, Metric
from policy.log import DecisionRecord, ReportRecord
from policy.pairs import PAIRED, Pair, by_contender, by_models
from policy.settlement import Pending, events
from policy.standing import Standing

SINGLES_IN_A_BATCH = 256
PAIRS_IN_A_BATCH = 32

_COUNTS = ("called", "pairs", "untold", "dropped")
# An interval for one time is by the central limit theorem, which says nothing of fewer.
_MOVES_MIN = 20.0


@dataclass(frozen=True, slots=True)
class Difference:
    """A mean difference of a metric over so many pairs: its estimate, whose interval is for one time, and where it
    lies at all times at once. Where too few pairs tell of it there is no interval for one time.
    """

    metric: Metric
    pairs: int
    estimate: Estimate
    sequence: Interval


@dataclass(frozen=True, slots=True)
class CandidatePairs:
    """What pairs say that a candidate gains over the live policy, and whether single calls say the same.

    `moves` is in how many of the pairs it would have done otherwise, of which alone they tell. `unsupported_mean`
    is the mean probability it gives to models that could not be called second.
    """

    id: str
    differences: tuple[Difference, ...]
    checks: tuple[Check, ...]
    moves: float
    unsupported_mean: float

    @property
    def agreement(self) -> Agreement:
        """Of all metrics together: they disagree if one does."""
        found = {each.agreement for each in self.checks}
        for worst in (Agreement.DISAGREE, Agreement.UNSUPPORTED, Agreement.TOO_FEW):
            if worst in found:
                return worst
        return Agreement.AGREE


@dataclass(frozen=True, slots=True)
class ModelPairs:
    """What a second model gave more than the decision's own, in the decisions in which it was these two."""

    model: str
    second_model: str
    differences: tuple[Difference, ...]


@dataclass(frozen=True, slots=True)
class Paired:
    """What is known from second calls. Of those `called`, `pairs` have become pairs and `waiting` have not yet; of
    `untold` nothing was ever reported, and `dropped` were others in which the model that was meant did not serve.
    """

    called: int = 0
    pairs: int = 0
    untold: int = 0
    dropped: int = 0
    waiting: int = 0
    candidates: tuple[CandidatePairs, ...] = ()
    models: tuple[ModelPairs, ...] = ()

    @property
    def disagreeing(self) -> tuple[str, ...]:
        """The candidates of which pairs and single calls contradict one another."""
        return tuple(each.id for each in self.candidates if each.agreement is Agreement.DISAGREE)


class _Tally:
    """Differences over pairs: estimates and sequences."""

    def __init__(self, bounds: Mapping[Metric, Bounds], level: float) -> None:
        self._level = level
        self._estimators = Estimators(PAIRED)
        self._sequences = {
            metric: ConfidenceSequence(
                Contrast(metric, times_live=0.0), _of_differences(bounds[metric]), level, keeps_narrowest=False
            )
            for metric in PAIRED
        }
        self._moves = 0.0
        self.single = SingleCalls(bounds, level)

    def add(self, found: Events, moves: FloatArray) -> None:
        """Takes pairs; `moves` (events,) are the probabilities of doing otherwise than was done."""
        self._estimators.add(found)
        self._moves = sum(moves.tolist(), self._moves)
        for sequence in self._sequences.values():
            sequence.add(found)

    def differences(self) -> tuple[Difference, ...]:
        found = []
        for metric, sequence in self._sequences.items():
            estimates = self._estimators.estimates(metric, self._level)
            estimate = estimates.dr.candidate
            if self._moves < _MOVES_MIN:
                estimate = Estimate(estimate.value, Interval())
            found.append(Difference(metric, estimates.events, estimate, sequence.now()))
        return tuple(found)

    def of_candidate(self, name: str) -> CandidatePairs:
        unsupported = self._estimators.support().unsupported_mean
        checks = [self.single.check(metric, each, unsupported) for metric, each in self._sequences.items()]
        return CandidatePairs(name, self.differences(), tuple(checks), self._moves, unsupported)

    def state(self) -> ArrayState:
        found = prefixed("estimators", self._estimators.state())
        found |= prefixed("single", self.single.state())
        for metric, sequence in self._sequences.items():
            found |= prefixed(f"{metric}", sequence.state())
        return {**found, "moves": np.array([self._moves])}

    def restore(self, state: ArrayState) -> None:
        self._estimators.restore(part_of(state, "estimators"))
        self.single.restore(part_of(state, "single"))
        for metric, sequence in self._sequences.items():
            sequence.restore(part_of(state, f"{metric}"))
        self._moves = float(state["moves"][0])


def _of_differences(bounds: Bounds) -> Bounds:
    most = bounds.high - bounds.low
    return Bounds(-most, most)


@dataclass(frozen=True, slots=True)
class _Lineup:
    """The contenders' names by number, and those whose answers follow from a decision alone."""

    names: Mapping[int, str]
    standing: Mapping[int, Standing]


class _Tallies:
    """Those of the contenders, and of each own and second model."""

    def __init__(self, bounds: Mapping[Metric, Bounds], level: float) -> None:
        self._bounds, self._level = bounds, level
        self.of: dict[int, _Tally] = {}
        self.of_models: dict[tuple[str, str], _Tally] = {}

    def take_singles(self, singles: Sequence[Pending], lineup: _Lineup) -> None:
        """Takes the single calls of decisions that offered a second one; of contenders that are in the lineup."""
        for number, found in events(singles, lineup.standing, self._bounds):
            if number in lineup.names:
                self._tally(number).single.add(found)

    def take_pairs(self, pairs: Sequence[Pair], lineup: _Lineup) -> None:
        """Takes pairs, likewise."""
        for number, found, moves in by_contender(pairs, lineup.standing, self._bounds):
            if number in lineup.names:
                self._tally(number).add(found, moves)
        for key, found in by_models(pairs, self._bounds):
            if key not in self.of_models:
                self.of_models[key] = _Tally(self._bounds, self._level)
            self.of_models[key].add(found, np.ones(len(found)))

    def _tally(self, number: int) -> _Tally:
        if number not in self.of:
            self.of[number] = _Tally(self._bounds, self._level)
        return self.of[number]

    def state(self) -> ArrayState:
        tallies = [*self.of.values(), *self.of_models.values()]
        return {f"{number} {name}": each for number, of in enumerate(tallies) for name, each in of.state().items()}

    def restore(self, numbers: Sequence[int], models: Sequence[Sequence[str]], state: ArrayState) -> None:
        """Takes back what `state` gave, of tallies of these contenders."""
        self.of = {number: _Tally(self._bounds, self._level) for number in numbers}
        self.of_models = {(own, second): _Tally(self._bounds, self._level) for own, second in models}
        for number, each in enumerate([*self.of.values(), *self.of_models.values()]):
            each.restore(part_of(state, f"{number}"))


class PairedComparison:
    """Follows the decisions of one live policy that offered a second call. Another share of them begins anew.

    The same records in the same order give the same bits, wherever `state` and `restore` come in between.
    """

    def __init__(self, bounds: Mapping[Metric, Bounds], level: float, waiting_max: int) -> None:
        self._bounds, self._level, self._waiting_max = bounds, level, waiting_max
        self._lineup = _Lineup({}, {})
        self._share = 0.0
        self.restart()

    def restart(self) -> None:
        """The live policy is another from here on: what was found is put away."""
        self._waiting: OrderedDict[int, Pair] = OrderedDict()
        self._singles: list[Pending] = []
        self._pairs: list[Pair] = []
        self._tallies = _Tallies(self._bounds, self._level)
        self._counts = dict.fromkeys(_COUNTS, 0)

    def line_up(self, names: Mapping[int, str], standing: Mapping[int, Standing]) -> None:
        """These are the contenders, by their numbers; what is known of others is forgotten."""
        self._lineup = _Lineup(names, standing)
        self._tallies.of = {number: each for number, each in self._tallies.of.items() if number in names}

    def begin(self, decision: DecisionRecord, pending: Pending) -> None:
        """A decision was answered."""
        if not pending.second_share:
            return
        if pending.second_share != self._share:
            self.restart()
            self._share = pending.second_share
        pair = Pair.of(decision, pending)
        if pair is None:
            return
        self._counts["called"] += not pair.one
        self._waiting[decision.seq] = pair
        if len(self._waiting) > self._waiting_max:
            _, given_up = self._waiting.popitem(last=False)
            self._counts["dropped"] += not given_up.one

    def on_report(self, report: ReportRecord, seq: int, at_once: bool) -> None:
        """A report came in time on the decision at this position. A pair ends `at_once` when all is known."""
        pair = self._waiting.get(seq)
        if pair is None:
            return
        pair.note(report)
        if at_once and pair.complete:
            self._end(self._waiting.pop(seq))

    def on_close(self, seq: int, active: bool, missing_reward: float | None) -> None:
        """The window of the decision at this position has closed."""
        pair = self._waiting.pop(seq, None)
        if pair is None:
            return
        pair.close(missing_reward)
        if active and pair.told:
            self._end(pair)
        elif not pair.one:
            self._counts["untold"] += 1

    def settle(self, pending: Pending) -> None:
        """A decision's own call has become an event."""
        if not pending.second_share or pending.second_share != self._share:
            return
        self._singles.append(pending)
        if len(self._singles) == SINGLES_IN_A_BATCH:
            singles, self._singles = self._singles, []
            self._tallies.take_singles(singles, self._lineup)

    def _end(self, pair: Pair) -> None:
        if pair.own.fallback or pair.second.fallback:
            self._counts["dropped"] += not pair.one
            return
        self._counts["pairs"] += not pair.one
        self._pairs.append(pair)
        if len(self._pairs) == PAIRS_IN_A_BATCH:
            pairs, self._pairs = self._pairs, []
            self._tallies.take_pairs(pairs, self._lineup)

    def results(self) -> Paired:
        """What is known now. Asking changes nothing."""
        found = deepcopy(self._tallies)
        found.take_singles(self._singles, self._lineup)
        found.take_pairs(self._pairs, self._lineup)
        named = {self._lineup.names[number]: each for number, each in found.of.items()}
        return Paired(
            **self._counts,
            waiting=len(self._waiting),
            candidates=tuple(each.of_candidate(name) for name, each in sorted(named.items())),
            models=tuple(ModelPairs(*key, each.differences()) for key, each in sorted(found.of_models.items())),
        )

    def state(self) -> tuple[dict[str, Any], ArrayState]:
        """Everything but the contenders: what JSON takes, and arrays."""
        meta = {
            "share": self._share,
            "counts": self._counts,
            "waiting": [[seq, each.dump()] for seq, each in self._waiting.items()],
            "singles": [each.dump() for each in self._singles],
            "pairs": [each.dump() for each in self._pairs],
            "contenders": list(self._tallies.of),
            "models": list(self._tallies.of_models),
        }
        return meta, self._tallies.state()

    def restore(self, meta: Mapping[str, Any], arrays: ArrayState) -> None:
        """Takes back what `state` gave."""
        self.restart()
        self._share = meta["share"]
        self._counts = {name: int(meta["counts"][name]) for name in _COUNTS}
        self._waiting = OrderedDict((seq, Pair.load(each)) for seq, each in meta["waiting"])
        self._singles = [Pending.load(each) for each in meta["singles"]]
        self._pairs = [Pair.load(each) for each in meta["pairs"]]
        self._tallies.restore(meta["contenders"], meta["models"], arrays)
