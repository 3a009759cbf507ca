"""The Python client without a server, on its way to one, and at the end of its program."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path
from typing import Any

import grpc
import pytest
from callers import PATIENCE_SECONDS, REFUSALS, Answer, in_thread, refuse_at_first
from locks import Authority, add_key
from pointsman.client import AsyncClient, Client, Connection, RouteError
from pointsman.v1 import router_service_pb2 as pb
from servers import Running, running_app

from policy.features import Featuriser
from server.storage.writes import DecisionWrite, ReportWrite

NOBODY = "127.0.0.1:1"


@pytest.fixture
async def server(server: Running) -> Running:
    await server.create_models(small={})
    return server


def test_without_a_server_the_defaults_stand_in_and_the_call_is_none_the_wiser(
    caplog: pytest.LogCaptureFixture,
) -> None:
    called = []

    def call(model: str) -> str:
        called.append(model)
        if model == "dear":
            raise TimeoutError
        return "Paris"

    with Client(NOBODY, default_model=["dear", "cheap", "denied"], timeout_seconds=0.2) as client:
        with client.route("question", denied_models=["denied"]) as decision:
            assert decision.call(call) == "Paris"
            decision.record(Answer(), reward=1.0)
        client.route("another")
        assert (decision.is_default, decision.decision_id, decision.models) == (True, "", ("dear", "cheap"))
        assert decision.problem is not None
        assert decision.problem.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
        with pytest.raises(RouteError):
            client.route("question", allowed_models=["other"])
    assert called == ["dear", "cheap"]
    assert client.counts.dropped == client.counts.refused == 0
    assert sum("stands in" in each.message for each in caplog.records) == 1


async def test_the_asynchronous_client_has_defaults_too() -> None:
    async with AsyncClient(NOBODY, default_model="cheap", timeout_seconds=0.2) as aclient:
        async with aclient.route("question") as decision:
            decision.record(Answer())
        assert (decision.is_default, decision.model) == (True, "cheap")
        with pytest.raises(RouteError):
            await aclient.route("question", denied_models=["cheap"])


async def test_a_server_that_cannot_store_is_asked_again_and_decides_once(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = refuse_at_first(server, monkeypatch)
    async with AsyncClient(server.target, default_model="small", timeout_seconds=PATIENCE_SECONDS) as aclient:
        decision = await aclient.route("question", request_id="same")
        assert not decision.is_default
        assert (await aclient.route("question", request_id="same")).decision_id == decision.decision_id
        decision.report(reward=1.0)
        assert await aclient.flush(PATIENCE_SECONDS)
    assert refused == {DecisionWrite: REFUSALS, ReportWrite: REFUSALS}
    assert aclient.counts.recorded == 1


async def test_reports_wait_for_a_server_that_is_away_and_none_counts_twice(
    url: str, featuriser: Featuriser
) -> None:
    async with running_app(url, featuriser) as first:
        await first.create_models(small={})
        assert first.app is not None
        port = first.app.port
        client = Client(first.target, linger_seconds=0.0, timeout_seconds=PATIENCE_SECONDS)
        decision = await in_thread(client.route, "question")
    for turn in range(20):
        decision.report(signals={"turn": float(turn)})
    assert not await in_thread(client.flush, 0.2)
    async with running_app(url, featuriser, port=port) as second:
        assert await in_thread(client.flush, 30.0)
        logged = await second.decision(decision.response)
        assert [each.report.signals["turn"] for each in logged.reports] == [float(turn) for turn in range(20)]
        await in_thread(client.close)
    assert client.counts.recorded == 20


def test_a_full_queue_drops_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    client = Client(NOBODY, queue_max=5)
    for _ in range(12):
        client.report("0" * 32, reward=1.0)
    assert client.counts.dropped == 7
    client.close(timeout_seconds=0.01)
    assert client.counts.dropped == 12
    client.report("0" * 32, reward=1.0)
    assert client.counts.dropped == 13
    assert sum("are waiting already" in each.message for each in caplog.records) == 1


async def test_what_the_server_refuses_is_counted_and_keeps_nothing_else_back(
    server: Running, caplog: pytest.LogCaptureFixture
) -> None:
    with Client(server.target, timeout_seconds=PATIENCE_SECONDS) as client:
        decision = await in_thread(client.route, "question")
        client.report("0" * 32, reward=1.0)
        bad: list[Any] = [{"reward": 7.0}, {"reward": "good"}, {"error": "TIRED"}, {"rewrad": 1.0}]
        for options in bad:
            client.report(decision.decision_id, **options)
        decision.report(reward=0.5)
        assert await in_thread(client.flush)
        assert (client.counts.recorded, client.counts.refused) == (1, 5)
    assert any("DECISION_NOT_FOUND" in each.message for each in caplog.records)


async def test_keys_and_tls_come_from_the_environment(
    url: str, featuriser: Featuriser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path / "ca")
    certificate, private = authority.issue()
    key = add_key(url)
    async with running_app(url, featuriser, tls_certificate=certificate, tls_key=private) as running:
        monkeypatch.setenv("POINTSMAN_TARGET", running.target)
        monkeypatch.setenv("POINTSMAN_CA", str(authority.ca))
        monkeypatch.setenv("POINTSMAN_API_KEY", key)
        with Client(timeout_seconds=PATIENCE_SECONDS) as client, pytest.raises(RouteError) as let_in:
            await in_thread(client.route, "question")
        async with AsyncClient(timeout_seconds=PATIENCE_SECONDS) as aclient:
            with pytest.raises(RouteError) as let_in_too:
                await aclient.route("question")
            aclient.report("0" * 32, reward=1.0)
            assert await aclient.flush()
            assert aclient.counts.refused == 1
        monkeypatch.delenv("POINTSMAN_API_KEY")
        with Client(default_model="cheap", timeout_seconds=PATIENCE_SECONDS) as client:
            keyless = await in_thread(client.route, "question")
    assert let_in.value.reason == let_in_too.value.reason == "NO_ELIGIBLE_MODEL"
    assert keyless.problem.code is grpc.StatusCode.UNAUTHENTICATED
    assert key not in repr(Connection.from_environment(environment={"POINTSMAN_API_KEY": key}))


@pytest.mark.parametrize("target", ["127.0.0.1:50051", "[::1]:50051", "localhost:50051", "unix:/tmp/socket"])
def test_a_key_is_sent_in_the_clear_to_this_machine(target: str) -> None:
    assert Connection(target, api_key="pmk").metadata == (("authorization", "Bearer pmk"),)


@pytest.mark.parametrize("target", ["pointsman.example.com:50051", "10.0.0.1:50051", "dns:///example.com:50051"])
def test_a_key_is_not_sent_in_the_clear_elsewhere(target: str) -> None:
    with pytest.raises(ValueError, match="could be read on its way"):
        Connection(target, api_key="pmk")
    assert Connection(target, api_key="pmk", tls=True).secure
    assert not Connection(target, api_key="pmk", tls_ends_elsewhere=True).secure


def test_a_setting_that_will_not_do_is_named() -> None:
    for name in ("timeout_seconds", "queue_max"):
        with pytest.raises(ValueError, match=name):
            Client(NOBODY, **{name: -1})  # type: ignore[arg-type]


async def test_a_program_that_ends_without_closing_has_sent_its_reports(server: Running) -> None:
    program = f"""
        from pointsman.client import Client
        client = Client({server.target!r}, linger_seconds=60.0, timeout_seconds=20.0)
        with client.route("question") as decision:
            decision.record(reward=0.5)
        print(decision.decision_id)
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    done = await in_thread(subprocess.run, command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    request = pb.GetDecisionRequest(decision_id=done.stdout.strip())
    (report,) = (await server.router.GetDecision(request)).decision.reports
    assert report.report.reward == 0.5


def test_the_client_loads_nothing_but_grpc_and_protobuf() -> None:
    program = """
        import sys
        before = set(sys.modules)
        import pointsman.client
        print(*{name.split(".")[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names))
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    # gRPC looks for its own other packages by itself.
    others = {each for each in done.stdout.split() if not each.startswith(("grpc", "_cython", "cython"))}
    assert others - {"typing_extensions"} == {"pointsman", "google"}


def test_the_clients_own_package_asks_for_what_the_servers_does() -> None:
    root = Path(__file__).parents[1]
    own, whole = (
        tomllib.loads((root / folder / "pyproject.toml").read_text())["project"] for folder in ("proto", ".")
    )
    assert set(own["dependencies"]) < set(whole["dependencies"])
    assert own["version"] == whole["version"]
