"""What second calls may cost on a day, and the books that this is held against."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pointsman.v1 import router_service_pb2 as pb
from servers import (
    DAY_US,
    Disk,
    draft_decision,
    hex_id,
    running_app,
)
from sqlalchemy import select, text
from test_server_paid_shadow import CALL_USD, routed, set_up, spent_usd
from test_server_shadow import audited

from policy.choices import Second
from policy.domain import ModelSpec, PaidShadow, Prices, RouterSpec
from policy.features import Featuriser
from policy.log import DecisionRecord, Usage
from server.storage.schema import second_days
from server.storage.writes import DecisionWrite


async def test_many_at_once_and_a_restart_spend_no_more_on_a_day_than_they_may(
    url: str, featuriser: Featuriser
) -> None:
    """Nine calls fit, and hundreds would be named."""
    cap = 9.5 * CALL_USD

    async def life(first: bool) -> list[pb.RouteResponse]:
        async with running_app(url, featuriser) as server:
            if first:
                await set_up(server, max_usd_per_day=cap)
            return await routed(server, 400)

    answers = [*await life(True), *await life(False)]
    named = [each for each in answers if each.second_model]
    days = spent_usd(url)
    assert len(named) == 9 * len(days), "another day may have begun in between"
    assert max(days) == pytest.approx(9 * CALL_USD)
    assert audited(url).passed
    async with running_app(url, featuriser) as server:
        capped = [each for each in answers if (await server.decision(each)).second_capped]
        counted = (await server.settled()).statistics.paid_shadow
        assert counted.call_count == len(named)
        assert counted.capped_count == len(capped) == 800 - counted.offer_count
        assert all(not candidate.second_probability for each in capped for candidate in each.candidates)


def offering(number: int, model: str = "b", **fields: Any) -> DecisionRecord:
    """A decision for a that offers a second call to b or c, whatever the draw would give."""
    draft = draft_decision(hex_id(number), models=("a", "b", "c"), seed=number, **fields)
    second = Second(0.2, (0.0, 0.5, 0.5), 0.003, model)
    return replace(draft, choice=replace(draft.choice, model="a", second=second))


def write(draft: DecisionRecord, max_usd: float) -> DecisionWrite:
    return DecisionWrite(draft, DAY_US, max_usd)


def put_router(disk: Disk) -> None:
    """Predictions are 0.001, 0.002 and 0.003 USD for a, b and c."""
    spec = RouterSpec(embedding_dimensions=8, paid_shadow=PaidShadow(0.2, 1.0))
    disk.put_router("default", spec, **{each: ModelSpec(prices=Prices(1.0)) for each in "abc"})


def test_the_cap_does_not_depend_on_which_model_was_drawn(disk: Disk) -> None:
    put_router(disk)
    logged = disk.write(*(write(offering(number, model), 0.0065) for number, model in enumerate("bbbb")))
    assert [each.choice.second_model for each in logged] == ["b", "b", "", ""], "0.004 and b's 0.002 would fit"
    assert [each.choice.second.capped for each in logged] == [False, False, True, True]
    assert [disk.reader.decision(each.decision_id).choice for each in logged] == [each.choice for each in logged]


def test_another_day_has_money_again_and_another_router_has_its_own(disk: Disk) -> None:
    put_router(disk)
    disk.put_router("other", RouterSpec(embedding_dimensions=8), "a", "b", "c")
    today = disk.write(
        write(offering(1), 0.004), write(offering(2), 0.004), write(offering(3, router="other"), 0.004)
    )
    assert [each.choice.second_model for each in today] == ["b", "", "b"]
    disk.now_us += DAY_US
    assert disk.one(write(offering(4), 0.004)).choice.second_model == "b"


def test_a_late_report_on_a_second_call_leaves_the_days_books_as_they_are(disk: Disk) -> None:
    put_router(disk)
    decision = disk.one(write(offering(1), 1.0))
    disk.now_us += 2 * DAY_US
    assert disk.report(decision, second=True, usage=Usage(1, 1, 9.0)) == "late"
    with disk.engine.connect() as connection:
        assert connection.execute(select(second_days.c.usd)).scalars().all() == [0.002]


def test_books_of_a_day_that_are_not_what_the_log_gives_are_found_by_the_audit(disk: Disk) -> None:
    put_router(disk)
    decision = disk.one(write(offering(1), 1.0))
    disk.report(decision, second=True, usage=Usage(1, 1, 0.5))
    with disk.engine.begin() as connection:
        connection.execute(text("UPDATE second_days SET usd = 0.25"))
    found = audited(str(disk.engine.url))
    (said,) = [each for each in found.examples if each.startswith("second calls of router")]
    assert said.endswith("0.5 USD by the log, 0.25 by the books")
    assert (found.passed, found.days, found.days_wrong) == (False, 1, 1)
