"""The newest decisions in memory: those alone that a report may still be on without a look into the log."""

from __future__ import annotations

from dataclasses import replace

import pytest
from servers import draft_decision, hex_id

from server.storage import recent
from server.storage.recent import RecentDecisions, Subject


def test_the_oldest_go_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent, "_KEPT", 3)
    known = RecentDecisions()
    made = [replace(draft_decision(hex_id(each)), expire_us=10) for each in range(5)]
    known.put(made[:2])
    known.put(made[2:])
    ids = [each.decision_id for each in made]
    assert known.find(ids, 5) == {each.decision_id: Subject.of(each) for each in made[2:]}


def test_one_whose_window_has_closed_is_looked_for_in_the_log() -> None:
    known = RecentDecisions()
    decision = replace(draft_decision(hex_id(1)), expire_us=10)
    known.put([decision])
    assert list(known.find([decision.decision_id], 10)) == [decision.decision_id]
    assert known.find([decision.decision_id], 11) == {}
