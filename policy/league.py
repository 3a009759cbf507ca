"""What an evaluation found: each candidate's estimates, intervals and verdict, and the table they make."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field

import numpy as np

from policy.array_state import ArrayState, part_of, prefixed
from policy.candidates import INCUMBENT, CandidateSpec
from policy.confidence import Bounds, ConfidenceSequence, Contrast
from policy.estimators import Estimators, MetricEstimates, Support
from policy.evidence import Events, Interval, Metric
from policy.paired import Paired
from policy.settlement import METRICS
from policy.verdict import Requirements, Verdict, judge

DIFFERENCES = (Contrast(Metric.UTILITY), Contrast(Metric.QUALITY))
"""What is followed whatever is required: by these any two candidates are told apart."""


@dataclass(frozen=True, slots=True)
class CandidateResult:
    """What is known of one candidate.

    `estimates` hold at one time chosen beforehand; `sequences` at all times at once, and the verdict is by
    those. `since` is the position from which on a sequence counts, where that is later than the others. `clipped`
    are the events with a value beyond what was declared possible, for each metric.
    """

    spec: CandidateSpec
    comparator: bool
    estimates: Mapping[Metric, MetricEstimates]
    sequences: Mapping[Contrast, Interval]
    clipped: Mapping[Metric, int]
    support: Support
    verdict: Verdict
    since: Mapping[Contrast, int] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """The candidate's name."""
        return self.spec.id

    def value(self, metric: Metric) -> float:
        """The estimate of a metric that does best where propensities change; nan without events."""
        return self.estimates[metric].adr.candidate.value


@dataclass(frozen=True, slots=True)
class Results:
    """What an evaluation has found so far.

    Of `decisions` answered, `settled` have become events, `pending` have not yet, `evicted` were given up since
    too many were pending, and `abandoned` were asked ahead and never used. `shadow` are those made in shadow
    mode, with an incumbent to obey, and `incumbents` those that one was named in. `revised` are the reports that
    changed a reward which was entered no more, since it was settled or left out. `paired` is what second calls
    say.
    """

    decisions: int
    settled: int
    pending: int
    evicted: int
    abandoned: int
    shadow: int
    incumbents: int
    revised: int
    candidates: tuple[CandidateResult, ...]
    paired: Paired = Paired()

    def table(self) -> tuple[CandidateResult, ...]:
        """The candidates, the highest utility first, or quality where no utility is known; without the incumbent
        where none was ever named.
        """

        def rank(each: CandidateResult) -> tuple[bool, float]:
            value = each.value(Metric.UTILITY)
            value = each.value(Metric.QUALITY) if math.isnan(value) else value
            return math.isnan(value), -value

        shown = [each for each in self.candidates if self.incumbents or each.spec.policy != INCUMBENT]
        return tuple(sorted(shown, key=rank))

    def candidate(self, name: str) -> CandidateResult:
        """The candidate of this name. Raises KeyError."""
        found = next((each for each in self.candidates if each.id == name), None)
        if found is None:
            raise KeyError(name)
        return found

    def better(self, metric: Metric, first: str, second: str) -> bool | None:
        """Whether the first candidate has more of the metric than the second; None if that is not decided.

        The sequences of their differences to the live policy have to part, in which what all policies owe to the
        events cancels. Of each only one end is in question, so that the answer is wrong with no more than the
        probability that one sequence is, whenever it is asked. Raises KeyError for a metric not in DIFFERENCES.
        """
        contrast = Contrast(metric)
        one, other = self.candidate(first).sequences[contrast], self.candidate(second).sequences[contrast]
        if one.low > other.high:
            return True
        return False if other.low > one.high else None


class Tally:
    """The events of one candidate: estimates and sequences."""

    def __init__(self, requirements: Requirements, bounds: Mapping[Metric, Bounds], level: float) -> None:
        self._level, self._bounds = level, bounds
        self.estimators = Estimators(METRICS)
        self._sequences: dict[Contrast, ConfidenceSequence] = {}
        self._since: dict[Contrast, int] = {}
        self.follow(requirements)

    def follow(self, requirements: Requirements, seq: int = 0) -> None:
        """Judges by these from this position of the log on: what is not followed yet is followed from there on,
        what they do not ask for is not any more.
        """
        self._requirements = requirements
        wanted = dict.fromkeys((*requirements.contrasts, *DIFFERENCES))
        self._since = {each: self._since.get(each, 0) if each in self._sequences else seq for each in wanted}
        self._sequences = {each: self._sequences.get(each) or self._blank(each) for each in wanted}

    def _blank(self, contrast: Contrast) -> ConfidenceSequence:
        return ConfidenceSequence(contrast, self._bounds[contrast.metric], self._level, keeps_narrowest=False)

    def add(self, events: Events) -> None:
        """Takes events, in the order in which they were settled."""
        self.estimators.add(events)
        for sequence in self._sequences.values():
            sequence.add(events)

    def with_events(self, batches: Sequence[Events]) -> Tally:
        """Another that has taken these events as well."""
        other = deepcopy(self)
        for batch in batches:
            other.add(batch)
        return other

    def result(self, spec: CandidateSpec, comparator: bool) -> CandidateResult:
        """What all of them say."""
        sequences = {contrast: each.now() for contrast, each in self._sequences.items()}
        support = self.estimators.support()
        return CandidateResult(
            spec=spec,
            comparator=comparator,
            estimates={metric: self.estimators.estimates(metric, self._level) for metric in METRICS},
            sequences=sequences,
            clipped={contrast.metric: each.clipped for contrast, each in self._sequences.items()},
            support=support,
            verdict=judge(self._requirements, support, sequences),
            since={contrast: seq for contrast, seq in self._since.items() if seq},
        )

    def state(self) -> ArrayState:
        """Everything, for `restore`."""
        found = prefixed("estimators", self.estimators.state())
        for number, sequence in enumerate(self._sequences.values()):
            found |= prefixed(f"sequence{number}", sequence.state())
        return {**found, "since": np.array(list(self._since.values()))}

    def restore(self, state: ArrayState) -> None:
        """Takes back what `state` gave, of a tally made alike."""
        self.estimators.restore(part_of(state, "estimators"))
        for number, sequence in enumerate(self._sequences.values()):
            sequence.restore(part_of(state, f"sequence{number}"))
        self._since = dict(zip(self._sequences, state["since"].tolist(), strict=True))
