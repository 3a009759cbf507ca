"""Candidates answered for many decisions at once answer as they would one by one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from evaluation_logs import MODELS, Record, log, router
from hypothesis import given, settings
from hypothesis import strategies as st

from policy.candidates import CandidateSpec, comparators
from policy.choices import IMPORTED, Candidate, Exclusion
from policy.contenders import Plain, Sight
from policy.evaluation import Evaluation

SPECS = (*comparators(router()), CandidateSpec("other", policy="fixed:elsewhere"))
OUT = Exclusion.DENIED
COSTS = st.sampled_from([0.0, 0.001, 0.002, float("nan")])
SCORES = st.sampled_from([-1.0, 0.0, 0.5, 1.0])


@st.composite
def candidates(draw: st.DrawFn) -> tuple[Candidate, ...]:
    """Three models, some of them excluded and not all, with equal costs and scores now and then."""
    out = draw(st.lists(st.booleans(), min_size=3, max_size=3).filter(lambda each: not all(each)))
    return tuple(
        Candidate(name, 1 / 3, 0.5, draw(COSTS), 0.0, draw(SCORES), OUT if gone else None)
        for name, gone in zip(MODELS, out, strict=True)
    )


@settings(max_examples=150, deadline=None)
@given(
    of=st.lists(
        st.tuples(candidates(), st.sampled_from(["", "elsewhere", *MODELS]), st.booleans()), min_size=1, max_size=6
    )
)
def test_each_answers_as_it_would_if_it_were_asked_decision_by_decision(
    of: list[tuple[tuple[Candidate, ...], str, bool]],
) -> None:
    evaluation = Evaluation(router(), [SPECS[-1]])
    for record, (seen, incumbent, imported) in zip(log(1, len(of)).records, of, strict=True):
        policy = IMPORTED if imported else "learned"
        choice = replace(record.decision.choice, candidates=seen, policy=policy)
        decision = replace(record.decision, choice=choice, incumbent_model=incumbent)
        evaluation.on_decision(decision)
        answers = evaluation.answers(decision)
        for spec in SPECS:
            alone = Plain(spec).answer(Sight.of(decision))
            assert answers[spec.id] == dict(zip(MODELS, alone, strict=True)), spec.id


@pytest.mark.parametrize("size", [1, 7, 64])
def test_how_many_events_are_taken_at_once_is_of_no_matter(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def found() -> list[object]:
        evaluation = Evaluation(router())
        for record in records:
            evaluation.on_decision(record.decision)
            for report in record.reports:
                evaluation.on_report(report, record.decision)
        return [(each.id, each.estimates, each.sequences) for each in evaluation.results().candidates]

    records: list[Record] = log(2, 150).records
    at_once = found()
    monkeypatch.setattr("policy.evaluation.EVENTS_IN_A_BATCH", size)
    assert found() == at_once


def test_answers_of_many_models_and_few_are_not_mixed_up() -> None:
    """Decisions of which the models differ are answered by groups, and come out as if there were none."""
    evaluation = Evaluation(router())
    records = log(3, 60).records
    for number, record in enumerate(records):
        choice = record.decision.choice
        kept = tuple(each for each in choice.candidates if number % 2 or each.model == choice.model)
        shares = np.array([each.probability for each in kept])
        told = tuple(
            replace(each, probability=share)
            for each, share in zip(kept, (shares / shares.sum()).tolist(), strict=True)
        )
        drawn = next(each for each in told if each.model == choice.model)
        decision = replace(record.decision, choice=replace(choice, candidates=told, probability=drawn.probability))
        evaluation.on_decision(decision)
        assert sum(evaluation.answers(decision)["uniform"].values()) == pytest.approx(1.0)
        evaluation.on_report(record.reports[0], decision)
    found = evaluation.results().candidate("uniform").support
    assert (found.events, found.unsupported_mean) == (60, 0.0)
