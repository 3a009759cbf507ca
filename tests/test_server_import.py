"""Decisions made elsewhere: through a real server into the log, once each, and what they move and do not."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import code_pb2
from imports import counts, imported, logged, row, run_import, written
from pointsman.v1 import router_service_pb2 as pb
from servers import POINTSMAN, Running, refusal, running_app, serving_process

from policy.features import Featuriser
from policy.layout import HASHED, STRUCTURE
from server.audit import audit
from server.errors import QueueFullError
from server.storage.engine import open_engine
from server.storage.reader import LogReader
from server.storage.writes import ImportWrite, Write

SMALL_FEATURES = [0.0] * (8 + STRUCTURE + HASHED) + [1.0]


async def import_one(server: Running, router: str = "", **fields: Any) -> pb.ImportResult:
    """Imports one good row with these fields on the wire."""
    given = {"request_id": "one", "prompt": "hello", "model": "a", "reward": 0.5, **fields}
    decision = pb.ImportedDecision(**{name: value for name, value in given.items() if value is not None})
    request = pb.ImportDecisionsRequest(router=router, decisions=[decision])
    (result,) = (await server.router.ImportDecisions(request)).results
    return result


def require_consistent(url: str, imported: int) -> None:
    """The log passes `pointsman verify`, which does not draw imported decisions again."""
    engine = open_engine(url, create=False)
    result = audit(LogReader(engine), lambda _: None)
    engine.dispose()
    assert result.passed, result.examples
    assert result.imported == imported


@pytest.fixture
async def two(server: Running) -> Running:
    """A server whose default router has two models."""
    await server.create_models(a={"prices": (0.0, 0.0, 0.001)}, b={"prices": (0.0, 0.0, 0.01)})
    return server


async def test_a_file_is_taken_once_and_learned_from(two: Running, tmp_path: Path) -> None:
    file = written(tmp_path / "past.jsonl", [row(number) for number in range(40)])
    assert await imported(two, file) == {
        "rows": 40,
        "recorded": 40,
        "duplicates": 0,
        "refused": 0,
        "refusals": [],
        "ignored_fields": [],
    }
    await two.settled()
    learned = await two.get_model("a"), await two.get_model("b")
    assert [each.statistics.mean_reward for each in learned] == pytest.approx([0.25, 0.75])
    assert [each.statistics.imported_decision_count for each in learned] == [20, 20]
    again = await imported(two, file)
    assert (again["recorded"], again["duplicates"]) == (0, 40)
    assert counts(two.url) == (40, 40)
    require_consistent(two.url, imported=40)


async def test_history_moves_no_budget_no_book_no_circuit_and_no_missing_rate(
    url: str, featuriser: Featuriser, tmp_path: Path
) -> None:
    async with running_app(url, featuriser) as server:
        await server.update_router(objective={"budget_usd_per_day": 1.0}, reward_rule={"missing_reward": 0.0})
        await server.create_models(a={}, b={})
        failed = [row(n, model="a", reward=None, error="timeout", cost_usd=None) for n in range(8)]
        good = [row(n, propensity=0.1, candidates=None) for n in range(8, 30)]
        assert (await imported(server, written(tmp_path / "past.jsonl", failed + good)))["recorded"] == 30
        statistics = (await server.settled()).statistics
        assert (statistics.decision_count, statistics.imported_decision_count) == (0, 30)
        assert (statistics.spent_usd, statistics.period_spent_usd, statistics.reward_count) == (0.0, 0.0, 22)
        assert statistics.exploration.decision_count == 0
        learned = (await server.get_model("a")).statistics
        assert learned.healthy
        assert (learned.decision_count, learned.error_count, learned.closed_count) == (0, 0, 0)
        assert learned.mean_cost_usd == pytest.approx(0.002)


async def test_what_was_decided_elsewhere_is_kept_as_it_was(two: Running, tmp_path: Path) -> None:
    given = row(
        propensity=0.7,
        candidates=[{"model": "a", "propensity": 0.7}, {"model": "b", "propensity": 0.3}],
        categorical={"tenant": "acme", "seats": 12},
        numeric={"turns": 3},
        session_id="s",
        incumbent_model="b",
        time="2026-01-02T03:04:05.5+01:00",
        input_tokens=90,
        output_tokens=10.0,
        latency_seconds=1.5,
    )
    await imported(two, written(tmp_path / "one.jsonl", [given]))
    kept = await logged(two, "past-0")
    assert (kept.policy, kept.model, kept.probability, kept.incumbent_model) == ("imported", "a", 0.7, "b")
    assert [(each.model, each.probability) for each in kept.candidates] == [("a", 0.7), ("b", 0.3)]
    assert dict(kept.categorical_features) == {"tenant": "acme", "seats": "12"}
    assert dict(kept.numeric_features) == {"turns": 3.0}
    assert not kept.HasField("expire_time")
    (report,) = kept.reports
    assert report.report.event_time.ToJsonString() == "2026-01-02T02:04:05.500Z"
    assert (report.report.usage.input_tokens, report.report.latency.ToMilliseconds()) == (90, 1500)
    assert (kept.reward, kept.cost_usd) == (0.25, 0.002)


async def test_an_unknown_propensity_is_none_and_no_draw_is_claimed(two: Running, tmp_path: Path) -> None:
    await imported(two, written(tmp_path / "one.jsonl", [row(propensity=None)]))
    kept = await logged(two, "past-0")
    assert kept.probability == 0.0
    assert [each.probability for each in kept.candidates] == [0.0, 0.0]
    explain = [str(POINTSMAN), "explain", kept.decision_id, "--target", two.target]
    shown = await asyncio.to_thread(subprocess.check_output, explain, text=True, timeout=60)
    assert "elsewhere: the decision was imported" in shown
    assert "not known" in shown


async def test_later_reports_on_an_imported_decision_are_late(two: Running) -> None:
    await import_one(two)
    kept = await logged(two, "one")
    assert await two.report(kept.decision_id, report_id="thumb", reward=0.0) == pb.DISPOSITION_LATE
    await two.settled()
    assert (await two.get_model("a")).statistics.mean_reward == 0.5


async def test_an_imported_request_is_not_answered_by_route(two: Running) -> None:
    await import_one(two)
    refused = await refusal(two.route(prompt="hello", request_id="one"))
    assert (refused.code, refused.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["request_id"])


async def test_a_request_that_was_routed_is_not_taken_again(two: Running) -> None:
    await two.route(prompt="hello", request_id="one")
    assert (await import_one(two)).disposition == pb.DISPOSITION_DUPLICATE
    assert counts(two.url) == (1, 0)


async def test_an_imported_session_binds_no_later_decision(two: Running) -> None:
    await two.update_router(policy="fixed:b")
    await import_one(two, session_id="s")
    answer = await two.route(prompt="hello", session_id="s")
    assert (answer.model, (await two.decision(answer)).sticky) == ("b", False)


async def test_a_row_that_stands_twice_in_a_batch_is_taken_once(two: Running) -> None:
    one = pb.ImportedDecision(request_id="x", prompt="q", model="a", reward=1.0)
    answer = await two.router.ImportDecisions(pb.ImportDecisionsRequest(decisions=[one, one]))
    assert [each.disposition for each in answer.results] == [pb.DISPOSITION_RECORDED, pb.DISPOSITION_DUPLICATE]


async def test_features_and_embeddings_of_the_callers_own_are_taken(two: Running) -> None:
    router = await two.create_router("small", features={"embedding_dimensions": 8})
    await two.create_models(router, a={})
    whole = await import_one(two, router, prompt=None, features=SMALL_FEATURES, model=f"{router}/models/a")
    assert whole.disposition == pb.DISPOSITION_RECORDED
    other = await import_one(two, router, request_id="two", embedding=[1.0] * 8)
    assert other.disposition == pb.DISPOSITION_RECORDED
    statistics = (await two.settled(router)).statistics
    assert (statistics.imported_decision_count, statistics.reward_count) == (2, 2)


BAD_ON_THE_WIRE: list[tuple[dict[str, Any], int, str]] = [
    ({"request_id": None}, code_pb2.INVALID_ARGUMENT, "request_id: must be set"),
    ({"request_id": "x" * 129}, code_pb2.INVALID_ARGUMENT, "request_id: must be at most"),
    ({"model": None}, code_pb2.INVALID_ARGUMENT, "model: must be set"),
    ({"model": "never"}, code_pb2.NOT_FOUND, "model: routers/default has no model 'never'"),
    ({"incumbent_model": "never"}, code_pb2.NOT_FOUND, "incumbent_model: routers/default has no model"),
    (
        {"candidates": [{"model": "a"}, {"model": "never"}]},
        code_pb2.NOT_FOUND,
        "candidates: routers/default has no model 'never'",
    ),
    ({"prompt": None}, code_pb2.INVALID_ARGUMENT, "prompt: must be set, or else"),
    ({"features": [1.0]}, code_pb2.INVALID_ARGUMENT, "features: cannot be set beside"),
    ({"prompt": None, "features": [1.0]}, code_pb2.INVALID_ARGUMENT, "features: must have 305 values"),
    ({"embedding": [1.0]}, code_pb2.INVALID_ARGUMENT, "embedding: must have 256 values"),
    ({"reward": 1.5}, code_pb2.INVALID_ARGUMENT, "reward: must be a finite number"),
    ({"reward": None}, code_pb2.INVALID_ARGUMENT, "reward: must be set, or else"),
    ({"propensity": 0.0}, code_pb2.INVALID_ARGUMENT, "propensity: must be a finite number above 0"),
    ({"propensity": float("nan")}, code_pb2.INVALID_ARGUMENT, "propensity: must be a finite number"),
    ({"candidates": [{"model": "b"}]}, code_pb2.INVALID_ARGUMENT, "candidates: must have the chosen model 'a'"),
    ({"candidates": [{"model": "a"}] * 2}, code_pb2.INVALID_ARGUMENT, "candidates: must name each model once"),
    (
        {"candidates": [{"model": "a", "propensity": 0.5}, {"model": "b", "propensity": 0.25}]},
        code_pb2.INVALID_ARGUMENT,
        "candidates: must have propensities that sum to 1, not to 0.75",
    ),
    (
        {"candidates": [{"model": "a"}, {"model": "b", "propensity": 0.25}]},
        code_pb2.INVALID_ARGUMENT,
        "propensity: must be set where other candidates have one",
    ),
    (
        {"propensity": 0.5, "candidates": [{"model": "a", "propensity": 0.25}]},
        code_pb2.INVALID_ARGUMENT,
        "propensity: is 0.5, but 0.25 among the candidates",
    ),
    (
        {"candidates": [{"model": "a", "propensity": 0.0}]},
        code_pb2.INVALID_ARGUMENT,
        "propensity: must be above 0",
    ),
    ({"usage": {"cost_usd": -1.0}}, code_pb2.INVALID_ARGUMENT, "usage.cost_usd: must be"),
    ({"usage": {"input_tokens": -1}}, code_pb2.INVALID_ARGUMENT, "usage.input_tokens: must be"),
    ({"error": 77}, code_pb2.INVALID_ARGUMENT, "error: must be a MODEL_ERROR value"),
    ({"event_time": {"seconds": -5}}, code_pb2.INVALID_ARGUMENT, "event_time: must be a time"),
    ({"numeric_features": {"x": float("inf")}}, code_pb2.INVALID_ARGUMENT, "numeric_features[x]: must be"),
]


async def test_a_bad_row_is_refused_by_its_field_and_the_others_are_taken(two: Running) -> None:
    good = {"prompt": "hello", "model": "a", "reward": 0.5}
    rows = []
    for number, (fields, _, _) in enumerate(BAD_ON_THE_WIRE):
        given = {"request_id": f"bad-{number}", **good, **fields}
        rows.append(pb.ImportedDecision(**{name: value for name, value in given.items() if value is not None}))
        rows.append(pb.ImportedDecision(request_id=f"good-{number}", **good))
    results = (await two.router.ImportDecisions(pb.ImportDecisionsRequest(decisions=rows))).results
    for (fields, code, message), result in zip(BAD_ON_THE_WIRE, results[::2], strict=True):
        assert (result.code, result.message[: len(message)]) == (code, message), fields
    assert {each.disposition for each in results[1::2]} == {pb.DISPOSITION_RECORDED}
    assert counts(two.url) == (len(BAD_ON_THE_WIRE),) * 2


async def test_a_call_that_is_wrong_as_a_whole_stores_nothing(two: Running) -> None:
    one = pb.ImportedDecision(request_id="x", prompt="q", model="a", reward=1.0)
    many = await refusal(two.router.ImportDecisions(pb.ImportDecisionsRequest(decisions=[one] * 1001)))
    assert (many.code, many.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["decisions"])
    nowhere = await refusal(two.router.ImportDecisions(pb.ImportDecisionsRequest(router="routers/never")))
    assert (nowhere.code, nowhere.reason) == (grpc.StatusCode.NOT_FOUND, "ROUTER_NOT_FOUND")
    assert counts(two.url) == (0, 0)


async def test_the_import_waits_while_the_queue_is_full(
    two: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert two.app is not None
    submit, failures = two.app._log.submit, iter([True, True])

    async def busy(write: Write) -> Any:
        if isinstance(write, ImportWrite) and next(failures, False):
            raise QueueFullError
        return await submit(write)

    monkeypatch.setattr(two.app._log, "submit", busy)
    # More than gRPC keeps for a retry by itself.
    rows = [row(number, prompt="long " * 20_000) for number in range(10)]
    assert (await imported(two, written(tmp_path / "past.jsonl", rows)))["recorded"] == 10
    assert next(failures, None) is None


@pytest.mark.slow
def test_an_import_that_is_killed_is_finished_by_the_same_command(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'crash.db'}"
    file = written(tmp_path / "past.jsonl", [row(number) for number in range(3_000)])
    with serving_process("--database-url", url) as (process, port):
        asyncio.run(add_models(port))
        client = subprocess.Popen(
            [str(POINTSMAN), "import", str(file), "--target", f"127.0.0.1:{port}"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while counts(url)[0] < 600:
            assert client.poll() is None, "the import was over too soon"
        process.kill()
        client.kill()
        client.wait()
    before = counts(url)
    assert 600 <= before[0] < 3_000
    assert before[0] == before[1], "a decision without its report, or the other way round"
    with serving_process("--database-url", url) as (_, port):
        done = run_import(port, file, "--json")
        assert done.returncode == 0, done.stderr
        said = json.loads(done.stdout)
        assert (said["recorded"], said["duplicates"]) == (3_000 - before[0], before[0])
        learned = asyncio.run(settled(url, port))
    assert counts(url) == (3_000, 3_000)
    assert learned == (3_000, 3_000)
    require_consistent(url, imported=3_000)


async def add_models(port: int) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        await Running("", "", channel).create_models(a={}, b={})


async def settled(url: str, port: int) -> tuple[int, int]:
    """Imported decisions and rewards, once all are learned."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        statistics = (await Running(url, "", channel).settled()).statistics
    return statistics.imported_decision_count, statistics.reward_count
