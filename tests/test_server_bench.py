"""pointsman bench: what it measures, and beside what."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import grpc
import pytest
from engines import POSTGRESQL
from servers import POINTSMAN, Disk, draft_decision, hex_id

from policy.domain import RouterSpec
from server.bench.load import Load


def bench(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(POINTSMAN), "bench", "--json", *arguments],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
        env={**os.environ, **environment},
    )


def measured(*arguments: str, **environment: str) -> list[dict[str, Any]]:
    done = bench(*arguments, **environment)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def results() -> list[dict[str, Any]]:
    """Of one run with all that there is of one server: most of a run's time it rests, or its servers start."""
    settings = {"POINTSMAN_TLS_CERTIFICATE": "/no/such/file", "POINTSMAN_HOST": "no.such.host"}
    return measured("--seconds", "0.5", "--callers", "5", "--importing", "--open-loop", "40", **settings)


def test_bench_measures_and_prints_json_whatever_the_settings_of_a_server_in_its_environment(
    results: list[dict[str, Any]],
) -> None:
    closed = [each for each in results if not each["open_loop"]]
    names = ["Route, echo", "Route", "ReportReward, echo", "ReportReward"]
    assert [each["name"] for each in closed] == [*names, "Route while importing", "ImportDecisions"]
    assert all(each["requests_per_second"] > 0 for each in closed)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the system has no /proc")
def test_bench_tells_what_a_request_costs_of_the_processor(results: list[dict[str, Any]]) -> None:
    costs = {each["name"]: each["processor_us"] for each in results}
    assert costs["Route"] > costs["Route, echo"] > 0


def test_bench_sends_at_a_rate_too_and_counts_latency_from_when_it_was_due(results: list[dict[str, Any]]) -> None:
    opened = {each["name"]: each for each in results if each["open_loop"]}
    assert list(opened) == [
        *("Route, echo, open loop", "Route, open loop"),
        *("ReportReward, echo, open loop", "ReportReward, open loop"),
    ]
    assert all(each["requests_per_second"] <= 41 for each in opened.values())
    assert opened["Route, open loop"]["ratio"] > 0


@POSTGRESQL
def test_bench_compares_a_database_with_sqlite_and_serves_it_by_several_processes(url: str, disk: Disk) -> None:
    disk.put_router("default", RouterSpec(), "a", "b")
    disk.decide(draft_decision(hex_id(1)))  # What is in the database already is no obstacle.
    results = measured("--seconds", "0.5", "--callers", "4", "--database-url", url, "--processes", "2")
    names = [each["name"] for each in results]
    assert names[:3] == ["Route, echo", "Route", "Route, 2 processes"]
    assert names[3:] == ["ReportReward, echo", "ReportReward", "ReportReward, 2 processes"]


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (("--open-loop", "fast"), "'fast' is not half, nor a number"),
        (("--processes", "2"), "needs the --database-url of a PostgreSQL"),
    ],
)
def test_bench_refuses_what_it_cannot_measure(given: tuple[str, ...], why: str) -> None:
    done = bench(*given)
    assert (done.returncode, done.stdout) == (2, "")
    assert why in done.stderr


async def test_a_load_at_a_rate_does_not_wait_for_answers() -> None:
    """All are sent at their time though none is answered before the last has come."""
    came, everyone = [0], asyncio.Event()

    async def answer(_request: bytes, _context: object) -> bytes:
        came[0] += 1
        if came[0] == 20:
            everyone.set()
        await everyone.wait()
        return b""

    server = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(answer)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench", {"Wait": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        load = Load([channel], "/bench/Wait", [b"request"])
        await load.run_open(200.0, 0.1)
    await server.stop(None)
    result = load.result("waits")
    assert result.requests_per_second <= 200.0
    assert result.p99_ms > result.p50_ms, "the first has waited longest"
