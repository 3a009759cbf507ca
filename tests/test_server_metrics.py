"""The metrics over a real port: what is said of policies, decisions, reports and money, and that they are off."""

from __future__ import annotations

import asyncio
import re
import socket
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import grpc
import pytest
from google.protobuf import duration_pb2
from grpc_health.v1 import health_pb2
from locks import add_key
from pointsman.v1 import registry_service_pb2 as registry_pb
from pointsman.v1 import router_service_pb2 as pb
from prometheus_client.parser import text_string_to_metric_families
from servers import Disk, Running, draft_decision, eventually, hex_id, refusal, running_app, seeded
from test_server_evaluation_loop import evaluated, traffic

from policy.domain import RouterSpec
from policy.features import Featuriser
from server.metrics.distribution import Distribution
from server.metrics.log import Following
from server.metrics.rising import Rising

MONITORING = Path(__file__).parents[1] / "docs" / "monitoring.md"


def page(server: Running) -> str:
    """What Prometheus gets."""
    assert server.app is not None
    with urlopen(f"http://127.0.0.1:{server.app.metrics_port}/metrics", timeout=10) as answer:
        return str(answer.read().decode())


async def scraped(server: Running) -> dict[tuple[str, ...], float]:
    """Every sample: its name and the values of its labels, and its value."""
    families = text_string_to_metric_families(await asyncio.to_thread(page, server))
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


async def test_every_metric_is_listed_with_its_meaning_and_nothing_else_is(
    url: str, featuriser: Featuriser
) -> None:
    """That of the process itself is the official client's, whose names are not ours to fix."""
    async with running_app(url, featuriser, metrics_port=0) as server:
        text = await asyncio.to_thread(page, server)
    types = {
        name: kind
        for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE)
        if name.startswith("pointsman_")
    }
    listed = dict(re.findall(r"^\| `(pointsman_\w+)` \| (\w+) \|", MONITORING.read_text(), re.MULTILINE))
    assert listed == types
    assert {"process_resident_memory_bytes", "python_info"} <= set(
        re.findall(r"^# TYPE (\S+)", text, re.MULTILINE)
    )


async def test_calls_are_counted_by_method_and_how_they_ended(url: str, featuriser: Featuriser) -> None:
    async with running_app(url, featuriser, metrics_port=0) as server:
        await server.create_models(a={})
        for _ in range(3):
            await server.route(prompt="hello")
        await refusal(server.route(router="routers/nowhere"))
        await refusal(server.route(router="routers/nowhere"))
        nameless = server.channel.unary_unary("/pointsman.v1.RouterService/Nothing")
        with pytest.raises(grpc.aio.AioRpcError, match="UNIMPLEMENTED"):
            await nameless(b"")
        found = await scraped(server)
        route = "RouterService/Route"
        assert found["pointsman_grpc_requests_total", "OK", route] == 3
        assert found["pointsman_grpc_requests_total", "NOT_FOUND", route] == 2
        assert found["pointsman_grpc_requests_running", route] == 0
        assert found["pointsman_grpc_request_seconds_count", route] == 5
        assert found["pointsman_grpc_request_seconds_bucket", "+Inf", route] == 5
        assert found["pointsman_grpc_request_seconds_sum", route] > 0.0
        assert not [key for key in found if "Nothing" in str(key) or "Health" in str(key)]


async def test_who_has_no_key_adds_no_names_however_much_is_asked_for(url: str, featuriser: Featuriser) -> None:
    async with running_app(url, featuriser, metrics_port=0) as server:
        await asyncio.to_thread(add_key, url)
        assert server.app is not None
        await server.app._key_watch.refresh()
        for number in range(5):
            with pytest.raises(grpc.aio.AioRpcError, match="UNAUTHENTICATED"):
                await server.channel.unary_unary(f"/pointsman.v1.RouterService/Made{number}")(b"")
        with pytest.raises(grpc.aio.AioRpcError, match="UNAUTHENTICATED"):
            await server.route(prompt="hello")
        found = await scraped(server)
    requests = {key[1:]: value for key, value in found.items() if key[0] == "pointsman_grpc_requests_total"}
    assert requests == {("UNAUTHENTICATED", "unknown"): 5, ("UNAUTHENTICATED", "RouterService/Route"): 1}


async def test_a_call_that_its_caller_gives_up_has_ended_too(
    url: str, featuriser: Featuriser, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_app(url, featuriser, metrics_port=0) as server:
        await server.create_models(a={})
        assert server.app is not None

        async def never(*_: object) -> None:
            await asyncio.Event().wait()

        with monkeypatch.context() as patch:
            patch.setattr(server.app._log, "submit", never)
            call = server.router.Route(pb.RouteRequest(), timeout=0.3)
            with pytest.raises(grpc.aio.AioRpcError, match="DEADLINE_EXCEEDED"):
                await call
        ends = ("DEADLINE_EXCEEDED", "CANCELLED")

        async def ended() -> bool:
            found = await scraped(server)
            route = "RouterService/Route"
            assert found["pointsman_grpc_requests_running", route] in (0, 1)
            return any(found.get(("pointsman_grpc_requests_total", end, route)) == 1 for end in ends)

        await eventually(ended)


async def test_the_writer_and_who_follows_the_log_tell_where_they_are(url: str, featuriser: Featuriser) -> None:
    async with running_app(url, featuriser, metrics_port=0, snapshot_seconds=0.05) as server:
        await server.create_models(a={})
        first = await server.route(prompt="hello")
        await server.report(first, reward=1.0)
        await server.settled()

        async def level() -> dict[tuple[str, ...], float] | None:
            found = await scraped(server)
            lags = [found["pointsman_follower_lag_records", name] for name in ("learner", "evaluation")]
            saved = ("pointsman_snapshot_timestamp_seconds", "default") in found
            return found if lags == [0, 0] and saved else None

        found = await eventually(level)
        assert found["pointsman_follower_lag_seconds", "learner"] == 0.0
        assert found["pointsman_follower_running", "learner"] == 1.0
        assert found["pointsman_log_reachable",] == 1.0
        assert found["pointsman_log_position",] >= 4  # A router, a model, a decision and a report.
        assert found["pointsman_log_batch_writes_sum",] >= 4
        assert found["pointsman_log_batch_writes_count",] == found["pointsman_log_commit_seconds_count",]
        assert found["pointsman_log_queue_writes",] == 0
        assert found["pointsman_log_queue_writes_max",] == 4096
        assert abs(found["pointsman_snapshot_timestamp_seconds", "default"] - time.time()) < 3600.0


def test_a_follower_that_lags_says_by_how_many_records_and_since_when(disk: Disk) -> None:
    disk.put_router("default", RouterSpec(embedding_dimensions=8), "a", "b")
    first = disk.decide(draft_decision(hex_id(1)))
    disk.now_us += 90_000_000
    disk.decide(draft_decision(hex_id(2), seed=1))
    disk.now_us += 30_000_000
    followers = {"learner": lambda: first.seq, "evaluation": lambda: first.seq + 1, "dead": lambda: None}
    following = Following(disk.engine, lambda: disk.now_us, lambda: 0, 1, followers)
    found = {
        (sample.name.removeprefix("pointsman_follower_"), sample.labels["follower"]): sample.value
        for family in following.collect()
        for sample in family.samples
        if "follower" in sample.labels
    }
    assert found == {
        ("running", "learner"): 1.0,
        ("running", "evaluation"): 1.0,
        ("running", "dead"): 0.0,
        ("lag_records", "learner"): 1.0,
        ("lag_records", "evaluation"): 0.0,
        ("lag_seconds", "learner"): 30.0,
        ("lag_seconds", "evaluation"): 0.0,
    }


async def test_money_rewards_and_circuits_are_told(url: str, featuriser: Featuriser) -> None:
    async with running_app(url, featuriser, metrics_port=0) as server:
        await server.create_models(a={"prices": (0.0, 0.0, 0.01)})
        await server.update_router(
            objective=registry_pb.Objective(budget_usd_per_request=0.02),
            reward_rule=registry_pb.RewardRule(join_window=duration_pb2.Duration(seconds=1)),
        )
        made = [await server.route(prompt=f"query {number}") for number in range(5)]
        await server.report(made[0], reward=0.5, usage=pb.Usage(cost_usd=0.03))
        for each in made[1:]:
            await server.report(each, error=pb.MODEL_ERROR_UNAVAILABLE)

        async def closed() -> dict[tuple[str, ...], float] | None:
            found = await scraped(server)
            return found if found.get(("pointsman_windows_closed_total", "a", "default")) == 5 else None

        found = await eventually(closed)
        assert found["pointsman_rewards_total", "a", "default"] == 1
        assert found["pointsman_rewards_missing_total", "a", "default"] == 4
        assert found["pointsman_model_errors_total", "a", "default"] == 4
        assert found["pointsman_model_mean_reward", "a", "default"] == 0.5
        assert found["pointsman_model_circuit", "a", "default"] in (1.0, 2.0)
        spent = found["pointsman_spent_usd_total", "default"]
        assert spent == pytest.approx(0.03 + sum(each.candidates[0].predicted_cost_usd for each in made[1:]))
        assert found["pointsman_budget_usd_per_request", "default"] == 0.02
        assert found["pointsman_budget_utilization_ratio", "default"] == pytest.approx(spent / 0.1)
        statistics = (await server.get_router()).statistics
        assert found["pointsman_price_of_money_per_usd", "default"] == statistics.price_of_money

        assert await server.report(made[0], reward=1.0, report_id="after") == pb.DISPOSITION_LATE
        assert (await scraped(server))["pointsman_reports_total", "late"] == 1


async def test_a_restart_counts_from_nothing_and_does_not_see_all_of_the_past_again(
    url: str, featuriser: Featuriser
) -> None:
    async with running_app(url, featuriser) as server:
        await server.create_models(a={})
        for _ in range(4):
            await server.route(prompt="hello")
        await server.settled()
    async with running_app(url, featuriser, metrics_port=0) as server:
        await server.health_is(health_pb2.HealthCheckResponse.SERVING)
        await server.route(prompt="hello")
        await server.settled()
        assert (await scraped(server))["pointsman_decisions_total", "a", "default"] == 1


def test_a_total_that_shrinks_is_no_new_beginning() -> None:
    rising = Rising()
    rising.begin("spent", 100.0)
    assert [rising.added("spent", total) for total in (100.0, 103.0, 102.5, 104.0, 50.0, 51.0)] == [
        *(0.0, 3.0, 3.0, 4.5, 4.5, 5.5),
    ]
    assert rising.added("a router that came later", 2.0) == 2.0


def test_a_value_on_a_bound_is_within_it() -> None:
    distribution = Distribution((1, 2))
    for value in (0.5, 1, 1.5, 2, 7):
        distribution.add(value)
    assert distribution.buckets() == [("1.0", 2.0), ("2.0", 4.0), ("+Inf", 5.0)]
    assert distribution.total == 12.0
