"""Synthetic logs of a live policy as records, with the value of every policy known, and a leak detector."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from builders import DAY_US, SECOND_US, model, vector
from builders import router as build_router

from policy.candidates import CandidateSpec, Rule, Threshold
from policy.choices import Candidate, Choice, Exclusion
from policy.contenders import Build, contender
from policy.domain import FloatArray, LearnerKind, Router
from policy.evaluation import Evaluation, EvaluationSettings
from policy.evidence import Metric
from policy.join import joined
from policy.league import Results
from policy.log import DecisionRecord, ReportRecord, Usage
from policy.verdict import Requirements

MODELS = ("cheap", "middle", "dear")
COSTS = np.array([0.001, 0.004, 0.012])
VALUE_USD = 0.05
FIRST_SEQ = 1000
UTILITY_ALONE = Requirements(
    quality_loss_max=None, cost_factor_max=None, latency_factor_max=None, error_increase_max=None
)
SETTINGS = EvaluationSettings(requirements=UTILITY_ALONE)
RULED = CandidateSpec("ruled", policy="fixed:cheap", rules=(Rule("topic", "dear", equals="math"),))
THRESHOLD = CandidateSpec("threshold", threshold=Threshold("dear", "cheap", 0.1))
VOWPAL = CandidateSpec("vowpal", learner=LearnerKind.VOWPAL_WABBIT)


def router(**rest: object) -> Router:
    """Three models whose prices say what they cost."""
    of = [
        model(name, uid, per_request=cost)
        for uid, (name, cost) in enumerate(zip(MODELS, COSTS.tolist(), strict=True), start=1)
    ]
    return build_router(of, **{"value": VALUE_USD, **rest})  # type: ignore[arg-type]


@dataclass(frozen=True)
class Record:
    """A decision, and what is reported of it."""

    decision: DecisionRecord
    reports: tuple[ReportRecord, ...]


@dataclass(frozen=True)
class Log:
    """Records in the order of the decisions; `means` are the models' expected qualities, (decisions, models)."""

    records: list[Record]
    means: FloatArray

    def utilities(self) -> FloatArray:
        """The expected utility of each model in each decision, (decisions, models)."""
        utilities: FloatArray = self.means - COSTS / VALUE_USD
        return utilities


def means_of(x: FloatArray) -> FloatArray:
    """Expected quality of each model for requests of difficulty x in [-1, 1]: (requests, models)."""
    return np.stack([0.6 - 0.3 * x, 0.75 - 0.1 * x, 0.85 - 0.0 * x], axis=1)


def log(seed: int, count: int, *, least: float = 0.1) -> Log:
    """Hard requests more often go to dear models; no model has a propensity below `least`. Rewards are 0 or 1."""
    print(f"seed {seed}")
    generator = np.random.default_rng(seed)
    x = generator.uniform(-1.0, 1.0, count)
    means = means_of(x)
    raw = np.stack([1.2 - x, np.ones(count), 0.6 + 0.5 * x], axis=1)
    propensities = least + (1.0 - 3.0 * least) * raw / raw.sum(axis=1, keepdims=True)
    draws = generator.uniform(size=(count, 1))
    chosen = np.minimum((draws > propensities.cumsum(axis=1)).sum(axis=1), 2)
    rewards = (generator.uniform(size=count) < means[np.arange(count), chosen]).astype(float)
    predicted = np.clip(means + generator.normal(size=means.shape) * 0.1, 0.0, 1.0)
    rows = zip(
        x.tolist(), propensities.tolist(), predicted.tolist(), chosen.tolist(), rewards.tolist(), strict=True
    )
    return Log([_record(number, *row) for number, row in enumerate(rows)], means)


def _record(
    number: int, x: float, propensities: list[float], predicted: list[float], chosen: int, reward: float
) -> Record:
    columns = zip(MODELS, propensities, predicted, COSTS.tolist(), strict=True)
    candidates = tuple(
        Candidate(name, share, quality, cost, 0.0, quality - cost / VALUE_USD)
        for name, share, quality, cost in columns
    )
    choice = Choice(MODELS[chosen], propensities[chosen], candidates, (), "learned", 0, 1.0 / VALUE_USD)
    seq = FIRST_SEQ + 2 * number
    decision = DecisionRecord(
        seq=seq,
        time_us=seq * SECOND_US,
        expire_us=seq * SECOND_US + DAY_US,
        router="support",
        decision_id=f"decision-{seq}",
        choice=choice,
        features=vector(x, 1.0 - abs(x)),
        prompt_tokens=100.0,
        input_tokens=0,
        max_output_tokens=0,
        categorical={"topic": "math" if x > 0 else "poems"},
        numeric={"difficulty": x},
    )
    return Record(decision, (told(decision, reward, float(COSTS[chosen])),))


def told(
    decision: DecisionRecord,
    reward: float | None = None,
    cost_usd: float | None = None,
    *,
    seq: int | None = None,
    served: str = "",
    **rest: object,
) -> ReportRecord:
    """A report as it is stored, the first of its decision unless `rest` says more."""
    return ReportRecord(
        seq=decision.seq + 1 if seq is None else seq,
        time_us=decision.time_us + SECOND_US,
        decision_id=decision.decision_id,
        reward=reward,
        usage=None if cost_usd is None else Usage(100, 100, cost_usd),
        served_model=served,
        subject=served or decision.choice.model,
        learned_reward=reward,
        charged_usd=cost_usd,
        settles=cost_usd is not None,
        **rest,  # type: ignore[arg-type]
    )


def play(evaluation: Evaluation, records: Sequence[Record]) -> Evaluation:
    """Gives each decision and then its reports."""
    for record in records:
        evaluation.on_decision(record.decision)
        for report in record.reports:
            evaluation.on_report(report, record.decision)
    return evaluation


def played(of: Log | Sequence[Record], *specs: CandidateSpec, settings: EvaluationSettings = SETTINGS) -> Results:
    """What an evaluation of these candidates finds in a log."""
    records = of.records if isinstance(of, Log) else of
    return play(Evaluation(router(), specs, settings), records).results()


def value(results: Results, name: str, metric: Metric = Metric.QUALITY) -> float:
    """The estimate of one candidate's metric."""
    return results.candidate(name).value(metric)


def close(evaluation: Evaluation, record: Record) -> None:
    """Closes the window of a decision."""
    evaluation.on_close(record.decision, joined(record.decision.deferred, record.reports))


def with_choice(record: Record, **changes: object) -> Record:
    """The record with its choice changed."""
    choice = replace(record.decision.choice, **changes)  # type: ignore[arg-type]
    return Record(replace(record.decision, choice=choice), record.reports)


def excluded(record: Record, *names: str) -> Record:
    """The record as it would be if these models, of which none was drawn, had been no candidates."""
    assert record.decision.choice.model not in names
    out = [each.model in names for each in record.decision.choice.candidates]
    pairs = list(zip(record.decision.choice.candidates, out, strict=True))
    rest = sum(each.probability for each, gone in pairs if not gone)
    candidates = tuple(
        replace(each, exclusion=Exclusion.DENIED, probability=0.0)
        if gone
        else replace(each, probability=each.probability / rest)
        for each, gone in pairs
    )
    drawn = next(each for each in candidates if each.model == record.decision.choice.model)
    return with_choice(record, candidates=candidates, probability=drawn.probability)


def answers(spec: CandidateSpec, records: Sequence[Record], build: Build = contender) -> list[dict[str, float]]:
    """What the candidate answers each decision of a log."""
    evaluation = Evaluation(router(), [spec], build=build)
    found = []
    for record in records:
        evaluation.on_decision(record.decision)
        found.append(dict(evaluation.answers(record.decision).get(spec.id, {})))
        for report in record.reports:
            evaluation.on_report(report, record.decision)
    return found


def first_peek(
    spec: CandidateSpec,
    records: Sequence[Record],
    build_for: Callable[[Sequence[Record]], Build] = lambda _: contender,
) -> int | None:
    """The first decision whose answer depends on an outcome that comes after it, None if there is none.

    The log is played once as it is, and once for each of some places with all outcomes from there on turned.
    `build_for` makes what runs the candidate on a log, from that log: here is where it could leak.
    """
    as_logged = answers(spec, records, build_for(records))
    for place in range(0, len(records), max(1, len(records) // 8)):
        turned = [*records[:place], *map(_turned, records[place:])]
        for number, answer in enumerate(answers(spec, turned[: place + 1], build_for(turned))):
            if answer != as_logged[number]:
                return number
    return None


def _turned(record: Record) -> Record:
    reports = tuple(
        replace(each, reward=1.0 - each.reward, learned_reward=1.0 - each.reward)
        for each in record.reports
        if each.reward is not None
    )
    return Record(record.decision, reports)


def bits(state: bytes) -> dict[str, bytes]:
    """What a saved state holds, without the times that its archives were written at."""
    with np.load(io.BytesIO(state), allow_pickle=False) as archive:
        arrays = {name: archive[name].tobytes() for name in archive.files}
    found: dict[str, bytes] = {}
    for name, each in arrays.items():
        inner = bits(each) if each.startswith(b"PK") else {"": each}
        found |= {f"{name}/{part}": value for part, value in inner.items()}
    return found
