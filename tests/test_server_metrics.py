"""The metrics over a real port: what is said of policies, decisions, reports and money, and that they are off."""

from __future__ import annotations

import asyncio
import socket
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families
from servers import Running, eventually, running_app, seeded
from test_server_evaluation_loop import evaluated, traffic

from policy.features import Featuriser


async def scraped(server: Running) -> dict[tuple[str, ...], float]:
    """Every sample: its name and the values of its labels, and its value."""

    def get() -> str:
        assert server.app is not None
        with urlopen(f"http://127.0.0.1:{server.app.metrics_port}/metrics", timeout=10) as answer:
            return str(answer.read().decode())

    families = text_string_to_metric_families(await asyncio.to_thread(get))
    return {
        (sample.name, *(sample.labels[name] for name in sorted(sample.labels))): sample.value
        for family in families
        for sample in family.samples
    }


async def test_what_is_known_is_told_by_router_and_model(url: str, featuriser: Featuriser) -> None:
    random = seeded("metrics")
    async with running_app(url, featuriser, metrics_port=0) as server:
        await server.create_models(good={}, bad={})
        await server.update_router(policy="uniform")
        await traffic(server, random, 200, good=1.0, bad=0.0)
        first = await server.route(prompt="hello")
        for _ in range(2):
            await server.report(first, report_id="same", reward=1.0)
        await server.settled()
        await evaluated(server)

        async def alarmed() -> dict[tuple[str, ...], float] | None:
            found = await scraped(server)
            return found if found.get(("pointsman_live_policy_worse", "default")) == 1.0 else None

        found = await eventually(alarmed)
        low, value, high = (
            found["pointsman_live_policy_utility_gain" + end, "default"] for end in ("_low", "", "_high")
        )
        assert low < value < high < 0.0
        assert found["pointsman_guardrail_crossed", "default"] == 0.0
        decisions = [found["pointsman_decisions_total", model, "default"] for model in ("good", "bad")]
        assert sum(decisions) == 201
        assert found["pointsman_reports_total", "duplicate"] == 1
        assert found["pointsman_reports_total", "recorded"] == 201
        assert found["pointsman_spent_usd_total", "default"] > 0.0
        assert found["pointsman_model_errors_total", "bad", "default"] == 0.0


async def test_they_are_off_unless_asked_for_and_a_taken_port_is_named(url: str, featuriser: Featuriser) -> None:
    async with running_app(url, featuriser) as server:
        assert server.app is not None
        assert server.app.metrics_port == 0
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"metrics on 127.0.0.1:{port}"):
            async with running_app(url, featuriser, metrics_port=port):
                pass


async def test_a_server_that_has_stopped_answers_no_more(url: str, featuriser: Featuriser) -> None:
    async with running_app(url, featuriser, metrics_port=0) as server:
        assert server.app is not None
        port = server.app.metrics_port
        assert await scraped(server)
    with pytest.raises((URLError, ConnectionError)):
        await asyncio.to_thread(urlopen, f"http://127.0.0.1:{port}/metrics", None, 2)
