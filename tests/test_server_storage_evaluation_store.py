"""Saved evaluations: one that has come further is never replaced by one that has not."""

from __future__ import annotations

import pytest
from engines import BOTH_ENGINES
from servers import Disk, draft_decision, hex_id

from policy.domain import RouterSpec
from server.evaluation_fold import EvaluationFold
from server.storage.evaluation_store import (
    StoredEvaluation,
    evaluated_upto,
    forget_evaluations,
    load_evaluation,
    put_evaluation,
)
from server.storage.writes import Transact

pytestmark = BOTH_ENGINES


@pytest.fixture
def saved(disk: Disk) -> tuple[Disk, list[StoredEvaluation]]:
    """A log, and its router's evaluation at two positions."""
    disk.put_router("default", RouterSpec(embedding_dimensions=8), "a", "b")
    fold = EvaluationFold(disk.reader, [])
    found = []
    for number in range(20):
        disk.decide(draft_decision(hex_id(number), seed=number))
        if number in (9, 19):
            while fold.advance(100):
                pass
            stored = fold.snapshot("default")
            assert stored is not None
            found.append(stored)
    return disk, found


def test_one_that_comes_late_changes_nothing(saved: tuple[Disk, list[StoredEvaluation]]) -> None:
    disk, (earlier, later) = saved
    disk.one(Transact(put_evaluation("default", earlier.seq, earlier)))
    assert load_evaluation(disk.engine, "default") == earlier
    disk.one(Transact(put_evaluation("default", later.seq, later)))
    disk.one(Transact(put_evaluation("default", earlier.seq, earlier)))
    disk.one(Transact(put_evaluation("default", earlier.seq, None)))
    assert load_evaluation(disk.engine, "default") == later
    assert evaluated_upto(disk.engine, "default") == later.seq


def test_that_of_a_deleted_router_goes(saved: tuple[Disk, list[StoredEvaluation]]) -> None:
    disk, (earlier, later) = saved
    disk.one(Transact(put_evaluation("default", earlier.seq, earlier)))
    disk.one(Transact(put_evaluation("default", later.seq, None)))
    assert evaluated_upto(disk.engine, "default") is None


def test_what_cannot_be_read_is_forgotten_unless_another_was_saved_since(
    saved: tuple[Disk, list[StoredEvaluation]],
) -> None:
    disk, (earlier, later) = saved
    disk.one(Transact(put_evaluation("default", later.seq, later)))
    disk.one(Transact(forget_evaluations([earlier])))
    assert load_evaluation(disk.engine, "default") == later
    disk.one(Transact(forget_evaluations([later])))
    assert load_evaluation(disk.engine, "default") is None
