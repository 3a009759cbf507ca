"""A log for the audit, the hands that change it, and what the audit then says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from click.testing import CliRunner, Result
from servers import DAY_US, Disk, draft_decision, hex_id
from sqlalchemy import text

from policy.domain import LearnerKind, Objective, RewardRule, RouterSpec
from policy.exploration import draw
from policy.log import DecisionRecord, Usage
from server.audit import Audit, audit
from server.cli.main import cli
from server.learner_loop import LearnerLoop
from server.storage.reader import LogReader
from server.views import Views

DECISIONS = 12
TAMPERED = hex_id(3)
OTHER_MODEL = {"a": "b", "b": "a"}


def audit_log(disk: Disk) -> Disk:
    """A log of one router with one snapshot at its end."""
    put_router(disk)
    busy(disk, range(DECISIONS))
    save_snapshots(disk)
    return disk


def put_router(disk: Disk, router: str = "default", learner: LearnerKind = LearnerKind.RIDGE) -> None:
    """A router that has everything that can be learned: a budget, and a reward where none comes."""
    spec = RouterSpec(
        objective=Objective(budget_usd_per_request=0.001),
        reward_rule=RewardRule(missing_reward=0.25),
        embedding_dimensions=8,
        learner=learner,
    )
    disk.put_router(router, spec, "a", "b")


def drawn_decision(number: int, router: str = "default") -> DecisionRecord:
    """A decision whose model is the one that its id draws."""
    draft = draft_decision(hex_id(number), router, seed=number)
    names = [each.model for each in draft.choice.candidates]
    chosen = names[draw(draft.decision_id, [each.probability for each in draft.choice.candidates])]
    return replace(draft, choice=replace(draft.choice, model=chosen, fallbacks=(OTHER_MODEL[chosen],)))


def busy(disk: Disk, numbers: range, router: str = "default") -> None:
    """Decisions, all but some reported on, a day between the halves so that windows close."""
    for number in numbers:
        disk.now_us += 2 * DAY_US if number == numbers[len(numbers) // 2] else 1000
        decision = disk.decide(drawn_decision(number, router))
        if number % 4 != 1:
            disk.report(decision, reward=number % 7 / 7, usage=Usage(9, 9, 0.002), latency_seconds=0.5)


def save_snapshots(disk: Disk) -> None:
    """Learns what is in the log and saves what the learner saves when it is stopped."""
    health: list[bool] = []
    loop = LearnerLoop(disk.reader, Views(), disk.one, lambda: disk.now_us, health.append, 1e6)
    loop.start()
    loop.stop()
    assert health == [True]


def tamper(disk: Disk, sql: str, **values: object) -> None:
    """Changes exactly one row by hand."""
    with disk.engine.begin() as connection:
        assert connection.execute(text(sql), values).rowcount == 1


def value(disk: Disk, sql: str, **values: object) -> Any:
    """One value of the database."""
    with disk.engine.connect() as connection:
        return connection.execute(text(sql), values).scalar_one()


def chosen(disk: Disk) -> str:
    """The model of the decision that is tampered with."""
    return str(value(disk, "SELECT model FROM decisions WHERE decision_id = :id", id=TAMPERED))


def audited(disk: Disk) -> Audit:
    """The audit of a log; it fails rather than going on when it gets no further."""

    def on_progress(positions: int) -> None:
        assert positions > 0, "the audit gets no further"

    return audit(LogReader(disk.engine), on_progress)


def verified(url: str, *arguments: str) -> Result:
    """`pointsman verify` of a database."""
    return CliRunner().invoke(cli, ["verify", "--database-url", url, *arguments])


def failed(url: str) -> list[str]:
    """What `pointsman verify` blames; it must exit with 1 and keep to its words."""
    done = verified(url)
    assert (done.exit_code, type(done.exception)) == (1, SystemExit), done.output
    return [line.strip() for line in done.output.splitlines() if line.startswith("  ")]


def snapshot_at(disk: Disk) -> int:
    """The position of the newest snapshot."""
    return int(value(disk, "SELECT max(seq) FROM snapshots"))


def snapshot_blame(disk: Disk, router: str = "default") -> str:
    """What is said of a snapshot that does not follow from the log."""
    return f"snapshot {snapshot_at(disk)} of routers/{router} is not what the log gives"
