"""The circuit of a model: when it opens, when it is tried, what closes it, and what does neither."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
from builders import SECOND_US, choice, decision, models, random_vector, report, router
from hypothesis import given
from hypothesis import strategies as st

from policy.circuit import (
    BACK_OFF_MAX_US,
    BACK_OFF_US,
    FAILURES_TO_OPEN,
    PROBE_US,
    Circuit,
    Phase,
)
from policy.domain import ModelError, Router
from policy.exploration import draw
from policy.learner import RouterLearner
from policy.log import DecisionRecord, ReportRecord, Usage
from policy.simulation import Arrival, Outcome, Round, World, simulate

ROUTER = router(models("a", "b"))
WORKED = {"usage": Usage(10, 10)}
FAILED = {"error": ModelError.UNAVAILABLE}


def decided(seq: int, snapshot: int | None = None, *, probe: bool = False, of: str = "a") -> DecisionRecord:
    """A decision made with all that was in the log before it, one second a position, unless said."""
    seen = seq - 1 if snapshot is None else snapshot
    return decision(of, seq, choice=replace(choice(of), snapshot=seen, probe=probe))


def told(circuit: Circuit, made: DecisionRecord, seq: int | None = None, **fields: Any) -> Circuit:
    """After a report on this decision."""
    return circuit.reported(report(made, ROUTER, (), seq, **fields), made)


def opened(seq: int = 1000) -> Circuit:
    """Opened by the report at this position."""
    circuit = Circuit()
    for number in range(FAILURES_TO_OPEN):
        made = decided(seq - 2 * FAILURES_TO_OPEN + 2 * number + 1)
        circuit = told(circuit, made, **FAILED)
    assert circuit.opened == seq
    return circuit


def phase(circuit: Circuit, seconds: float) -> Phase:
    return circuit.phase(round(seconds * SECOND_US))


def test_a_circuit_opens_with_the_last_of_so_many_failures_in_a_row_and_not_before() -> None:
    circuit = Circuit()
    for number in range(FAILURES_TO_OPEN):
        assert circuit.closed
        circuit = told(circuit, decided(1000 + 2 * number), **FAILED)
    assert not circuit.closed


def test_it_takes_from_three_to_five_failures() -> None:
    assert 3 <= FAILURES_TO_OPEN <= 5


def test_a_call_that_works_in_between_begins_the_row_anew() -> None:
    circuit = Circuit()
    for number in range(10):
        failing = number % FAILURES_TO_OPEN != 0
        circuit = told(circuit, decided(1000 + 2 * number), **(FAILED if failing else WORKED))
    assert circuit.closed


@pytest.mark.parametrize("error", [each for each in ModelError if not each.is_outage])
def test_an_answer_that_is_no_good_is_no_failed_call(error: ModelError) -> None:
    circuit = Circuit()
    for number in range(20):
        circuit = told(circuit, decided(1000 + 2 * number), error=error)
    assert circuit.closed


def test_calls_that_worked_before_the_failures_do_not_excuse_them_however_late_they_are_reported() -> None:
    circuit = Circuit()
    for number in range(FAILURES_TO_OPEN):
        circuit = told(circuit, decided(2000 + 2 * number), **FAILED)
        circuit = told(circuit, decided(1000 + number), seq=2002 + 2 * number, **WORKED)
    assert not circuit.closed


def test_failures_before_a_call_that_worked_do_not_count_however_late_they_are_reported() -> None:
    circuit = told(Circuit(), decided(2000), **WORKED)
    for number in range(20):
        circuit = told(circuit, decided(1000 + number), seq=2010 + number, **FAILED)
    assert circuit == Circuit(worked=2000, measured=True)


def test_a_call_that_worked_excuses_the_failures_before_it_and_not_those_after() -> None:
    circuit = Circuit()
    for seq in (1000, 1002, 1006):
        circuit = told(circuit, decided(seq), **FAILED)
    circuit = told(circuit, decided(1004), seq=1010, **WORKED)
    assert circuit.failures == (1006,)


def test_it_is_open_for_the_back_off_and_then_half_open() -> None:
    circuit, seconds = opened(1000), BACK_OFF_US / SECOND_US
    assert phase(circuit, 1000) is Phase.OPEN
    assert phase(circuit, 1000 + seconds - 1e-6) is Phase.OPEN
    assert phase(circuit, 1000 + seconds) is Phase.HALF_OPEN


def test_one_probe_is_in_flight_at_a_time_until_it_expires() -> None:
    circuit = opened(1000).decided(decided(1010, probe=True))
    seconds = PROBE_US / SECOND_US
    assert phase(circuit, 1010) is Phase.OPEN
    assert phase(circuit, 1010 + seconds - 1e-6) is Phase.OPEN
    assert phase(circuit, 1010 + seconds) is Phase.HALF_OPEN


def test_a_decision_that_is_no_probe_takes_no_turn() -> None:
    assert opened().decided(decided(1010)) == opened()


@pytest.mark.parametrize("evidence", [WORKED, {"latency_seconds": 1.0}])
def test_a_probe_that_works_closes_it(evidence: dict[str, Any]) -> None:
    made = decided(1010, probe=True)
    circuit = told(opened(1000).decided(made), made, **evidence)
    assert circuit == Circuit(worked=1010, measured=True)


def test_each_probe_that_fails_doubles_the_back_off_up_to_a_cap() -> None:
    circuit, seq, waits = opened(1000), 1000, []
    for _ in range(6):
        seq += 100
        made = decided(seq, probe=True)
        circuit = told(circuit.decided(made), made, **FAILED)
        waits.append((circuit.retry_us - (seq + 1) * SECOND_US) // SECOND_US)
        assert circuit.opened == seq + 1
    assert waits == [10, 20, 40, 40, 40, 40]
    assert BACK_OFF_MAX_US == 40 * SECOND_US


def test_after_it_has_closed_the_back_off_begins_anew() -> None:
    circuit = opened(1000)
    for seq, outcome in ((1100, FAILED), (1200, WORKED)):
        made = decided(seq, probe=True)
        circuit = told(circuit.decided(made), made, **outcome)
    for number in range(FAILURES_TO_OPEN):
        circuit = told(circuit, decided(1300 + 2 * number), **FAILED)
    assert circuit.back_off_us == BACK_OFF_US


@pytest.mark.parametrize("outcome", [WORKED, FAILED, {"reward": 1.0}])
@pytest.mark.parametrize("straggler", [decided(900), decided(1003, snapshot=990)])
def test_what_was_decided_without_knowing_that_it_had_opened_changes_nothing(
    outcome: dict[str, Any], straggler: DecisionRecord
) -> None:
    circuit = replace(opened(1000), measured=True)
    assert told(circuit, straggler, seq=1020, **outcome) == circuit


def test_a_straggler_does_not_end_the_turn_of_the_probe_in_flight() -> None:
    circuit = opened(1000).decided(decided(1010, probe=True))
    for outcome in (WORKED, FAILED):
        assert phase(told(circuit, decided(900), seq=1011, **outcome), 1012) is Phase.OPEN


def test_stragglers_that_fail_after_it_has_closed_do_not_open_it_again() -> None:
    probe = decided(1010, probe=True)
    circuit = told(opened(1000).decided(probe), probe, **WORKED)
    for number in range(20):
        circuit = told(circuit, decided(980 + number, snapshot=900), seq=1020 + number, **FAILED)
    assert circuit.closed


def test_a_probe_that_was_made_before_another_failed_does_not_close_it() -> None:
    first, second = decided(1010, probe=True), decided(1080, probe=True)
    circuit = told(opened(1000).decided(first).decided(second), first, seq=1085, **FAILED)
    assert circuit.opened == 1085
    assert told(circuit, second, seq=1086, **WORKED).opened == 1085
    assert told(circuit, second, seq=1086, **FAILED).back_off_us == circuit.back_off_us


def test_a_call_for_want_of_anything_else_closes_it_if_it_works_and_does_no_harm_if_not() -> None:
    circuit = opened(1000)
    failed = told(circuit, decided(1002), **FAILED)
    assert (failed.opened, failed.retry_us, failed.back_off_us) == (1000, circuit.retry_us, BACK_OFF_US)
    assert not told(failed, decided(1001, snapshot=1000), seq=1005, **WORKED).closed
    assert told(failed, decided(1004), **WORKED).closed


def test_an_answer_of_a_model_that_stood_in_for_another_closes_it() -> None:
    assert told(opened(1000), decided(1010, of="b"), served_model="a", **WORKED).closed


def test_a_model_that_stood_in_for_the_probe_of_another_was_no_probe_itself() -> None:
    circuit = told(opened(1000), decided(1010, of="b", probe=True), served_model="a", **FAILED)
    assert circuit.back_off_us == BACK_OFF_US


def test_a_reward_alone_is_no_evidence_where_calls_are_reported_with_usage() -> None:
    measured = told(Circuit(), decided(900), **WORKED)
    for number in range(FAILURES_TO_OPEN):
        measured = told(measured, decided(1000 + 2 * number), **FAILED)
    probe = decided(1100, probe=True)
    assert not told(measured.decided(probe), probe, reward=1.0).closed


def test_of_a_model_that_is_only_ever_rewarded_a_reward_of_a_later_decision_is_evidence() -> None:
    circuit, probe = opened(1000), decided(1100, probe=True)
    assert not told(circuit, decided(900), seq=1050, reward=1.0).closed
    assert told(circuit.decided(probe), probe, reward=1.0).closed


def test_usage_with_an_outage_is_a_failed_call_all_the_same() -> None:
    probe = decided(1100, probe=True)
    assert not told(opened(1000).decided(probe), probe, **FAILED, **WORKED).closed


@st.composite
def histories(drawn: Callable[..., Any]) -> list[tuple[DecisionRecord, ReportRecord | None]]:
    """Decisions with any knowledge, and reports on any earlier one."""
    steps: list[tuple[DecisionRecord, ReportRecord | None]] = []
    made: list[DecisionRecord] = []
    for number in range(drawn(st.integers(1, 60))):
        seq = 1000 + number
        if not made or drawn(st.booleans()):
            lag = drawn(st.integers(1, 30))
            made.append(decided(seq, max(0, seq - lag), probe=drawn(st.booleans())))
            steps.append((made[-1], None))
        else:
            about = drawn(st.sampled_from(made))
            outcome = drawn(st.sampled_from([FAILED, FAILED, WORKED, {"reward": 1.0}]))
            steps.append((about, report(about, ROUTER, (), seq, **outcome)))
    return steps


@given(histories())
def test_whatever_comes_it_is_restored_to_the_same_and_can_always_be_tried_again(
    steps: list[tuple[DecisionRecord, ReportRecord | None]],
) -> None:
    circuit = Circuit()
    for made, told_of in steps:
        circuit = circuit.decided(made) if told_of is None else circuit.reported(told_of, made)
        assert Circuit.restore(json.loads(json.dumps(asdict(circuit)))) == circuit
        assert len(circuit.failures) <= FAILURES_TO_OPEN
        if not circuit.closed:
            assert BACK_OFF_US <= circuit.back_off_us <= BACK_OFF_MAX_US
    assert circuit.phase(10_000 * SECOND_US) in (Phase.CLOSED, Phase.HALF_OPEN)
    now = decided(10_000, probe=True)
    assert told(circuit.decided(now), now, **WORKED).closed


def test_a_learner_restored_in_any_phase_goes_on_to_the_same_bits() -> None:
    whole = restored = RouterLearner(ROUTER)
    outcomes = [FAILED] * FAILURES_TO_OPEN + [FAILED, WORKED, FAILED]
    for number, outcome in enumerate(outcomes):
        made = decided(1000 + 100 * number, probe=number >= FAILURES_TO_OPEN)
        for learner in {id(each): each for each in (whole, restored)}.values():
            learner.on_decision(made)
        restored = RouterLearner.restore(ROUTER, whole.state())
        for learner in (whole, restored):
            learner.on_report(report(made, ROUTER, **outcome), made)
        assert restored.fingerprint() == whole.fingerprint()
        assert restored.view(0).models == whole.view(0).models


class Down(World):
    """The favourite, "a", fails in rounds 1,300 to 2,299 of 3,600, one a second."""

    first, last, rounds_all = 1300, 2300, 3600

    def __init__(self, of: Router, seed: int) -> None:
        generator = np.random.default_rng(seed)
        quality = {"a": 0.9, "b": 0.7, "c": 0.5}
        rounds = [
            Round(
                random_vector(generator),
                100.0,
                {name: Outcome(float(generator.random() < mean), 0.001, 10, 10) for name, mean in quality.items()},
            )
            for _ in range(self.rounds_all)
        ]
        super().__init__(of, rounds)

    def arrivals(self, position: int, model: str) -> Sequence[Arrival]:
        if model == "a" and self.first <= position < self.last:
            return (Arrival(error=ModelError.UNAVAILABLE),)
        return super().arrivals(position, model)


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("policy", ["learned", "greedy"])
def test_an_outage_of_the_favourite_costs_few_calls_few_probes_and_is_over_soon_after(
    policy: str, seed: int
) -> None:
    world = Down(router(models("a", "b", "c"), value=1.0, policy=policy), seed)
    made = list(simulate(world, seed))
    before = sum(each.model == "a" for each in made[world.first - 200 : world.first]) / 200
    failed = [each for each in made[world.first : world.last] if each.model == "a"]
    probes = [each for each in made if each.probe]
    again = next(at for at, each in enumerate(made[world.last :]) if each.model == "a")
    print(policy, seed, before, len(failed), len(probes), again)
    assert before > 0.5
    assert sum(not each.probe for each in failed) == FAILURES_TO_OPEN <= 5
    assert len(probes) < 0.01 * len(made)
    assert again < 50
    assert sum(each.model == "a" for each in made[world.last + 50 : world.last + 250]) / 200 > 0.8 * before
    fallbacks = {name for each in made[world.first + 20 : world.last] for name in each.fallbacks}
    assert fallbacks == {"b", "c"}
    for number, each in enumerate(made):
        probabilities = [candidate.probability for candidate in each.candidates]
        assert each.candidates[draw(f"{seed}-{number}", probabilities)].model == each.model
