"""A router before and after a promotion, decision by decision, with outcomes that can be made worse at will."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from policy.candidates import CandidateSpec
from policy.choices import Candidate, Choice
from policy.domain import Model, ModelError, ModelSpec, Prices, Router, RouterSpec
from policy.evaluation import Evaluation
from policy.guard import Guard
from policy.log import DecisionRecord, ReportRecord, Usage
from policy.promotion import reason_to_go_back
from policy.verdict import Requirements

KNOWN_DECISIONS = 1000
"""Decisions of the former policy, by which the level is known."""

GOOD_DECISIONS = 500
"""Decisions of the promoted policy before it turns bad."""

_FORMER = "previous-1"
_OLD, _NEW = "old", "new"
_LOOK_EVERY = 20
_FIRST_SEQ = 10
_FEATURES = np.zeros(1, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What a call comes to in the mean. Rewards are 0 or 1; USD and seconds are lognormal, with deviations of 1.3
    and 0.9 times the mean.
    """

    quality: float = 0.8
    failing: float = 0.02
    cost_usd: float = 0.002
    latency_seconds: float = 1.0


@dataclass(frozen=True, slots=True)
class Left:
    """After how many decisions the promoted policy was left, and whether by the guard; else by a sequence."""

    decisions: int
    by_guard: bool


class Promotion:
    """A policy that calls `old` nine times in ten was live, and one that calls `new` so often has taken its place.

    `share` of the decisions is held back for the former, of whom every model has a propensity then.
    """

    def __init__(self, seed: int, share: float, *, sequences: bool) -> None:
        self._generator = np.random.default_rng(seed)
        self._seq = _FIRST_SEQ
        self._guard = Guard()
        self._requirements = Requirements()
        models = tuple(
            Model(name, uid, ModelSpec(prices=Prices(1.0, 4.0))) for uid, name in enumerate((_OLD, _NEW))
        )
        self._router = Router("promotion", RouterSpec(), models)
        self._evaluation: Evaluation | None = None
        good = Outcomes()
        for decision, report in self._play(0.1, good, good, KNOWN_DECISIONS):
            self._guard.on_report(report, decision)
        self._guard.begin(self._seq, promoted=True)
        self._new_share = 0.9 * (1.0 - share) + 0.1 * share
        if sequences:
            self._evaluation = Evaluation(self._router, [CandidateSpec(_FORMER, policy=f"fixed:{_OLD}")])

    def until_left(self, new: Outcomes, most: int, drift: float = 0.0) -> Left | None:
        """Plays until the router goes back, `most` decisions at most, while `new` comes to this.

        With `drift` the quality of both models falls by so much in the course of it.
        """
        old = Outcomes()
        for number, (decision, report) in enumerate(self._play(self._new_share, old, new, most, drift), 1):
            self._guard.on_report(report, decision)
            if self._guard.crossed:
                return Left(number, by_guard=True)
            if self._evaluation is None:
                continue
            self._evaluation.on_decision(decision)
            self._evaluation.on_report(report, decision)
            if number % _LOOK_EVERY == 0:
                former = self._evaluation.results().candidate(_FORMER)
                if reason_to_go_back(former, self._requirements):
                    return Left(number, by_guard=False)
        return None

    def _play(
        self, new_share: float, old: Outcomes, new: Outcomes, count: int, drift: float = 0.0
    ) -> Iterator[tuple[DecisionRecord, ReportRecord]]:
        draws = self._generator
        for number in range(count):
            is_new = draws.uniform() < new_share
            of = new if is_new else old
            failed = draws.uniform() < of.failing
            rewarded = draws.uniform() < of.quality - drift * number / count
            cost_usd = of.cost_usd * float(draws.lognormal(-0.5, 1.0))
            latency_seconds = of.latency_seconds * float(draws.lognormal(-0.3, 0.775))
            self._seq += 2
            shares = (1.0 - new_share, new_share)
            candidates = tuple(
                Candidate(name, share, 0.8, 0.002, 1.0, 0.76)
                for name, share in zip((_OLD, _NEW), shares, strict=True)
            )
            chosen = candidates[is_new]
            choice = Choice(chosen.model, chosen.probability, candidates, (), "learned", 0, 20.0)
            name = str(self._seq)
            decision = DecisionRecord(
                self._seq, self._seq, self._seq, "promotion", name, choice, _FEATURES, 0.0, 0, 0
            )
            report = ReportRecord(
                seq=self._seq + 1,
                time_us=self._seq,
                decision_id=name,
                subject=chosen.model,
                latency_seconds=latency_seconds,
                error=ModelError.TIMEOUT if failed else None,
                usage=None if failed else Usage(100, 100, cost_usd),
                learned_reward=None if failed else float(rewarded),
                charged_usd=None if failed else cost_usd,
                settles=not failed,
            )
            yield decision, report
