"""Logs of any length, for speed and memory: as a file, and as the live log tells it."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from policy.candidates import CandidateSpec
from policy.choices import Candidate, Choice
from policy.domain import Features, Model, ModelSpec, Prices, Router, RouterSpec
from policy.evaluation import Evaluation
from policy.features import Featuriser
from policy.log import DecisionRecord, ReportRecord, Usage
from server.evaluate.log_file import LogFile
from server.evaluate.log_writer import LogWriter
from server.evaluate.source import feed
from server.rows.file import RowFile

_MODELS, _FIRST_SEQ, _BLOCK = 3, 1_000_000, 4096
_DELAY_DECISIONS = 10_000
_PROMPT = (
    "Question {}: " + "what does a pointsman do when two trains want the same track, and which is first? " * 2
)


@dataclass(frozen=True, slots=True)
class Speed:
    """How many decisions were evaluated, and the process's largest size until then.

    The seconds are those of the processor, so that what else runs on the machine counts for less. Where nothing
    else does they are the clock's.
    """

    decisions: int
    seconds: float
    peak_bytes: int

    @property
    def rate(self) -> float:
        """Decisions a second."""
        return self.decisions / self.seconds


def measure_file(folder: Path, count: int, candidates: Sequence[CandidateSpec] = ()) -> Speed:
    """Evaluates a file of so many decisions with these candidates and the standing comparators.

    The file is written to the folder first, which takes its time but is not counted. Three models, prompts of
    200 characters, outcomes beside each decision.
    """
    path = folder / "decisions.jsonl"
    with path.open("wb") as out:
        for block in _blocks(count):
            prompts = [_PROMPT.format(decision.decision_id) for decision, _ in block]
            writer = LogWriter(out, prompts)
            for decision, report in block:
                writer.on_report(report, decision)
    router = Router("synthetic", RouterSpec())
    featuriser = Featuriser() if any(each.learns for each in candidates) else None
    evaluation = Evaluation(router, candidates)
    started = time.process_time()
    feed(evaluation, LogFile(RowFile(path), router, None, featuriser), lambda _: None)
    evaluation.results()
    return Speed(count, time.process_time() - started, _peak_bytes())


def measure_live(count: int) -> Speed:
    """Evaluates so many decisions, each reported 10,000 decisions later; the time to make them is not counted."""
    models = tuple(Model(f"m{each}", each, ModelSpec(prices=Prices(1.0, 4.0))) for each in range(_MODELS))
    evaluation = Evaluation(Router("synthetic", RouterSpec(), models))
    waiting: list[tuple[DecisionRecord, ReportRecord]] = []
    seconds = 0.0
    for block in _blocks(count):
        started = time.process_time()
        for decision, _ in block:
            evaluation.on_decision(decision)
        seconds += time.process_time() - started
        waiting += block
        told, waiting = waiting[:-_DELAY_DECISIONS], waiting[-_DELAY_DECISIONS:]
        seconds += _report(evaluation, told)
    seconds += _report(evaluation, waiting)
    evaluation.results()
    return Speed(count, seconds, _peak_bytes())


def _peak_bytes() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _report(evaluation: Evaluation, told: list[tuple[DecisionRecord, ReportRecord]]) -> float:
    started = time.process_time()
    for decision, report in told:
        evaluation.on_report(report, decision)
    return time.process_time() - started


def _blocks(count: int) -> Iterator[list[tuple[DecisionRecord, ReportRecord]]]:
    generator = np.random.default_rng(0)
    features = np.zeros(1, dtype=np.float32)
    for first in range(0, count, _BLOCK):
        size = min(_BLOCK, count - first)
        shares = generator.dirichlet(np.ones(_MODELS), size) * 0.85 + 0.05
        chosen = (generator.uniform(size=(size, 1)) > shares.cumsum(axis=1)).sum(axis=1).clip(max=_MODELS - 1)
        rewards = generator.uniform(size=size)
        rows = zip(shares.tolist(), chosen.tolist(), rewards.tolist(), strict=True)
        yield [_record(first + number, *row, features) for number, row in enumerate(rows)]


def _record(
    number: int, shares: list[float], chosen: int, reward: float, features: Features
) -> tuple[DecisionRecord, ReportRecord]:
    candidates = tuple(
        Candidate(f"m{each}", share, 0.5, 0.001 * (each + 1), 0.0, 0.4) for each, share in enumerate(shares)
    )
    model, cost = candidates[chosen].model, candidates[chosen].cost_usd
    choice = Choice(model, shares[chosen], candidates, (), "learned", 0, 20.0)
    # Reports come in between by their positions, however late they are.
    seq = _FIRST_SEQ + 2 * number
    name = f"d{number}"
    decision = DecisionRecord(seq, number, number, "synthetic", name, choice, features, 0.0, 0, 0)
    usage = Usage(10, 10, cost)
    report = ReportRecord(
        seq=seq + 1,
        time_us=number,
        decision_id=name,
        reward=reward,
        usage=usage,
        subject=model,
        learned_reward=reward,
        charged_usd=cost,
        settles=True,
    )
    return decision, report
