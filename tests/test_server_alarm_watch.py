"""What the evaluation elsewhere has saved is read once, and stays known while the database is away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from servers import Disk, draft_decision, eventually, hex_id
from sqlalchemy import text

from policy.domain import RouterSpec
from policy.log import Usage
from server import alarm_watch
from server.alarm_watch import AlarmWatch
from server.evaluation_fold import EvaluationFold
from server.evaluation_loop import Found
from server.storage.evaluation_store import put_evaluation
from server.storage.writes import Transact
from server.stored_evaluation import StoredEvaluations

WINDOW_US = 1_000_000
ROUTERS = 40  # More than StoredEvaluations keeps.


@dataclass
class Elsewhere:
    """An evaluation that saves, of another process, say; and what is asked of its states here."""

    disk: Disk
    asked: list[str] = field(default_factory=list)
    told: list[bool] = field(default_factory=list)
    looks: bool = True
    turns: int = 0
    watch: AlarmWatch = field(init=False)

    def __post_init__(self) -> None:
        stored = StoredEvaluations(self.disk.engine, self.disk.registry)

        def read(router: str) -> Found | None:
            self.asked.append(router)
            return stored.glance(router)

        self.watch = AlarmWatch(
            self.disk.engine,
            self.disk.registry,
            read,
            self._takes_turn,
            lambda: self.told.append(self.watch.satisfied),
        )

    def _takes_turn(self) -> bool:
        self.turns += 1
        return self.looks

    async def turns_on(self) -> None:
        """Returns once it has had its turn three times more, of which two are over."""
        until = self.turns + 3

        async def come() -> bool:
            return self.turns >= until

        await eventually(come)

    async def satisfied_is(self, value: bool) -> None:
        async def come() -> bool:
            return self.watch.satisfied is value

        await eventually(come)

    def traffic(self, router: str, decisions: int) -> None:
        """The policy that draws one of two models; one is right, and the other never."""
        first = self.disk.reader.head()
        for number in range(decisions):
            draft = draft_decision(hex_id(first + number), router, seed=first + number)
            made = self.disk.decide(draft, WINDOW_US)
            reward = 1.0 if made.choice.model == "a" else 0.0
            self.disk.report(made, reward=reward, usage=Usage(100, 100, 0.0001))

    def save(self) -> None:
        fold = EvaluationFold(self.disk.reader, [])
        while fold.advance(1000):
            pass
        for router in sorted(fold.routers):
            self.disk.one(Transact(put_evaluation(router, fold.seq, fold.snapshot(router))))


@pytest.fixture
async def elsewhere(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Elsewhere]:
    monkeypatch.setattr(alarm_watch, "_LOOK_SECONDS", 0.01)
    monkeypatch.setattr(alarm_watch, "_LOOK_SECONDS_MAX", 0.01)
    monkeypatch.setattr(alarm_watch, "_PAUSES", 0.0)
    found = Elsewhere(disk)
    yield found
    found.watch.stop()


async def test_a_state_is_read_once_and_again_when_a_later_one_was_saved(elsewhere: Elsewhere) -> None:
    names = [f"r{number:02}" for number in range(ROUTERS)]
    for name in names:
        elsewhere.disk.put_router(name, RouterSpec(policy="uniform"), "a", "b")
        elsewhere.traffic(name, 1)
    elsewhere.save()
    for _ in range(3):
        await elsewhere.watch.look()
    assert elsewhere.asked == names
    assert elsewhere.watch.satisfied
    assert elsewhere.told == []
    elsewhere.traffic("r07", 200)
    elsewhere.save()
    await elsewhere.watch.look()
    assert elsewhere.asked.count("r07") == 2
    assert not elsewhere.watch.satisfied
    assert elsewhere.told == [False]
    elsewhere.disk.registry.replace("r07", None)
    await elsewhere.watch.look()
    assert elsewhere.told == [False, True]


async def test_while_the_database_is_away_what_was_known_stays(elsewhere: Elsewhere) -> None:
    elsewhere.disk.put_router("default", RouterSpec(policy="uniform"), "a", "b")
    elsewhere.traffic("default", 200)
    elsewhere.save()
    running = asyncio.ensure_future(elsewhere.watch.run())

    await elsewhere.satisfied_is(False)
    with elsewhere.disk.engine.begin() as connection:
        connection.execute(text("ALTER TABLE evaluations RENAME TO gone"))
    await elsewhere.turns_on()
    assert not elsewhere.watch.satisfied
    with elsewhere.disk.engine.begin() as connection:
        connection.execute(text("ALTER TABLE gone RENAME TO evaluations"))
        connection.execute(text("DELETE FROM evaluations"))
    await elsewhere.satisfied_is(True)
    elsewhere.watch.stop()
    await running


async def test_a_server_that_evaluates_itself_does_not_look(elsewhere: Elsewhere) -> None:
    elsewhere.disk.put_router("default", RouterSpec(policy="uniform"), "a", "b")
    elsewhere.traffic("default", 5)
    elsewhere.save()
    elsewhere.looks = False
    running = asyncio.ensure_future(elsewhere.watch.run())
    await elsewhere.turns_on()
    assert elsewhere.asked == []
    elsewhere.looks = True
    await elsewhere.turns_on()
    assert elsewhere.asked == ["default"]
    elsewhere.watch.stop()
    await running
