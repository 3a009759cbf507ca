"""What a server says of its learner where that is a process of its own."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from server.registry import Registry
from server.settings import Role
from server.statuses import LEARNER, Statuses
from server.view_publisher import holder

PID = 4711


@dataclass
class Around:
    """What the statuses are told of; all is well unless it is changed."""

    pid: int | None = PID
    learner: str = holder(PID)
    late: bool = False
    knows_all: bool = True
    satisfied: bool = True
    statuses: Statuses = field(init=False)

    def __post_init__(self) -> None:
        learning: Any = SimpleNamespace(active=False, learns=False, died=False, evaluates=False, satisfied=None)
        metrics: Any = SimpleNamespace(forget=lambda: None, level=lambda: None)
        around: Any = self
        self.statuses = Statuses(Role.ALL, ("service",), Registry(), learning, around, around, around, metrics)

    def knows(self, _routers: object) -> bool:
        return self.knows_all

    def told(self) -> tuple[bool, bool]:
        """Of the whole, and of the learner."""
        statuses = self.statuses()
        return statuses[""], statuses[LEARNER]


def test_a_server_serves_once_its_learner_has_published_all_it_knows() -> None:
    around = Around(knows_all=False)
    assert around.told() == (False, False)
    around.knows_all = True
    assert around.told() == (True, True)


def test_a_router_that_is_new_does_not_make_it_look_as_if_nobody_learned() -> None:
    around = Around()
    assert around.told() == (True, True)
    around.knows_all = False
    assert around.told() == (True, True)


@pytest.mark.parametrize(
    ("what", "value"), [("pid", None), ("learner", holder(PID + 1)), ("learner", ""), ("late", True)]
)
def test_a_learner_that_is_away_or_another_or_does_not_learn_is_said_and_answers_go_on(
    what: str, value: Any
) -> None:
    around = Around()
    assert around.told() == (True, True)
    setattr(around, what, value)
    assert around.told() == (True, False)
