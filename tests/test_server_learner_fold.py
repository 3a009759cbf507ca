"""The same log gives the same learners, whatever the pages and the restarts."""

from __future__ import annotations

from random import Random

import pytest
from servers import Disk, draft_decision, draft_report, hex_id, imported_row, seeded

from policy.domain import (
    LearnerKind,
    ModelError,
    ModelSpec,
    Objective,
    Prices,
    RewardJoin,
    RewardRule,
    RouterSpec,
)
from policy.learner import RouterLearner
from policy.log import Usage
from server.audit import audit
from server.learner_fold import LearnerFold
from server.storage import registry_store as store
from server.storage.writes import DecisionWrite, ImportedRow, ImportWrite, ReportWrite, Transact

ROUTERS = ("default", "other")


OF_REQUEST = Objective(budget_usd_per_request=0.001)


def spec(
    learner: LearnerKind, join: RewardJoin = RewardJoin.FIRST, objective: Objective = OF_REQUEST
) -> RouterSpec:
    return RouterSpec(
        objective=objective,
        reward_rule=RewardRule(signal_weights={"thumbs": 1.0}, missing_reward=0.25, error_reward=0.0, join=join),
        embedding_dimensions=8,
        learner=learner,
    )


def busy_log(
    disk: Disk,
    random: Random,
    learner: LearnerKind,
    decisions: int,
    join: RewardJoin = RewardJoin.FIRST,
    objective: Objective = OF_REQUEST,
    pace: int = 1,
) -> None:
    """Decisions, reports, closing windows, registry changes and a router that is deleted, all mixed.

    All takes `pace` times 2.5 ms a decision. Half-way the routers get this objective.
    """
    priced = ModelSpec(prices=Prices(0.5, 1.5, 0.0001))
    for router in (*ROUTERS, "gone"):
        disk.put_router(router, spec(learner, join), a=priced, b=ModelSpec())
    for i in range(decisions):
        disk.now_us += pace * random.randrange(0, 5000)
        router = random.choice((*ROUTERS, "gone")) if i < decisions // 2 else random.choice(ROUTERS)
        named = random.choice(("", "a", "b"))
        deferred = random.random() < 0.2
        draft = draft_decision(hex_id(i), router, seed=i, deferred=deferred, incumbent_model=named)
        writes = [DecisionWrite(draft, pace * random.choice((1, 500, 20_000)))]
        writes += [ReportWrite(random_report(random, i)) for _ in range(random.randrange(3))]
        if random.random() < 0.1:
            writes.append(ImportWrite([random_import(random, 10_000 + 3 * i + each) for each in range(3)]))
        if random.random() < 0.05:
            price = ModelSpec(prices=Prices(random.random(), random.random()))
            writes.append(Transact(store.put_model("default", random.choice("ab"), price, create=False)))
        disk.write(*writes)
        if i == decisions // 2:
            disk.change("gone", store.delete_router("gone", None))
            for name in ROUTERS if objective != OF_REQUEST else ():
                disk.change(name, store.put_router(name, spec(learner, join, objective), create=False))
            disk.change("other", store.delete_model("other", "b", None))
            disk.change("other", store.put_model("other", "b", ModelSpec(), create=True))


def random_report(random: Random, newest: int) -> object:
    decision_id = hex_id(max(0, newest - random.randrange(6)))
    fields = random.choice(
        (
            {"reward": random.random()},
            {"signals": {"thumbs": random.random(), "other": 7.0}},
            {"usage": Usage(random.randrange(900), random.randrange(900), random.choice((None, 0.002)))},
            {"reward": 1.0, "served_model": "b", "latency_seconds": random.random()},
            {"error": random.choice(list(ModelError))},
            {"activation": True},
        )
    )
    return draft_report(decision_id, report_id=random.choice(("", "x", "y")), **fields)


def random_import(random: Random, number: int) -> ImportedRow:
    fields = random.choice(
        (
            {"reward": random.random(), "usage": Usage(7, 9, 0.001), "latency_seconds": 1.0},
            {"error": ModelError.TIMEOUT},
            {"reward": random.random()},
        )
    )
    return imported_row(hex_id(number), f"past-{number - number % 2}", random.choice(ROUTERS), **fields)


def fingerprints(fold: LearnerFold) -> dict[str, str]:
    return {router: fold.learner(router).fingerprint() for router in fold.routers}


def folded(disk: Disk, page: int) -> LearnerFold:
    fold = LearnerFold(disk.reader, [])
    while fold.advance(page):
        pass
    return fold


def restarted(disk: Disk, random: Random) -> LearnerFold:
    """The same with pages of any size and restarts anywhere, one at the least."""
    fold, chance = LearnerFold(disk.reader, []), 1.0
    while fold.advance(random.randrange(1, 40)):
        if random.random() < chance:
            saved = [fold.snapshot(each) for each in fold.routers]
            fold, chance = LearnerFold(disk.reader, [each for each in saved if each]), 0.3
    return fold


@pytest.mark.parametrize("learner", list(LearnerKind))
def test_pages_of_any_size_and_restarts_anywhere_give_the_same_bits(disk: Disk, learner: LearnerKind) -> None:
    random = seeded("fold")
    busy_log(disk, random, learner, 250)
    whole = fingerprints(folded(disk, 1000))
    assert set(whole) == set(ROUTERS)
    assert fingerprints(folded(disk, 1)) == whole
    assert fingerprints(folded(disk, 7)) == whole

    fold = restarted(disk, random)
    assert fingerprints(fold) == whole
    records = [fold.view(each).router for each in ROUTERS]
    assert sum(each.imported for each in records) > 0
    assert sum(each.compared.decisions for each in records) > 0


@pytest.mark.parametrize("objective", [Objective(budget_usd_per_day=0.02), Objective(budget_usd_per_month=0.2)])
def test_days_and_months_under_a_budget_and_restarts_anywhere_give_the_same_bits(
    disk: Disk, objective: Objective
) -> None:
    random = seeded("periods")
    hours = 1_440_000  # A decision an hour on average.
    busy_log(disk, random, LearnerKind.RIDGE, 300, objective=objective, pace=hours)
    whole = fingerprints(folded(disk, 1000))
    assert fingerprints(folded(disk, 7)) == whole
    fold = restarted(disk, random)
    assert fingerprints(fold) == whole
    assert all(fold.view(each).standing.spent_usd > 0 for each in ROUTERS)


@pytest.mark.parametrize("learner", list(LearnerKind))
@pytest.mark.parametrize("join", [RewardJoin.LAST, RewardJoin.MEAN, RewardJoin.WEIGHTED])
def test_revised_rewards_and_restarts_anywhere_give_the_same_bits(
    disk: Disk, learner: LearnerKind, join: RewardJoin
) -> None:
    """In the middle the first router's learner of quality is restarted, and goes on hearing of old rewards."""
    random = seeded("revisions")
    busy_log(disk, random, learner, 60, join)
    other = next(kind for kind in LearnerKind if kind is not learner)
    disk.change("default", store.put_router("default", spec(other, join), create=False))
    late = [draft_decision(hex_id(i), seed=i) for i in range(1000, 1040)]
    disk.write(*(DecisionWrite(each, 60_000_000) for each in late))
    for number in range(120):
        reward = {"reward": random.random()} if number % 2 else {"signals": {"thumbs": random.random()}}
        disk.write(ReportWrite(draft_report(random.choice(late).decision_id, **reward)))
    whole = fingerprints(folded(disk, 1000))
    assert fingerprints(folded(disk, 7)) == whole
    assert fingerprints(restarted(disk, random)) == whole
    assert audit(disk.reader, lambda _: None).revisions > 20


def test_routers_whose_snapshots_are_of_different_ages_go_on_to_the_same_bits(disk: Disk) -> None:
    random = seeded("ages")
    busy_log(disk, random, LearnerKind.RIDGE, 200)
    whole = fingerprints(folded(disk, 1000))
    fold = LearnerFold(disk.reader, [])
    fold.advance(150)
    early = fold.snapshot("default")
    fold.advance(200)
    late = fold.snapshot("other")
    assert early is not None
    assert late is not None
    again = LearnerFold(disk.reader, [early, late])
    while again.advance(31):
        pass
    assert fingerprints(again) == whole


def test_a_view_after_a_restart_has_the_position_of_its_own_routers_snapshot(disk: Disk) -> None:
    for router in ROUTERS:
        disk.put_router(router, spec(LearnerKind.RIDGE), "a", "b")
    fold = LearnerFold(disk.reader, [])
    fold.advance(1000)
    old = fold.snapshot("other")
    disk.decide(draft_decision(hex_id(1)))
    fold.advance(1000)
    new = fold.snapshot("default")
    assert old is not None
    assert new is not None
    again = LearnerFold(disk.reader, [old, new])
    while again.advance(1000):
        pass
    view = again.view("default")
    assert view is not None
    assert (view.snapshot, view.router.decisions) == (new.seq, 1)


def test_the_order_of_one_and_the_same_log_matters_to_nothing_else(disk: Disk, tmp_path: object) -> None:
    """Two logs of the same seed are the same log: no clock, no iteration order of sets takes part."""
    busy_log(disk, Random(3), LearnerKind.RIDGE, 80)
    other = Disk(f"sqlite:///{tmp_path}/other.db")
    busy_log(other, Random(3), LearnerKind.RIDGE, 80)
    assert fingerprints(folded(other, 13)) == fingerprints(folded(disk, 13))
    other.close()


def fresh(disk: Disk) -> None:
    rule = RewardRule(missing_reward=0.5)
    disk.put_router("default", RouterSpec(embedding_dimensions=8, reward_rule=rule), "a", "b")


def closed(disk: Disk) -> int:
    learner = folded(disk, 1000).learner("default")
    assert learner is not None
    return sum(each.closed for each in learner.view(0).models.values())


def test_windows_close_by_the_logs_time_not_by_the_clock(disk: Disk) -> None:
    fresh(disk)
    disk.decide(draft_decision(hex_id(1)), window_us=1000)
    disk.now_us += 1_000_000
    assert closed(disk) == 0, "nothing in the log is later than the window's end"
    disk.decide(draft_decision(hex_id(2)))
    assert closed(disk) == 1


def test_a_window_is_open_at_its_last_microsecond(disk: Disk) -> None:
    fresh(disk)
    decision = disk.decide(draft_decision(hex_id(1)), window_us=1000)
    disk.now_us = decision.expire_us
    disk.decide(draft_decision(hex_id(2)))
    assert closed(disk) == 0
    disk.now_us += 1
    disk.decide(draft_decision(hex_id(3)))
    assert closed(disk) == 1


def test_a_deferred_decision_that_was_never_used_costs_nothing_when_it_closes(disk: Disk) -> None:
    fresh(disk)
    disk.decide(draft_decision(hex_id(1), deferred=True), window_us=10)
    disk.decide(draft_decision(hex_id(2)), window_us=10)
    disk.now_us += 100
    disk.decide(draft_decision(hex_id(3)))
    learner = folded(disk, 5).learner("default")
    assert learner is not None
    record = learner.view(0).router
    assert (record.decisions, record.charged, record.rewards) == (2, 1, 1)
    assert record.spent_usd in (0.001, 0.002)


def test_more_windows_than_one_read_close_all(disk: Disk) -> None:
    fresh(disk)
    disk.write(*(DecisionWrite(draft_decision(hex_id(i), seed=i), 1 + i % 3) for i in range(2500)))
    disk.now_us += 100
    disk.decide(draft_decision(hex_id(9999)))
    assert closed(disk) == 2500


def test_a_fold_stops_where_it_is_told(disk: Disk) -> None:
    fresh(disk)
    disk.write(*(DecisionWrite(draft_decision(hex_id(i)), 1) for i in range(10)))
    fold = LearnerFold(disk.reader, [])
    assert fold.advance(1000, upto=5) == 5
    assert fold.seq == 5
    assert fold.advance(1000, upto=5) == 0


def test_a_router_of_the_same_name_created_again_starts_from_nothing(disk: Disk) -> None:
    fresh(disk)
    old = disk.decide(draft_decision(hex_id(1)), window_us=1000)
    unanswered = disk.decide(draft_decision(hex_id(2)), window_us=1000)
    disk.change("default", store.delete_router("default", None))
    fresh(disk)
    disk.report(old, reward=1.0, usage=Usage(1, 1, 5.0))
    disk.now_us = unanswered.expire_us + 1
    disk.put_router("clock", RouterSpec())
    learner = folded(disk, 1000).learner("default")
    assert learner is not None
    record = learner.view(0).router
    assert (record.decisions, record.rewards, record.charged, record.spent_usd) == (0, 0, 0, 0.0)


def test_a_model_created_again_is_not_told_of_what_its_namesake_did(disk: Disk) -> None:
    fresh(disk)
    old = disk.decide(draft_decision(hex_id(1), models=("a",), deferred=True))
    disk.change("default", store.delete_model("default", "a", None))
    disk.change("default", store.put_model("default", "a", ModelSpec(), create=True))
    disk.report(old, reward=1.0, latency_seconds=3.0)
    learner = folded(disk, 1000).learner("default")
    assert learner is not None
    key = next(each.key for each in learner.router.models if each.id == "a")
    record = learner.view(0).models[key]
    assert (record.decisions, record.rewards, record.latencies) == (0, 0, 0)


def test_a_restored_learner_is_in_the_same_state_to_the_bit(disk: Disk) -> None:
    busy_log(disk, seeded("restore"), LearnerKind.VOWPAL_WABBIT, 60)
    learner = folded(disk, 1000).learner("default")
    assert learner is not None
    again = RouterLearner.restore(learner.router, learner.state())
    assert again.fingerprint() == learner.fingerprint()
