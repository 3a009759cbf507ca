"""Candidates: what can be said of one, what it answers, and that none can learn from a peek."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from builders import SIZE, random_vector
from evaluation_logs import MODELS, Record, answers, bits, excluded, first_peek, log, play, router
from hypothesis import given, settings
from hypothesis import strategies as st

from policy.candidates import CandidateSpec, FeaturePart, Rule, Threshold, comparators, parse_candidate
from policy.contenders import Build, Learning, Plain, Sight
from policy.domain import Exploration, InvalidFieldError, LearnerKind, Objective, Router
from policy.evaluation import Evaluation
from policy.log import DecisionRecord, ReportRecord

MATH = Rule("topic", "dear", equals="math")
HARD = Rule("difficulty", "middle", at_least=0.5)
KINDS = (
    *(CandidateSpec(each, policy=each) for each in ("learned", "greedy", "uniform", "incumbent", "cheapest")),
    CandidateSpec("vowpal", learner=LearnerKind.VOWPAL_WABBIT),
    CandidateSpec("bold", exploration=Exploration(strength=5.0)),
    CandidateSpec("thrifty", objective=Objective(budget_usd_per_request=0.002)),
    CandidateSpec("blind", features=(FeaturePart.STRUCTURE,)),
    CandidateSpec("threshold", threshold=Threshold("dear", "cheap", 0.2)),
    CandidateSpec("ruled", rules=(MATH,), policy="fixed:cheap"),
    CandidateSpec("ruled and learned", rules=(HARD, MATH)),
)


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"id": ""}, "id"),
        ({"id": "a\nb"}, "id"),
        ({"policy": "best"}, "policy"),
        ({"policy": "fixed:"}, "policy"),
        ({"policy": "uniform", "learner": LearnerKind.RIDGE}, "learner"),
        ({"policy": "fixed:a", "exploration": Exploration()}, "exploration"),
        ({"policy": "cheapest", "objective": Objective()}, "objective"),
        ({"policy": "incumbent", "features": (FeaturePart.CALLER,)}, "features"),
        ({"policy": "uniform", "threshold": Threshold("a", "b", 0.1)}, "policy"),
        ({"rules": (MATH,) * 65}, "rules"),
    ],
)
def test_a_candidate_that_says_nothing_sensible_is_refused(values: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidFieldError) as caught:
        CandidateSpec(**{"id": "x", **values})  # type: ignore[arg-type]
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: Rule("", "a", equals="b"), "rule.feature"),
        (lambda: Rule("f", "", equals="b"), "rule.model"),
        (lambda: Rule("f", "a"), "rule"),
        (lambda: Rule("f", "a", equals="b", at_least=1.0), "rule"),
        (lambda: Rule("f", "a", at_least=float("nan")), "rule.at_least"),
        (lambda: Threshold("a", "a", 0.1), "threshold.weak"),
        (lambda: Threshold("a", "b", 2.0), "threshold.gap"),
        (lambda: parse_candidate("x", "threshold:a:b"), "threshold"),
        (lambda: parse_candidate("x", "threshold:a:b:much"), "threshold"),
        (lambda: parse_candidate("x", "nonsense"), "policy"),
    ],
)
def test_a_bad_rule_threshold_or_short_form_is_refused(make: object, field: str) -> None:
    with pytest.raises(InvalidFieldError) as caught:
        make()  # type: ignore[operator]
    assert caught.value.field == field


def test_short_forms_say_what_the_fields_say() -> None:
    assert parse_candidate("x", "fixed:a/b:c") == CandidateSpec("x", policy="fixed:a/b:c")
    assert parse_candidate("x", "vowpal_wabbit") == CandidateSpec("x", learner=LearnerKind.VOWPAL_WABBIT)
    assert parse_candidate("x", "threshold:a:b:0.1") == CandidateSpec("x", threshold=Threshold("a", "b", 0.1))


def test_the_comparators_are_each_model_and_the_plain_policies() -> None:
    names = [each.id for each in comparators(router())]
    assert names == ["fixed:cheap", "fixed:middle", "fixed:dear", "cheapest", "dearest", "uniform", "incumbent"]
    assert not any(each.learns for each in comparators(router()))


def test_rules_are_tried_in_order_and_the_policy_decides_the_rest() -> None:
    records = log(1, 200).records
    found = answers(CandidateSpec("x", policy="fixed:cheap", rules=(HARD, MATH)), records)
    for record, answer in zip(records, found, strict=True):
        difficulty = record.decision.numeric["difficulty"]
        expected = "middle" if difficulty >= 0.5 else "dear" if difficulty > 0 else "cheap"
        assert answer == {each: float(each == expected) for each in MODELS}


def test_a_rule_whose_model_may_not_be_chosen_is_passed_over() -> None:
    drawn = [each for each in log(2, 80).records if each.decision.choice.model != "middle"]
    records = [excluded(each, "middle") for each in drawn]
    found = answers(CandidateSpec("x", policy="fixed:cheap", rules=(HARD, MATH)), records)
    assert all(each["middle"] == 0.0 for each in found)
    assert {"dear", "cheap"} == {max(each, key=each.__getitem__) for each in found}


@pytest.mark.parametrize("spec", KINDS, ids=lambda each: each.id)
def test_every_candidate_gives_a_distribution_over_what_could_be_chosen(spec: CandidateSpec) -> None:
    records = log(3, 120).records
    records = [excluded(each, "dear") if each.decision.choice.model != "dear" else each for each in records]
    for record, answer in zip(records, answers(spec, records), strict=True):
        assert sum(answer.values()) == pytest.approx(1.0)
        out = [each.model for each in record.decision.choice.candidates if each.exclusion]
        assert all(answer[each] == 0.0 for each in out)


def test_the_incumbent_is_what_the_caller_named_and_else_the_live_policy() -> None:
    first, second = log(4, 2).records
    named = Record(replace(first.decision, incumbent_model="middle"), first.reports)
    found = answers(CandidateSpec("x", policy="incumbent"), [named, second])
    assert found[0] == {"cheap": 0.0, "middle": 1.0, "dear": 0.0}
    assert found[1] == {each.model: each.probability for each in second.decision.choice.candidates}


def test_a_threshold_takes_the_strong_model_where_it_is_learned_to_be_better_by_the_gap() -> None:
    records = log(5, 1500).records
    found = answers(CandidateSpec("x", threshold=Threshold("dear", "cheap", 0.25)), records)
    strong = [answer["dear"] for answer in found[750:]]
    difficulty = [record.decision.numeric["difficulty"] for record in records[750:]]
    assert all(answer["middle"] == 0.0 for answer in found)
    assert 0.1 < np.mean(strong) < 0.9
    assert np.corrcoef(strong, difficulty)[0, 1] > 0.5


def test_a_learner_candidate_with_a_budget_follows_its_own_spend_and_not_the_live_policys() -> None:
    """The live policy spends 0.0046 a request, the candidate has 0.0015: false alarms below 1 in 10,000."""
    records = log(6, 1500).records
    budget = 0.0015
    spec = CandidateSpec("x", objective=Objective(budget_usd_per_request=budget))
    cost = {"cheap": 0.001, "middle": 0.004, "dear": 0.012}
    found = answers(spec, records)[500:]
    spent = np.mean([sum(cost[name] * share for name, share in each.items()) for each in found])
    assert spent == pytest.approx(budget, rel=0.1)


def test_a_candidate_does_not_see_the_features_that_are_taken_from_it() -> None:
    generator = np.random.default_rng(7)
    features = random_vector(generator)
    seen = CandidateSpec("x", features=(FeaturePart.STRUCTURE,)).seen(features)
    assert seen.shape == (SIZE,)
    assert not seen[:8].any()
    assert (seen[8:24] == features[8:24]).all()
    assert seen[-1] == 1.0
    assert CandidateSpec("x").seen(features) is features


@pytest.mark.parametrize("spec", KINDS, ids=lambda each: each.id)
def test_no_candidate_learns_from_a_peek(spec: CandidateSpec) -> None:
    assert first_peek(spec, log(8, 80).records) is None


class Leaking(Plain):
    """Has got hold of the log's outcomes, and answers with the drawn model only where it is going to do well."""

    def __init__(self, spec: CandidateSpec, outcomes: dict[int, float]) -> None:
        super().__init__(spec)
        self._outcomes = outcomes

    def answer(self, sight: Sight) -> Sequence[float]:
        good = self._outcomes[sight.decision.seq] > 0.5
        drawn = [each == sight.decision.choice.model for each in sight.outlook.ids]
        return [float(each) if good else (1.0 - each) / 2.0 for each in drawn]


def leaking(records: Sequence[Record]) -> Build:
    outcomes = {each.decision.seq: each.reports[0].reward or 0.0 for each in records}
    return lambda spec, of: Leaking(spec, outcomes) if spec.id == "leak" else Plain(spec)


def test_a_candidate_that_peeks_does_not_pass_that_test() -> None:
    assert first_peek(CandidateSpec("leak", policy="uniform"), log(9, 80).records, leaking) == 0


class Lazy(Plain):
    """Answers with a list that it changes when it learns what came of it."""

    def __init__(self, spec: CandidateSpec) -> None:
        super().__init__(spec)
        self._given: list[float] = []

    def answer(self, sight: Sight) -> Sequence[float]:
        self._given = list(super().answer(sight))
        return self._given

    def on_report(self, report: ReportRecord, decision: DecisionRecord) -> None:
        self._given[:] = [float(each.model == decision.choice.model) for each in decision.choice.candidates]


def test_an_answer_that_is_changed_after_it_was_given_stays_as_it_was_given() -> None:
    """What counts is the answer that was fixed: the lazy candidate comes out as the honest one does."""
    records = log(10, 50).records

    def build(spec: CandidateSpec, of: Router) -> Plain:
        return Lazy(spec) if spec.id == "lazy" else Plain(spec)

    evaluation = play(Evaluation(router(), [CandidateSpec("lazy", policy="uniform")], build=build), records)
    lazy, honest = (evaluation.results().candidate(each) for each in ("lazy", "uniform"))
    assert lazy.estimates == honest.estimates
    assert lazy.sequences == honest.sequences


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1 << 30), cut=st.integers(0, 60))
def test_a_learning_candidate_goes_on_to_the_same_bits_after_a_restart(seed: int, cut: int) -> None:
    records = log(seed, 60).records
    spec = CandidateSpec("x", objective=Objective(budget_usd_per_request=0.003))
    through = Learning(spec, router())
    stopped = Learning(spec, router())
    for number, record in enumerate(records):
        if number == cut:
            state = stopped.state()
            stopped = Learning(spec, router())
            stopped.restore(router(), state)
        sight = Sight.of(record.decision)
        assert list(through.answer(sight)) == list(stopped.answer(sight))
        for report in record.reports:
            through.on_report(report, record.decision)
            stopped.on_report(report, record.decision)
    assert bits(through.state()) == bits(stopped.state())
