"""What exploring may give up holds in every process by itself, also while nobody learns."""

from __future__ import annotations

import asyncio

import pytest
from engines import BOTH_ENGINES
from servers import Disk, Running, eventually, running_app
from test_several_servers import knows

from policy.books import expected_loss
from policy.choices import Candidate, Choice
from policy.features import Featuriser
from policy.log import DecisionRecord
from server.owing import Owing

CAP = 0.0004
DEAR_USD = 0.0002
DECISIONS = 600
CREDIT = 500


def drawn(probability: float, better: float = 0.5) -> Choice:
    """One that gave up `better` with that probability."""
    candidates = (
        Candidate("worse", probability, 0.5, 0.0, 0.0, 0.5),
        Candidate("better", 1.0 - probability, 0.5 + better, 0.0, 0.0, 0.5 + better),
    )
    return Choice("worse", probability, candidates, (), "learned", 0, 1.0)


def test_each_decision_is_owed_beyond_its_average_and_paid_back_by_those_that_explore_less() -> None:
    owing = Owing()
    owing.add(1, drawn(0.5), 0.1)
    assert owing.of(1) == pytest.approx(0.15)
    assert owing.of(2) == 0.0
    owing.add(1, drawn(0.1), 0.1)
    assert owing.of(1) == pytest.approx(0.1)
    for _ in range(2):
        owing.add(1, drawn(0.0), 0.1)
    assert owing.of(1) == 0.0


def test_only_so_many_routers_are_remembered() -> None:
    owing = Owing(size_max=2)
    for router in (1, 2, 1, 3):
        owing.add(router, drawn(0.5), 0.1)
    assert owing.of(2) == 0.0
    assert owing.of(1) > owing.of(3) > 0.0


async def has_cap(server: Running) -> bool:
    router = await server.get_router()
    return await knows(server, "dear") and router.exploration.max_utility_loss == CAP


def losses(url: str) -> list[float]:
    """What each decision of the log gave up on average."""
    disk = Disk(url)
    try:
        records = disk.reader.page(0, 10 * DECISIONS).records
        return [expected_loss(each.choice) for each in records if isinstance(each, DecisionRecord)]
    finally:
        disk.close()


@BOTH_ENGINES
async def test_routers_that_nobody_learns_for_keep_their_cap(url: str, featuriser: Featuriser) -> None:
    """A dear and a cheap model of which nothing is known: every draw of the dear one gives up its price."""
    async with (
        running_app(url, featuriser, role="router", share_port=True) as one,
        running_app(url, featuriser, role="router", share_port=True) as other,
    ):
        await one.create_models(cheap={"prices": (0.0, 0.0, 0.0)}, dear={"prices": (0.0, 0.0, DEAR_USD)})
        await one.update_router(objective={"quality_value_usd": 0.01}, exploration={"max_utility_loss": CAP})
        await eventually(lambda: has_cap(other))
        for start in range(0, DECISIONS, 20):
            numbers = range(start, start + 20)
            await asyncio.gather(*(each.route(prompt=f"question {n}") for n in numbers for each in (one, other)))
        given_up = await asyncio.to_thread(losses, url)
    assert len(given_up) == 2 * DECISIONS
    assert sum(given_up) <= (2 * DECISIONS + 2 * CREDIT) * CAP
    assert sum(given_up) >= CREDIT * CAP
