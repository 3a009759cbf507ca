"""What is old is dropped, what a restart needs is not, and what was learned stays what it was."""

from __future__ import annotations

import itertools
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from engines import BOTH_ENGINES, POSTGRESQL
from servers import DAY_US, DEADLINE_SECONDS, Disk, draft_decision, draft_report
from sqlalchemy import func, select, text

from policy.candidates import CandidateSpec
from policy.domain import RewardRule, RouterSpec
from policy.exploration import draw
from policy.log import DecisionRecord
from server.audit import audit
from server.cli.main import cli
from server.errors import DecisionNotFoundError
from server.evaluation_fold import EvaluationFold
from server.learner_fold import LearnerFold
from server.learner_loop import LearnerLoop
from server.storage import policy_store, registry_store
from server.storage.evaluation_store import load_evaluations, put_evaluation
from server.storage.partitions import first_id
from server.storage.reader import LogDroppedError
from server.storage.retention import drop_old
from server.storage.schema import changes, decisions, reports
from server.storage.writes import DecisionWrite, ReportWrite, Transact
from server.views import Views

pytestmark = BOTH_ENGINES
RETENTION_US = 5 * DAY_US
DAYS = 12
A_DAY = 6

numbers = itertools.count(1)


@pytest.fixture
def log(disk: Disk) -> Disk:
    """A log of some days of two routers, learned and saved to its end."""
    rule = RewardRule(missing_reward=0.25)
    for router in ("default", "other"):
        disk.put_router(router, RouterSpec(embedding_dimensions=8, reward_rule=rule), "a", "b")
    live_through(disk, DAYS)
    learn(disk)
    return disk


def new_draft(disk: Disk, router: str = "default") -> DecisionRecord:
    """A decision made now, whose model is the one that its id draws."""
    number = next(numbers)
    draft = draft_decision(f"{first_id(disk.now_us)}{number:020x}", router, seed=number)
    names = [each.model for each in draft.choice.candidates]
    chosen = names[draw(draft.decision_id, [each.probability for each in draft.choice.candidates])]
    return replace(draft, choice=replace(draft.choice, model=chosen))


def live_through(disk: Disk, days: int) -> None:
    """Decisions of every day, of which some are reported on; at last a tick that closes what has ended."""
    for _ in range(days):
        disk.now_us += DAY_US
        drafts = [new_draft(disk, ("default", "other")[number % 2]) for number in range(A_DAY)]
        disk.write(*(DecisionWrite(each, DAY_US) for each in drafts))
        told = [draft_report(each.decision_id, reward=number / A_DAY) for number, each in enumerate(drafts)]
        disk.write(*(ReportWrite(each) for number, each in enumerate(told) if number % 3))
    disk.one(Transact(tick))


def tick(connection: object, seq: int, time_us: int) -> None:
    connection.execute(changes.insert().values(seq=seq, time_us=time_us, kind="tick", router=""))  # type: ignore[attr-defined]


def learn(disk: Disk) -> None:
    """Learns the log to its end and saves what the learner saves when it is stopped."""
    loop = LearnerLoop(disk.reader, Views(), disk.one, lambda: disk.now_us, lambda _: None, 1e6)
    loop.start()
    loop.stop()


def drop(disk: Disk, retention_us: int = RETENTION_US) -> int:
    """Drops in small steps all that can be; gives in how many."""
    for steps in itertools.count():
        if not disk.one(Transact(drop_old(retention_us))):
            return steps
    raise AssertionError


def to_the_end(fold: LearnerFold) -> dict[str, str]:
    while fold.advance(1000):
        pass
    return {router: fold.learner(router).fingerprint() for router in fold.routers}


def restarted(disk: Disk) -> dict[str, str]:
    """What a server that starts now knows at the end of the log."""
    return to_the_end(LearnerFold(disk.reader, disk.reader.latest_snapshots()))


def times(disk: Disk) -> list[int]:
    with disk.engine.connect() as connection:
        return list(connection.execute(select(decisions.c.time_us).order_by(decisions.c.seq)).scalars())


def count(disk: Disk, table: object) -> int:
    with disk.engine.connect() as connection:
        return int(connection.execute(select(func.count()).select_from(table)).scalar_one())


def test_what_is_older_than_the_retention_goes_and_what_is_younger_stays(log: Disk) -> None:
    before = times(log)
    assert drop(log)
    young = [each for each in before if each >= log.now_us - RETENTION_US]
    left = times(log)
    assert set(young) <= set(left)
    assert min(left) >= log.now_us - RETENTION_US - 2 * DAY_US, "a partition goes when all of it is old"
    assert drop(log) == 0


def test_a_decision_goes_together_with_its_reports_and_is_unknown_then(log: Disk) -> None:
    oldest = log.reader.page(0, 30).records[6]
    assert isinstance(oldest, DecisionRecord)
    drop(log)
    assert log.reader.decision(oldest.decision_id) is None
    with pytest.raises(DecisionNotFoundError):
        log.report(oldest, reward=1.0)
    with log.engine.connect() as connection:
        known = select(decisions.c.decision_id)
        orphans = select(func.count()).where(reports.c.decision_id.not_in(known))
        assert connection.execute(orphans).scalar_one() == 0
    assert count(log, reports) == sum(
        len(each) for each in log.reader.reports([d.decision_id for d in kept(log)]).values()
    )


def kept(disk: Disk) -> list[DecisionRecord]:
    page = disk.reader.page(0, 1_000_000)
    return [each for each in page.records if isinstance(each, DecisionRecord)]


def test_a_restart_after_the_drop_knows_the_same_to_the_last_bit(log: Disk) -> None:
    before = restarted(log)
    drop(log)
    assert restarted(log) == before


def test_who_was_at_the_end_of_the_log_goes_on_as_one_that_restarts(log: Disk) -> None:
    running = LearnerFold(log.reader, log.reader.latest_snapshots())
    to_the_end(running)
    assert drop(log)
    live_through(log, 3)
    assert to_the_end(running) == restarted(log)


def test_a_log_that_was_dropped_in_turns_gives_what_one_gives_that_was_not(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same history with and without a retention, to the last bit of what was learned."""
    taken: list[int] = []
    learned = []
    for retention in (True, False):
        monkeypatch.setattr(sys.modules[__name__], "numbers", itertools.count(1))
        disk = Disk(url if retention else f"sqlite:///{tmp_path / 'whole.db'}")
        for router in ("default", "other"):
            disk.put_router(router, RouterSpec(embedding_dimensions=8), "a", "b")
        for turn in range(4):
            live_through(disk, 4)
            learn(disk)
            if retention:
                taken.append(drop(disk) + 1)
            else:  # Each step takes a position of the log.
                disk.write(*[Transact(lambda *_: None)] * taken[turn])
        learned.append(restarted(disk))
        disk.close()
    assert max(taken) > 1
    assert learned[0] == learned[1]


def test_what_no_snapshot_has_learned_stays_however_old(log: Disk) -> None:
    live_through(log, 20)
    assert drop(log)
    assert min(times(log)) >= log.now_us - 22 * DAY_US, "these were learned"
    floor, _ = log.reader.dropped()
    assert floor <= min(each.seq for each in log.reader.latest_snapshots())
    before = restarted(log)
    learn(log)
    assert drop(log)
    assert restarted(log) == before


def test_nothing_goes_while_a_router_has_no_snapshot(log: Disk) -> None:
    log.put_router("new", RouterSpec(embedding_dimensions=8), "a")
    assert drop(log) == 0
    learn(log)
    assert drop(log) > 0


def test_nothing_goes_that_the_evaluation_has_not_come_to(log: Disk) -> None:
    fold = EvaluationFold(log.reader, [])
    fold.advance(10)
    log.one(Transact(put_evaluation("default", fold.seq, fold.snapshot("default"))))
    assert drop(log) == 0
    while fold.advance(1000):
        pass
    log.one(Transact(put_evaluation("default", fold.seq, fold.snapshot("default"))))
    assert drop(log) > 0
    again = EvaluationFold(log.reader, load_evaluations(log.engine))
    while again.advance(1000):
        pass
    assert again.follower("default").state() == fold.follower("default").state()


def test_nothing_goes_while_a_restart_would_meet_a_policys_change(log: Disk) -> None:
    spec = CandidateSpec(id="c", policy="uniform")
    log.change("default", policy_store.create_policy("default", spec, policy_store.Cause()))
    assert drop(log) == 0
    for router in ("default", "other"):
        log.decide(new_draft(log, router))
    learn(log)
    assert drop(log) > 0


def test_a_decision_whose_window_is_open_stays_however_old(disk: Disk) -> None:
    """As when the retention was made shorter than the windows were."""
    disk.put_router("default", RouterSpec(embedding_dimensions=8), "a", "b")
    patient = disk.decide(new_draft(disk), 30 * DAY_US)
    disk.put_router("other", RouterSpec(embedding_dimensions=8), "a", "b")
    live_through(disk, DAYS)
    learn(disk)
    assert drop(disk) == 0
    disk.report(patient, reward=1.0)
    live_through(disk, 30)
    learn(disk)
    assert drop(disk) > 0
    assert disk.reader.decision(patient.decision_id) is None


def test_late_reports_do_not_keep_their_decision(log: Disk) -> None:
    oldest = kept(log)[0]
    log.report(oldest, reward=0.0)
    before = restarted(log)
    assert drop(log) > 0
    assert log.reader.decision(oldest.decision_id) is None
    assert restarted(log) == before


def test_a_learner_without_snapshots_learns_what_is_left(log: Disk) -> None:
    drop(log)
    fold = LearnerFold(log.reader, [])
    to_the_end(fold)
    counted = sum(fold.learner(router).view(0).router.decisions for router in fold.routers)
    assert counted == count(log, decisions) > 0


def test_who_is_overtaken_by_a_drop_is_told_so(log: Disk) -> None:
    fold = LearnerFold(log.reader, [])
    fold.advance(10)
    drop(log)
    with pytest.raises(LogDroppedError):
        to_the_end(fold)


def test_an_empty_log_has_nothing_to_drop(disk: Disk) -> None:
    assert drop(disk) == 0


def test_the_ticks_of_the_time_that_was_dropped_go_and_the_registry_stays(log: Disk) -> None:
    live_through(log, DAYS)
    learn(log)
    drop(log)
    with log.engine.connect() as connection:
        kinds = connection.execute(select(changes.c.kind)).scalars().all()
    assert kinds.count("tick") == 1
    assert kinds.count("registry") == 6


def test_the_audit_starts_from_the_first_snapshot_since_the_drop_and_says_so(log: Disk, url: str) -> None:
    drop(log)
    result = audit(log.reader, lambda _: None)
    assert (result.passed, result.snapshots, result.unchecked) == (True, 0, 2)
    for _ in range(2):
        live_through(log, 1)
        learn(log)
    result = audit(log.reader, lambda _: None)
    assert (result.passed, result.examples) == (True, [])
    assert result.snapshots == 2, "one of each router, learned from the one before"
    said = CliRunner().invoke(cli, ["verify", "--database-url", url])
    assert said.exit_code == 0
    floor, _ = log.reader.dropped()
    assert f"the log up to position {floor} was dropped by its retention: 4 more snapshots" in said.output
    with log.engine.begin() as connection:
        newest = max(each.seq for each in log.reader.all_snapshots())
        older = connection.execute(text("SELECT state FROM snapshots WHERE router = 'other' ORDER BY seq")).first()
        change = text("UPDATE snapshots SET state = :state WHERE router = 'other' AND seq = :seq")
        connection.execute(change, {"state": older.state, "seq": newest})
    assert audit(log.reader, lambda _: None).snapshots_wrong == 1


@POSTGRESQL
def test_a_decision_finds_a_partition_whatever_its_clock_says(log: Disk) -> None:
    drop(log)
    for time_us in (0, log.now_us - 365 * DAY_US, log.now_us + 365 * DAY_US, log.now_us):
        logged = log.decide(draft_decision(f"{first_id(time_us)}{next(numbers):020x}"))
        assert log.reader.decision(logged.decision_id) is not None


@POSTGRESQL
def test_a_drop_gives_up_soon_where_someone_reads_and_what_was_written_with_it_stays(log: Disk) -> None:
    draft = new_draft(log)
    with log.engine.connect() as reading:
        reading.execute(select(func.count()).select_from(decisions))
        decided, dropped = log.write(DecisionWrite(draft, DAY_US), Transact(drop_old(RETENTION_US)))
    assert (decided.decision_id, dropped) == (draft.decision_id, 0)
    assert log.reader.decision(draft.decision_id) is not None
    assert drop(log) > 0


def test_who_writes_meanwhile_loses_nothing_and_is_not_refused(log: Disk, url: str) -> None:
    writer = Disk(url)
    writer.registry, writer.now_us = log.registry, log.now_us
    stop = threading.Event()

    def write() -> list[DecisionRecord]:
        written = []
        while not stop.is_set():
            written.append(writer.decide(new_draft(writer)))
            writer.one(ReportWrite(draft_report(written[-1].decision_id)))
        return written

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        try:
            assert drop(log)
        finally:
            stop.set()
        written = writing.result(DEADLINE_SECONDS)
    found = log.reader.decisions([each.decision_id for each in written])
    assert len(found) == len(written)
    writer.close()


def test_the_registry_is_not_part_of_what_is_dropped(log: Disk) -> None:
    drop(log)
    assert {each.router.id for each in registry_store.load_entries(log.engine)} == {"default", "other"}
