"""The log as JSON: what a real server writes to stderr, and what is not in it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from collector import running_collector
from grpc_health.v1 import health_pb2
from locks import add_key, bearer
from pointsman.v1 import registry_service_pb2 as registry_pb
from pointsman.v1 import router_service_pb2 as pb
from pointsman.v1.registry_service_pb2_grpc import RegistryServiceStub
from pointsman.v1.router_service_pb2_grpc import RouterServiceStub
from servers import POINTSMAN, Running, refusal

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = ("traceparent", f"00-{TRACE}-b7ad6b7169203331-01")
SECRET = "correct horse battery staple"


@dataclass
class Logged:
    """A server in a process of its own, and what it has written to stderr by the time that it has ended."""

    port: int
    process: asyncio.subprocess.Process
    lines: list[str] = field(default_factory=list)

    @property
    def records(self) -> list[dict[str, Any]]:
        return [json.loads(each) for each in self.lines]

    def about(self, **known: Any) -> list[dict[str, Any]]:
        """The lines of which this is known."""
        return [each for each in self.records if known.items() <= each.items()]


@asynccontextmanager
async def logging_server(url: str, **environment: str) -> AsyncIterator[Logged]:
    """Stopped as an operator does at the end of the block."""
    process = await asyncio.create_subprocess_exec(
        *(str(POINTSMAN), "serve", "--port", "0", "--database-url", url),
        env={**os.environ, "POINTSMAN_LOG_LEVEL": "DEBUG", "POINTSMAN_HTTP_PORT": "0", **environment},
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    logged = Logged(0, process)
    try:
        async for line in process.stderr:
            logged.lines.append(line.decode())
            found = re.search(r"listens on [^ ]*:(\d+)", logged.lines[-1])
            if found:
                logged.port = int(found.group(1))
                break
        assert logged.port, f"the server did not start: {logged.lines}"
        yield logged
        process.send_signal(signal.SIGTERM)
        logged.lines += (await process.stderr.read()).decode().splitlines()
        assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "pointsman.db"


async def test_every_line_is_an_object_that_says_whose_call_it_is_about_and_nothing_of_what_is_in_it(
    file: Path,
) -> None:
    key = add_key(f"sqlite:///{file}")
    metadata = [*bearer(key), PARENT]
    began = datetime.now(UTC)
    async with (
        # As in a container: some libraries complain where there is no home to write to.
        logging_server(f"sqlite:///{file}", POINTSMAN_LOG_FORMAT="json", HOME="/dev/null") as logged,
        grpc.aio.insecure_channel(f"127.0.0.1:{logged.port}") as channel,
    ):
        router = RouterServiceStub(channel)
        model = registry_pb.CreateModelRequest(model_id="only", model=registry_pb.Model())
        await RegistryServiceStub(channel).CreateModel(model, metadata=metadata)
        request = pb.RouteRequest(prompt=SECRET, categorical_features={SECRET: SECRET})
        decision = await router.Route(request, metadata=metadata)
        assert (await refusal(router.Route(request, metadata=[PARENT]))).reason == "KEY_MISSING"
        with sqlite3.connect(file) as connection:
            connection.execute("UPDATE decisions SET details = '{'")
        ask = pb.GetDecisionRequest(decision_id=decision.decision_id)
        assert (await refusal(router.GetDecision(ask, metadata=metadata))).reason == "INTERNAL"
        report = pb.ReportRewardRequest(decision_id=decision.decision_id, reward=1.0)
        await router.ReportReward(report, metadata=metadata)

    for each in logged.records:
        assert set(each) >= {"time", "level", "logger", "message"}
        assert began - timedelta(seconds=1) <= datetime.fromisoformat(each["time"]) <= datetime.now(UTC)
    assert any(each["message"].startswith("Pointsman listens on") for each in logged.records)
    of_call = {"router": "default", "trace_id": TRACE}
    (routed,) = logged.about(method="Route", code="OK", model="only", **of_call)
    assert routed["decision_id"] == decision.decision_id
    assert routed["seconds"] > 0
    assert logged.about(method="Route", code="UNAUTHENTICATED", trace_id=TRACE)
    failed = logged.about(method="GetDecision", decision_id=decision.decision_id, trace_id=TRACE)
    assert [each["level"] for each in failed] == ["ERROR", "DEBUG"]
    assert "Traceback" in failed[0]["exception"]
    assert logged.about(method="ReportReward", decision_id=decision.decision_id, trace_id=TRACE)
    for line in logged.lines:
        assert SECRET not in line
        assert key.rpartition("_")[2] not in line


async def test_a_traced_call_is_named_by_its_trace_though_its_caller_has_none(file: Path) -> None:
    async with (
        running_collector() as collector,
        logging_server(
            f"sqlite:///{file}", POINTSMAN_LOG_FORMAT="json", OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint
        ) as logged,
        grpc.aio.insecure_channel(f"127.0.0.1:{logged.port}") as channel,
    ):
        await refusal(RouterServiceStub(channel).Route(pb.RouteRequest()))

    (call,) = collector.called("Route")
    assert len(logged.about(method="Route", code="FAILED_PRECONDITION", trace_id=call.trace_id.hex())) == 1


async def test_text_has_what_is_known_at_the_end_of_a_line(file: Path) -> None:
    async with (
        logging_server(f"sqlite:///{file}") as logged,
        grpc.aio.insecure_channel(f"127.0.0.1:{logged.port}") as channel,
    ):
        router = RouterServiceStub(channel)
        forged = pb.GetDecisionRequest(decision_id="none\n2026-11-25 ERROR all is lost")
        await refusal(router.GetDecision(forged, metadata=[PARENT]))
        await refusal(router.Route(pb.RouteRequest(router="routers/none"), metadata=[PARENT]))

    lines = [each for each in logged.lines if "call_meter" in each]
    assert [re.sub(r"^.{23} | seconds=[0-9.e-]+$", "", each) for each in lines] == [
        f"DEBUG server.services.call_meter: GetDecision ends with NOT_FOUND trace_id={TRACE}",
        f"DEBUG server.services.call_meter: Route ends with NOT_FOUND router=none trace_id={TRACE}",
    ]
    assert not any("all is lost" in each for each in logged.lines)


@pytest.mark.parametrize("form", ["text", "json"])
async def test_lines_of_the_learners_process_say_whose_they_are_and_none_says_again_who_is_served(
    file: Path, form: str
) -> None:
    url = f"sqlite:///{file}"
    given = {"POINTSMAN_LEARNER_PROCESS": "true", "POINTSMAN_LOG_LEVEL": "INFO", "POINTSMAN_LOG_FORMAT": form}
    async with (
        logging_server(url, **given) as logged,
        grpc.aio.insecure_channel(f"127.0.0.1:{logged.port}") as channel,
    ):
        server = Running(url, f"127.0.0.1:{logged.port}", channel)
        await server.create_models(only={})
        await server.health_is(health_pb2.HealthCheckResponse.SERVING, "pointsman.v1.learner")

    def whose(line: str) -> str:
        if form == "json":
            return str(json.loads(line).get("role", ""))
        return "learner" if line.rstrip().endswith(" role=learner") else ""

    said = [(whose(each), each) for each in logged.lines]
    assert next(whose for whose, line in said if "this server learns" in line) == "learner"
    assert [whose for whose, line in said if "there are no keys" in line] == [""]
    assert [whose for whose, line in said if "listens on" in line] == [""]


@pytest.mark.parametrize("form", ["text", "json"])
def test_why_a_learners_process_does_not_start_says_whose_it_is(tmp_path: Path, form: str) -> None:
    (tmp_path / "p.db").write_text("not a database " * 100)
    ended = subprocess.run(
        [str(POINTSMAN), "serve", "--role", "learner", "--port", "0", "--until-input-ends"],
        cwd=tmp_path,
        env={**os.environ, "POINTSMAN_DATABASE_URL": "sqlite:///p.db", "POINTSMAN_LOG_FORMAT": form},
        input="",
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ended.returncode == 2
    line = ended.stderr.splitlines()[-1]
    assert "not a database" in line
    assert json.loads(line)["role"] == "learner" if form == "json" else line.endswith(" role=learner")


@pytest.mark.parametrize("form", ["text", "json"])
def test_why_a_server_does_not_start_is_a_line_of_its_log(tmp_path: Path, form: str) -> None:
    (tmp_path / "models.yaml").write_text("routers: {default: {mood: good}}")
    command = [str(POINTSMAN), "serve", "--config", "models.yaml"]
    ended = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, "POINTSMAN_LOG_FORMAT": form},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    record = json.loads(line) if form == "json" else {"message": line, "level": "ERROR"}
    assert record["message"].startswith("pointsman: ")
    assert "mood" in record["message"]
    assert record["level"] == "ERROR"


def test_the_gateways_log_is_json_too(tmp_path: Path) -> None:
    ended = subprocess.run(
        [str(POINTSMAN), "gateway", "--port", "0", "--config", "none.yaml"],
        cwd=tmp_path,
        env={**os.environ, "POINTSMAN_GATEWAY_LOG_FORMAT": "json"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert ended.returncode == 2
    (record,) = map(json.loads, ended.stderr.splitlines())
    assert record["message"].startswith("pointsman: ")
    assert "none.yaml" in record["message"]


def test_what_python_itself_would_write_is_a_line_too(tmp_path: Path) -> None:
    code = (
        "import threading, warnings; from server.logs import *; set_up_logs('INFO', LogFormat.JSON);"
        "warnings.warn('old'); thread = threading.Thread(target=lambda: 1 / 0); thread.start(); thread.join();"
        "raise ValueError('odd')"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    records = [json.loads(each) for each in ended.stderr.splitlines()]
    assert [each["level"] for each in records] == ["WARNING", "CRITICAL", "CRITICAL"]
    assert "old" in records[0]["message"]
    assert "ZeroDivisionError" in records[1]["exception"]
    assert "odd" in records[2]["exception"]
