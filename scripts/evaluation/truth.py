"""Plays a replay file with an evaluation beside it, and knows what each candidate would really have earned."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from policy.candidates import CandidateSpec
from policy.domain import FloatArray, Model, ModelSpec, Router, RouterSpec
from policy.evaluation import Evaluation, EvaluationSettings
from policy.evidence import Metric
from policy.join import Joined
from policy.log import DecisionRecord, ReportRecord
from policy.settlement import money_price
from policy.simulation import Round, World, simulate
from server.replay.file import ReplayFile
from server.replay.run import plan_of

METRICS = (Metric.QUALITY, Metric.COST_USD, Metric.UTILITY)


@dataclass(frozen=True, slots=True)
class Look:
    """The evaluation after so many decisions, with the true means so far: (METRICS,) by candidate.

    `propensities` are the live policy's, (decisions, models).
    """

    decisions: int
    evaluation: Evaluation
    truth: dict[str, FloatArray]
    live: FloatArray
    propensities: list[list[float]]


class _Truth:
    """Follows the log after the evaluation, and adds up what the answers are worth by all outcomes."""

    def __init__(self, router: Router, rounds: Sequence[Round], evaluation: Evaluation) -> None:
        self._router, self._rounds, self._evaluation = router, iter(rounds), evaluation
        self.sums: dict[str, FloatArray] = {}
        self.live: FloatArray = np.zeros(len(METRICS))
        self.propensities: list[list[float]] = []

    def on_registry(self, router: Router) -> None: ...

    def on_decision(self, decision: DecisionRecord) -> None:
        outcomes = next(self._rounds).outcomes
        money = money_price(self._router.spec, decision, self._evaluation.bounds)
        worth = {
            model: np.array([each.quality, each.cost_usd, each.quality - money * each.cost_usd])
            for model, each in outcomes.items()
        }
        logged = {each.model: each.probability for each in decision.choice.candidates}
        for model, share in logged.items():
            self.live = self.live + share * worth[model]
        for name, answer in self._evaluation.answers(decision).items():
            for model, share in answer.items():
                self.sums[name] = self.sums.get(name, 0.0) + share * worth[model]
        self.propensities.append(list(logged.values()))

    def on_report(self, report: ReportRecord, decision: DecisionRecord) -> None: ...

    def on_close(self, decision: DecisionRecord, joined: Joined) -> None: ...


@dataclass(frozen=True, slots=True)
class Case:
    """A replay file to be played under a router's spec, with candidates evaluated beside it."""

    file: ReplayFile
    rounds: Sequence[Round]
    spec: RouterSpec
    candidates: tuple[CandidateSpec, ...]
    settings: EvaluationSettings

    def play(self, seed: int, count: int, every: int) -> Iterator[Look]:
        """Looks after each `every` of the first `count` decisions, and at the end."""
        models = tuple(Model(each, index, ModelSpec()) for index, each in enumerate(self.file.models))
        router = Router("replay", self.spec, models)
        rounds = [self.rounds[row] for row in plan_of(self.file, seed).order[:count]]
        evaluation = Evaluation(router, self.candidates, self.settings)
        truth = _Truth(router, rounds, evaluation)
        for played, _ in enumerate(simulate(World(router, rounds), seed, (evaluation, truth)), 1):
            if played % every == 0 or played == len(rounds):
                means = {name: total / played for name, total in truth.sums.items()}
                yield Look(played, evaluation, means, truth.live / played, truth.propensities)


def kendall_tau(first: Sequence[float], second: Sequence[float]) -> float:
    """The share of pairs in the same order less that of pairs in the other (Kendall 1938), without ties."""
    pairs = [(i, j) for i in range(len(first)) for j in range(i)]
    return float(np.mean([np.sign((first[i] - first[j]) * (second[i] - second[j])) for i, j in pairs]))
