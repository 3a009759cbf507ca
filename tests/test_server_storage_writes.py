"""How a batch is written: idempotency, dispositions, refusals, and the log's time."""

from __future__ import annotations

from dataclasses import replace

import pytest
from engines import BOTH_ENGINES
from servers import DAY_US, Disk, draft_decision, draft_report, hex_id, imported_row
from sqlalchemy import func, select

from policy.domain import InvalidFieldError, ModelSpec, Objective, Prices, RewardRule, RouterSpec
from policy.log import DecisionRecord, Usage
from server.errors import DecisionExpiredError, DecisionNotFoundError, ModelNotFoundError, NotAllowedNowError
from server.storage import registry_store
from server.storage.schema import decisions, reports
from server.storage.writes import DecisionWrite, Disposition, ImportWrite, ReportWrite, Transact

pytestmark = BOTH_ENGINES


@pytest.fixture(params=[True, False], ids=["remembered", "read back"])
def log(disk: Disk, request: pytest.FixtureRequest) -> Disk:
    """A router of two models whose rule weighs a signal, in a log whose writer remembers decisions or does not."""
    disk.remembers = request.param
    spec = RouterSpec(
        objective=Objective(quality_value_usd=1.0), reward_rule=RewardRule(signal_weights={"thumbs": 1.0})
    )
    disk.put_router("default", spec, a=ModelSpec(prices=Prices(usd_per_request=0.25)), b=ModelSpec())
    return disk


@pytest.fixture
def decision(log: Disk) -> DecisionRecord:
    return log.decide(draft_decision(hex_id(1)), window_us=1000)


def count(log: Disk, table: object) -> int:
    with log.engine.connect() as connection:
        return int(connection.execute(select(func.count()).select_from(table)).scalar_one())


def test_the_same_request_id_twice_in_one_batch_gives_one_decision(log: Disk) -> None:
    drafts = [draft_decision(hex_id(i), request_id="r", seed=i) for i in range(5)]
    results = log.write(*(DecisionWrite(each, DAY_US) for each in drafts))
    assert {each.decision_id for each in results} == {hex_id(0)}
    assert count(log, decisions) == 1


def test_the_same_request_id_in_a_later_batch_gives_the_first_decision(log: Disk) -> None:
    first = log.decide(draft_decision(hex_id(1), request_id="r", seed=1))
    again = log.decide(draft_decision(hex_id(2), request_id="r", seed=2))
    assert (again.decision_id, again.seq, again.choice) == (hex_id(1), first.seq, first.choice)
    assert count(log, decisions) == 1


def test_a_batch_of_any_size_is_written_whole_and_in_order(log: Disk) -> None:
    for size in (1, 2, 63, 64, 65, 200):
        before = count(log, decisions)
        made = log.write(*(DecisionWrite(draft_decision(hex_id(before + i)), DAY_US) for i in range(size)))
        log.write(*(ReportWrite(draft_report(each.decision_id, reward=0.5)) for each in made))
        stored = [log.reader.decision(each.decision_id) for each in made]
        assert [each and (each.seq, each.features.tolist()) for each in stored] == [
            (each.seq, each.features.tolist()) for each in made
        ]
        assert count(log, decisions) == count(log, reports) == before + size


def test_a_request_id_belongs_to_its_router(log: Disk) -> None:
    log.put_router("other", RouterSpec(), "a", "b")
    log.decide(draft_decision(hex_id(1), request_id="r"))
    other = log.decide(draft_decision(hex_id(2), router="other", request_id="r"))
    assert other.decision_id == hex_id(2)


def test_decisions_without_a_request_id_are_all_kept(log: Disk) -> None:
    log.write(*(DecisionWrite(draft_decision(hex_id(i)), DAY_US) for i in range(1000)))
    assert count(log, decisions) == 1000


def test_many_request_ids_are_found_again_beyond_one_query(log: Disk) -> None:
    writes = [DecisionWrite(draft_decision(hex_id(i), request_id=f"r{i}"), DAY_US) for i in range(900)]
    log.write(*writes)
    again = log.write(*(DecisionWrite(replace(each.draft, decision_id=hex_id(9999)), 1) for each in writes))
    assert [each.decision_id for each in again] == [hex_id(i) for i in range(900)]


def test_a_report_is_recorded_once_for_its_report_id(log: Disk, decision: DecisionRecord) -> None:
    assert log.report(decision, report_id="x", reward=1.0) is Disposition.RECORDED
    assert log.report(decision, report_id="x", reward=0.0) is Disposition.DUPLICATE
    (stored,) = log.reader.reports([decision.decision_id])[decision.decision_id]
    assert (stored.reward, stored.learned_reward) == (1.0, 1.0)


def test_the_same_report_id_within_one_batch_is_a_duplicate(log: Disk, decision: DecisionRecord) -> None:
    draft = draft_report(decision.decision_id, report_id="x", reward=1.0)
    assert log.write(ReportWrite(draft), ReportWrite(draft)) == [Disposition.RECORDED, Disposition.DUPLICATE]


def test_reports_without_an_id_are_each_their_own(log: Disk, decision: DecisionRecord) -> None:
    assert [log.report(decision, reward=1.0) for _ in range(3)] == [Disposition.RECORDED] * 3
    assert count(log, reports) == 3


def test_a_decision_and_its_report_may_share_a_batch(log: Disk) -> None:
    _, fate = log.write(
        DecisionWrite(draft_decision(hex_id(1)), DAY_US), ReportWrite(draft_report(hex_id(1), reward=1.0))
    )
    assert fate is Disposition.RECORDED


def test_a_report_counts_up_to_the_very_end_of_the_window_and_is_late_after_it(
    log: Disk, decision: DecisionRecord
) -> None:
    log.now_us = decision.expire_us
    assert log.report(decision, reward=1.0) is Disposition.RECORDED
    log.now_us += 1
    assert log.report(decision, report_id="late", reward=1.0) is Disposition.LATE
    assert log.report(decision, report_id="late", reward=1.0) is Disposition.DUPLICATE
    last = log.reader.reports([decision.decision_id])[decision.decision_id][-1]
    assert (last.late, last.learned_reward, last.charged_usd) == (True, None, None)


def test_a_duplicate_that_arrives_after_the_window_is_still_a_duplicate(
    log: Disk, decision: DecisionRecord
) -> None:
    log.report(decision, report_id="x", reward=1.0)
    log.now_us = decision.expire_us + 5
    assert log.report(decision, report_id="x", reward=1.0) is Disposition.DUPLICATE


def test_only_the_first_reward_is_learned_and_every_usage_is_charged(log: Disk, decision: DecisionRecord) -> None:
    for reward, cost in ((0.25, 0.5), (1.0, 0.125), (None, 0.25)):
        log.report(decision, reward=reward, usage=Usage(1, 1, cost))
    stored = log.reader.reports([decision.decision_id])[decision.decision_id]
    assert [each.learned_reward for each in stored] == [0.25, None, None]
    assert [each.charged_usd for each in stored] == [0.5, 0.125, 0.25]
    assert [each.settles for each in stored] == [True, False, False]


def test_usage_without_a_cost_is_charged_by_the_prices_of_the_model_that_served(
    log: Disk, decision: DecisionRecord
) -> None:
    log.report(decision, usage=Usage(1, 1), served_model="a")
    log.report(decision, usage=Usage(1, 1), served_model="b")
    stored = log.reader.reports([decision.decision_id])[decision.decision_id]
    assert [each.charged_usd for each in stored] == [0.25, None]


@pytest.mark.parametrize("activation", [True, False])
def test_an_unknown_decision_is_refused(log: Disk, activation: bool) -> None:
    with pytest.raises(DecisionNotFoundError):
        log.one(ReportWrite(draft_report(hex_id(404), reward=1.0, activation=activation)))


def test_a_served_model_that_the_router_never_had_is_refused(log: Disk, decision: DecisionRecord) -> None:
    with pytest.raises(ModelNotFoundError, match="served_model"):
        log.report(decision, reward=1.0, served_model="never")
    assert count(log, reports) == 0


def test_a_served_model_that_was_removed_is_accepted(log: Disk, decision: DecisionRecord) -> None:
    log.change("default", registry_store.delete_model("default", "b", None))
    assert log.report(decision, reward=1.0, served_model="b") is Disposition.RECORDED


def test_what_another_router_of_the_same_id_knows_and_asks_is_nothing_to_the_decisions_of_a_deleted_one(
    log: Disk, decision: DecisionRecord
) -> None:
    """As if there were none of that id."""
    log.change("default", registry_store.delete_router("default", None))
    rule, priced = RewardRule(signal_weights={"stars": 1.0}), ModelSpec(prices=Prices(usd_per_request=0.25))
    log.put_router("default", RouterSpec(reward_rule=rule), a=priced, c=priced)
    for model in ("a", "c"):
        log.report(decision, signals={"stars": 4.0}, usage=Usage(1, 1), served_model=model)
    stored = log.reader.reports([decision.decision_id])[decision.decision_id]
    assert [(each.learned_reward, each.charged_usd) for each in stored] == [(None, None)] * 2


@pytest.mark.parametrize("value", [-0.1, 1.5, 1e9])
def test_a_weighted_signal_out_of_range_is_refused(log: Disk, decision: DecisionRecord, value: float) -> None:
    with pytest.raises(InvalidFieldError, match=r"signals\[thumbs\]"):
        log.report(decision, signals={"thumbs": value})
    assert count(log, reports) == 0


def test_a_signal_that_the_rule_does_not_weigh_may_have_any_value(log: Disk, decision: DecisionRecord) -> None:
    assert log.report(decision, signals={"milliseconds": 1e9}) is Disposition.RECORDED


def test_a_refused_report_leaves_the_rest_of_its_batch_alone(log: Disk, decision: DecisionRecord) -> None:
    good = ReportWrite(draft_report(decision.decision_id, reward=1.0))
    bad = ReportWrite(draft_report(hex_id(404), reward=1.0))
    first, refused, last = log.write(good, bad, good)
    assert (first, last) == (Disposition.RECORDED, Disposition.RECORDED)
    assert isinstance(refused, DecisionNotFoundError)


def test_a_deferred_decision_is_activated_once(log: Disk) -> None:
    decision = log.decide(draft_decision(hex_id(1), deferred=True))
    activation = draft_report(hex_id(1), activation=True)
    results = log.write(ReportWrite(activation), ReportWrite(activation))
    assert results == [Disposition.RECORDED, Disposition.DUPLICATE]
    log.report(decision, reward=1.0)
    stored = log.reader.reports([hex_id(1)])[hex_id(1)]
    assert [each.activates for each in stored] == [True, False]


def test_a_report_activates_a_deferred_decision(log: Disk) -> None:
    decision = log.decide(draft_decision(hex_id(1), deferred=True))
    log.report(decision, latency_seconds=1.0)
    assert log.one(ReportWrite(draft_report(hex_id(1), activation=True))) is Disposition.DUPLICATE


def test_an_activation_after_the_window_is_refused(log: Disk) -> None:
    log.decide(draft_decision(hex_id(1), deferred=True), window_us=10)
    log.now_us += 11
    with pytest.raises(DecisionExpiredError):
        log.one(ReportWrite(draft_report(hex_id(1), activation=True)))


def test_the_logs_time_does_not_run_backwards_with_the_clock(log: Disk) -> None:
    before = log.decide(draft_decision(hex_id(1)))
    log.now_us -= 3_600_000_000
    after = log.decide(draft_decision(hex_id(2)), window_us=7)
    assert (after.time_us, after.expire_us) == (before.time_us, before.time_us + 7)
    assert after.seq == before.seq + 1


def test_a_change_that_is_refused_is_undone_alone(log: Disk) -> None:
    def refuse(connection: object, _seq: int, _time_us: int) -> None:
        connection.execute(decisions.delete())  # type: ignore[attr-defined]
        raise NotAllowedNowError("no")

    log.decide(draft_decision(hex_id(1)))
    refused, decided = log.write(Transact(refuse), DecisionWrite(draft_decision(hex_id(2)), DAY_US))
    assert isinstance(refused, NotAllowedNowError)
    assert decided.decision_id == hex_id(2)
    assert count(log, decisions) == 2


@pytest.mark.parametrize("decision_first", [True, False])
def test_the_features_cannot_change_in_the_batch_of_a_decision_made_on_the_old_ones(
    disk: Disk, decision_first: bool
) -> None:
    disk.put_router("default", RouterSpec(embedding_dimensions=8), "a", "b")
    change = registry_store.put_router("default", RouterSpec(embedding_dimensions=4), create=False)
    writes = [DecisionWrite(draft_decision(hex_id(1)), DAY_US), Transact(change)]
    results = disk.write(*(writes if decision_first else reversed(writes)))
    assert any(isinstance(each, Exception) for each in results), "a decision of 8 stands in a router of 4"


def test_an_imported_decision_is_followed_by_its_report_whatever_else_is_in_the_batch(log: Disk) -> None:
    rows = [imported_row(hex_id(i), f"past-{i}", reward=0.5, usage=Usage(1, 1)) for i in range(3)]
    before = log.reader.head()
    results = log.write(
        DecisionWrite(draft_decision(hex_id(10)), DAY_US),
        ImportWrite(rows),
        ReportWrite(draft_report(hex_id(10))),
    )
    assert results[1] == [Disposition.RECORDED] * 3
    assert results[2] is Disposition.RECORDED
    page = log.reader.page(before, 100)
    assert [each.seq - before for each in page.records] == list(range(1, 9))
    assert [each.decision_id for each in page.records] == [
        *(hex_id(10), hex_id(0), hex_id(0), hex_id(1), hex_id(1), hex_id(2), hex_id(2), hex_id(10)),
    ]
    report = log.reader.reports([hex_id(1)])[hex_id(1)][0]
    assert (report.learned_reward, report.late) == (0.5, False)


def test_an_import_is_charged_by_the_models_prices_where_it_has_no_cost(log: Disk) -> None:
    rows = [imported_row(hex_id(i), f"past-{i}", usage=Usage(1, 1)) for i in range(20)]
    log.one(ImportWrite(rows))
    charged = {
        row.decision.choice.model: log.reader.reports([row.decision.decision_id])[row.decision.decision_id][0]
        for row in rows
    }
    assert (charged["a"].charged_usd, charged["b"].charged_usd) == (0.25, None)


def test_imports_of_one_batch_know_each_other_and_what_was_decided_with_them(log: Disk) -> None:
    twice = [imported_row(hex_id(i), "past") for i in range(2)]
    routed = DecisionWrite(draft_decision(hex_id(5), request_id="routed"), DAY_US)
    results = log.write(
        ImportWrite(twice),
        ImportWrite([imported_row(hex_id(3), "past")]),
        routed,
        ImportWrite([imported_row(hex_id(4), "routed")]),
    )
    assert results[0] == [Disposition.RECORDED, Disposition.DUPLICATE]
    assert results[1] == [Disposition.DUPLICATE]
    assert results[3] == [Disposition.DUPLICATE]
    assert (count(log, decisions), count(log, reports)) == (2, 1)
