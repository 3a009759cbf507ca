"""An evaluation answers each decision once, before its outcome, and gives each candidate's value."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from builders import model
from evaluation_logs import (
    COSTS,
    RULED,
    SETTINGS,
    THRESHOLD,
    Log,
    Record,
    close,
    log,
    play,
    played,
    router,
    value,
)

from policy.candidates import CandidateSpec
from policy.domain import InvalidFieldError
from policy.evaluation import Evaluation, OrderError
from policy.evidence import Metric


def drawn(of: Log, name: str) -> list[Record]:
    return [each for each in of.records if each.decision.choice.model == name]


def test_a_fixed_model_is_worth_what_the_weighted_outcomes_of_its_calls_come_to() -> None:
    of = log(1, 700)
    results = played(of)
    weighted = [each.reports[0].reward / each.decision.choice.probability for each in drawn(of, "middle")]  # type: ignore[operator]
    quality = results.candidate("fixed:middle").estimates[Metric.QUALITY]
    assert quality.ips.candidate.value == pytest.approx(sum(weighted) / 700)
    assert quality.ips.live.value == pytest.approx(np.mean([each.reports[0].reward for each in of.records]))  # type: ignore[arg-type]
    assert value(results, "fixed:dear", Metric.COST_USD) == pytest.approx(0.012)
    assert value(results, "cheapest", Metric.COST_USD) == pytest.approx(0.001)
    assert value(results, "dearest", Metric.COST_USD) == pytest.approx(0.012)
    assert value(results, "uniform", Metric.COST_USD) == pytest.approx(COSTS.mean())
    assert (results.decisions, results.settled, results.pending) == (700, 700, 0)


def test_the_table_has_the_best_first_and_leaves_out_an_incumbent_that_nobody_named() -> None:
    of = log(2, 600)
    utilities = [each.value(Metric.UTILITY) for each in played(of).table()]
    assert utilities == sorted(utilities, reverse=True)
    assert "incumbent" not in [each.id for each in played(of).table()]
    named = [Record(replace(each.decision, incumbent_model="middle"), each.reports) for each in of.records]
    results = played(named)
    assert "incumbent" in [each.id for each in results.table()]
    assert value(results, "incumbent") == value(results, "fixed:middle")


def test_an_outcome_before_its_answer_is_an_error_and_so_is_a_second_answer() -> None:
    first, second = log(13, 2).records
    evaluation = Evaluation(router(), [THRESHOLD])
    with pytest.raises(OrderError, match="before it was answered"):
        evaluation.on_report(first.reports[0], first.decision)
    with pytest.raises(OrderError, match="before it was answered"):
        close(evaluation, first)
    evaluation.on_decision(second.decision)
    for decision in (second.decision, first.decision):
        with pytest.raises(OrderError, match="answered before"):
            evaluation.on_decision(decision)
    with pytest.raises(OrderError, match="after it"):
        evaluation.on_report(replace(second.reports[0], seq=second.decision.seq), second.decision)


def test_an_answer_cannot_be_written_to() -> None:
    evaluation = Evaluation(router(), [RULED])
    evaluation.on_decision(log(14, 1).records[0].decision)
    (answer,) = next(iter(evaluation._pending.values())).answers.values()
    with pytest.raises(TypeError, match="assignment"):
        answer[0] = 0.0  # type: ignore[index]


def test_what_was_decided_before_the_evaluation_began_is_not_an_error_and_not_entered() -> None:
    early, late = log(15, 2).records
    evaluation = Evaluation(router(), from_seq=early.decision.seq)
    evaluation.on_report(early.reports[0], early.decision)
    play(evaluation, [late])
    assert evaluation.results().settled == 1


def test_names_that_stand_twice_or_pretend_to_be_a_comparator_are_refused() -> None:
    for specs in (
        [THRESHOLD, replace(THRESHOLD, policy="learned")],
        [CandidateSpec("uniform", policy="cheapest")],
        [CandidateSpec("fixed:new", policy="cheapest")],
    ):
        with pytest.raises(InvalidFieldError, match="stands twice"):
            Evaluation(router(), specs)
    same = CandidateSpec("uniform", policy="uniform")
    assert not play(Evaluation(router(), [same]), []).results().candidate("uniform").comparator


def test_pending_decisions_are_bounded_and_what_is_given_up_is_counted() -> None:
    records = log(16, 50).records
    evaluation = Evaluation(router(), settings=replace(SETTINGS, pending_max=20))
    for record in records:
        evaluation.on_decision(record.decision)
    for record in records:
        evaluation.on_report(record.reports[0], record.decision)
    results = evaluation.results()
    assert (results.evicted, results.settled, results.pending) == (30, 20, 0)


def test_a_model_that_joins_gets_its_comparator_and_one_that_leaves_loses_it() -> None:
    of = router()
    evaluation = Evaluation(replace(of, models=of.models[:2]), settings=SETTINGS)
    evaluation.on_registry(of)
    play(evaluation, log(17, 20).records)
    assert evaluation.results().candidate("fixed:dear").support.events == 20
    gone = replace(of, models=(*of.models[1:], model("new", 9)))
    evaluation.on_registry(gone)
    names = [each.id for each in evaluation.results().candidates]
    assert "fixed:cheap" not in names
    assert "fixed:new" in names


def test_a_model_that_takes_the_id_of_one_that_is_gone_is_compared_by_its_own_outcomes() -> None:
    """Also those of decisions on the old one that are still pending, or wait for their batch, are not its own."""
    of = router()
    records = log(24, 30).records
    evaluation = play(Evaluation(of, settings=SETTINGS), records[:20])
    for record in records[20:]:
        evaluation.on_decision(record.decision)
    without = replace(of, models=of.models[:2])
    evaluation.on_registry(without)
    evaluation.on_registry(replace(of, models=(*of.models[:2], model("dear", 99))))
    for record in records[20:]:
        evaluation.on_report(record.reports[0], record.decision)
    results = evaluation.results()
    assert results.candidate("fixed:dear").support.events == 0
    assert results.candidate("fixed:cheap").support.events == results.candidate("uniform").support.events == 30


def test_a_model_that_is_replaced_in_one_step_begins_anew_and_so_it_is_after_a_restart() -> None:
    of = router()
    fixed = CandidateSpec("fixed:dear", policy="fixed:dear")
    evaluation = play(Evaluation(of, [fixed], SETTINGS), log(25, 20).records)
    replaced = replace(of, models=(*of.models[:2], model("dear", 99)))
    evaluation.on_registry(replaced)
    restored = Evaluation.restore(replaced, [fixed], evaluation.state(), SETTINGS)
    for each in (evaluation, restored):
        found = each.results().candidate("fixed:dear")
        assert (found.support.events, found.comparator) == (0, False)
        assert each.results().candidate("fixed:cheap").support.events == 20
