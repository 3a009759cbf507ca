"""An evaluation that is stopped anywhere goes on to the same numbers, and its state stays small."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from evaluation_logs import (
    RULED,
    SETTINGS,
    THRESHOLD,
    VOWPAL,
    Record,
    bits,
    log,
    play,
    router,
)
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from policy.evaluation import EVENTS_IN_A_BATCH, Evaluation


def delayed(evaluation: Evaluation, records: Sequence[Record], first: int, last: int, delay: int) -> None:
    """Steps from `first` to before `last`: a decision each, and the report on the one `delay` before."""
    for number in range(first, last):
        evaluation.on_decision(records[number].decision)
        if number >= delay:
            late = records[number - delay]
            seq = records[number].decision.seq + 1
            evaluation.on_report(replace(late.reports[0], seq=seq), late.decision)


def learned(state: bytes) -> dict[str, bytes]:
    """Vowpal Wabbit writes the same model down in more than one way, so it is told by what it answers."""
    return {name: each for name, each in bits(state).items() if "workspace" not in name}


@settings(max_examples=2, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(seed=st.integers(0, 1 << 30), cuts=st.lists(st.integers(0, 140), max_size=3), delay=st.integers(0, 40))
def test_killing_it_anywhere_changes_no_number(seed: int, cuts: list[int], delay: int) -> None:
    """Also with decisions pending, a batch half full, and learners of both kinds. Two batches are filled."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("policy.evaluation.EVENTS_IN_A_BATCH", 50)
        stop_and_go_on(seed, cuts, delay)


def stop_and_go_on(seed: int, cuts: list[int], delay: int) -> None:
    records = log(seed, 140).records
    specs = [RULED, THRESHOLD, VOWPAL]
    through = Evaluation(router(), specs, SETTINGS)
    delayed(through, records, 0, len(records), delay)
    stopped = Evaluation(router(), specs, SETTINGS)
    at = 0
    for cut in sorted(cuts):
        delayed(stopped, records, at, cut, delay)
        stopped.results()  # Asking changes nothing.
        stopped, at = Evaluation.restore(router(), specs, stopped.state(), SETTINGS), cut
    delayed(stopped, records, at, len(records), delay)
    assert stopped.results() == through.results()
    assert learned(stopped.state()) == learned(through.state())


def test_the_state_of_other_candidates_or_of_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    state = Evaluation(router(), [RULED]).state()
    with pytest.raises(ValueError, match="other candidates"):
        Evaluation.restore(router(), [], state)
    monkeypatch.setattr("policy.evaluation.STATE_VERSION", 99)
    with pytest.raises(ValueError, match="version"):
        Evaluation.restore(router(), [RULED], state)


def test_the_state_does_not_grow_with_the_log() -> None:
    records = log(20, 6 * EVENTS_IN_A_BATCH).records
    evaluation = Evaluation(router(), [RULED], SETTINGS)
    sizes = []
    for first in range(0, len(records), 2 * EVENTS_IN_A_BATCH):
        play(evaluation, records[first : first + 2 * EVENTS_IN_A_BATCH])
        sizes.append(len(evaluation.state()))
    assert max(sizes) - min(sizes) < 200
