"""Traces: what a collector is sent of real calls by gRPC, by HTTP and through the gateway."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import grpc
import pytest
from collector import Collector, attributes, running_collector, trace_to
from http_calls import ROUTE, post
from locks import add_key, bearer
from opentelemetry.proto.trace.v1.trace_pb2 import Status
from pointsman.v1 import registry_service_pb2 as registry_pb
from pointsman.v1 import router_service_pb2 as pb
from servers import NOT_STORED, POINTSMAN, Running, prices, refusal, running_app, storing_no_decisions
from standins import running_gateway, running_standin

from policy.domain import InvalidFieldError
from policy.features import Featuriser
from server.tracing import spans
from server.tracing.asked import Untraced, open_tracing

TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER = "b7ad6b7169203331"
PARENT = ("traceparent", f"00-{TRACE}-{CALLER}-01")
SECRET = "correct horse battery staple"


@pytest.fixture
async def collector(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Collector]:
    """A collector that the servers of the test send to; it has everything once they have stopped."""
    async with running_collector() as found:
        trace_to(found.endpoint, monkeypatch)
        yield found


async def test_the_trace_of_a_decision_goes_on_from_the_callers_and_shows_its_stages(
    collector: Collector, url: str, featuriser: Featuriser
) -> None:
    async with running_app(url, featuriser) as running:
        await running.create_models(small={}, large={})
        request = pb.RouteRequest(prompt="Why is the sky blue?", session_id="ann")
        decision = await running.router.Route(request, metadata=[PARENT])

    (call,) = collector.called("Route")
    assert (call.trace_id.hex(), call.parent_span_id.hex()) == (TRACE, CALLER)
    found = attributes(call)
    assert found["pointsman.router"] == "default"
    assert found["pointsman.decision_id"] == decision.decision_id
    assert found["pointsman.model"] == decision.model
    assert found["pointsman.probability"] == decision.probability
    assert str(found["pointsman.snapshot"]) == decision.snapshot
    assert found["pointsman.logged"] is True
    stages = collector.below(call)
    assert [each.name for each in stages] == ["session", "store"]
    # Decided is when the transaction begins that the decision is stored in.
    inner = collector.below(stages[1])
    assert [each.name for each in inner] == ["featurise", "decide"]
    assert {each.trace_id for each in (*stages, *inner)} == {call.trace_id}
    for outer, parts in ((call, stages), (stages[1], inner)):
        for before, after in pairwise(parts):
            assert before.end_time_unix_nano <= after.start_time_unix_nano
        assert outer.start_time_unix_nano <= parts[0].start_time_unix_nano
        assert parts[-1].end_time_unix_nano <= outer.end_time_unix_nano
    assert collector.resource["service.name"] == "pointsman"


async def test_every_call_but_health_checks_is_a_trace_of_its_own_if_the_caller_has_none(
    collector: Collector, url: str, featuriser: Featuriser
) -> None:
    async with running_app(url, featuriser) as running:
        await running.create_models(only={})
        decision = await running.route()
        await running.report(decision, reward=1.0)
        two = [pb.ReportRewardRequest(decision_id=decision.decision_id, report_id=each) for each in "ab"]
        for each in two:
            each.signals["thumbs_up"] = 1.0
        await running.router.BatchReportRewards(pb.BatchReportRewardsRequest(requests=two))
        await running.health_is(1)

    assert [each.name.rpartition("/")[2] for each in collector.spans if not each.parent_span_id] == [
        *("CreateModel", "Route", "ReportReward", "BatchReportRewards"),
    ]
    assert len({each.trace_id for each in collector.spans}) == 4
    (report,) = collector.called("ReportReward")
    assert attributes(report)["pointsman.decision_id"] == decision.decision_id
    assert attributes(report)["pointsman.disposition"] == "recorded"
    (batch,) = collector.called("BatchReportRewards")
    assert attributes(batch)["pointsman.reports"] == 2
    assert "pointsman.decision_id" not in attributes(batch)


async def test_neither_prompts_nor_features_nor_keys_are_in_a_span_even_of_a_call_that_fails(
    collector: Collector, url: str, featuriser: Featuriser, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = add_key(url)
    mine = bearer(key)
    request = pb.RouteRequest(prompt=SECRET, categorical_features={SECRET: SECRET}, request_id="one")
    async with running_app(url, featuriser) as running:
        assert (await refusal(running.router.Route(request, metadata=mine))).reason == "NO_ELIGIBLE_MODEL"
        model = registry_pb.CreateModelRequest(model_id="only", model=registry_pb.Model(prices=prices(1.0)))
        await running.registry.CreateModel(model, metadata=mine)
        with storing_no_decisions(running, monkeypatch):
            assert (await refusal(running.router.Route(request, metadata=mine))).reason == NOT_STORED
        assert (await refusal(running.router.Route(request))).reason == "KEY_MISSING"
        await running.router.Route(request, metadata=mine)

    none, failed, refused, decided = collector.called("Route")
    assert [each.name for each in collector.below(none)] == ["store", "earlier_decision"]
    assert [each.name for each in collector.below(failed)] == ["store"]
    assert failed.status.code == Status.STATUS_CODE_ERROR
    store = collector.below(failed)[-1]
    assert (store.status.code, store.status.message) == (Status.STATUS_CODE_ERROR, "StorageUnavailableError")
    assert attributes(refused)["rpc.grpc.status_code"] == grpc.StatusCode.UNAUTHENTICATED.value[0]
    assert [each.name for each in collector.below(collector.below(decided)[0])] == ["featurise", "decide"]
    everything = b"".join(each.SerializeToString() for each in collector.sent)
    assert b"pointsman.decision_id" in everything
    for text in (SECRET, key, key.partition("_")[2], "Traceback"):
        assert text.encode() not in everything


def hang_writes(running: Running, monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Lets no write end; the event says that one has begun."""
    stuck = asyncio.Event()

    async def hang(*_: object) -> None:
        stuck.set()
        await asyncio.Event().wait()

    assert running.app is not None
    monkeypatch.setattr(running.app._log, "submit", hang)
    return stuck


@pytest.mark.parametrize(
    ("seconds", "code"), [(0.3, grpc.StatusCode.DEADLINE_EXCEEDED), (None, grpc.StatusCode.CANCELLED)]
)
async def test_a_call_that_its_caller_gave_up_shows_so_and_the_stage_it_was_in(
    collector: Collector,
    url: str,
    featuriser: Featuriser,
    monkeypatch: pytest.MonkeyPatch,
    seconds: float | None,
    code: grpc.StatusCode,
) -> None:
    async with running_app(url, featuriser) as running:
        await running.create_models(only={})
        stuck = hang_writes(running, monkeypatch)
        call = running.router.Route(pb.RouteRequest(), timeout=seconds)
        await stuck.wait()
        if seconds is None:
            call.cancel()
        with pytest.raises((grpc.aio.AioRpcError, asyncio.CancelledError)):
            await call
        monkeypatch.undo()

    (span,) = collector.called("Route")
    assert attributes(span)["rpc.grpc.status_code"] == code.value[0]
    assert span.status.code == Status.STATUS_CODE_ERROR
    store = collector.below(span)[-1]
    assert (store.name, store.status.message) == ("store", "CancelledError")


async def test_a_report_that_its_caller_gave_up_shows_so_too(
    collector: Collector, url: str, featuriser: Featuriser, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_app(url, featuriser) as running:
        await running.create_models(only={})
        decision = await running.route()
        stuck = hang_writes(running, monkeypatch)
        call = running.router.ReportReward(pb.ReportRewardRequest(decision_id=decision.decision_id, reward=1.0))
        await stuck.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        monkeypatch.undo()

    (span,) = collector.called("ReportReward")
    assert attributes(span)["rpc.grpc.status_code"] == grpc.StatusCode.CANCELLED.value[0]
    assert span.status.code == Status.STATUS_CODE_ERROR


async def test_a_call_over_http_goes_on_with_the_trace_of_its_caller(
    collector: Collector, url: str, featuriser: Featuriser
) -> None:
    async with running_app(url, featuriser, http_port=0) as running:
        assert running.app is not None
        await running.create_models(only={})
        port = running.app.http_port
        answer = await post(port, ROUTE, {"prompt": "Hello"}, **dict([PARENT]))
        damaged = await post(port, ROUTE, {"prompt": "Hello"}, traceparent="\xe9", tracestate="x" * 600)

    assert (answer.status, damaged.status) == (200, 200)
    call, other = collector.called("Route")
    assert (call.trace_id.hex(), call.parent_span_id.hex()) == (TRACE, CALLER)
    assert attributes(call)["pointsman.decision_id"] == answer.body["decisionId"]
    assert not other.parent_span_id


@pytest.mark.filterwarnings("ignore:.*ReadOnly:UserWarning")
@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_a_decision_for_the_gateway_is_in_the_trace_of_who_asked_the_gateway(
    collector: Collector, url: str, featuriser: Featuriser, tmp_path: Path
) -> None:
    async with running_app(url, featuriser) as running:
        await running.create_models(small={}, large={})
        async with running_standin() as provider, running_gateway(running, provider, tmp_path) as gate:
            port = int(gate.url.rpartition(":")[2])
            question = {"model": "pointsman", "messages": [{"role": "user", "content": "Hello"}]}
            answer = await post(port, "/v1/chat/completions", question, **dict([PARENT]))
            await post(port, "/v1/chat/completions", question)

    assert answer.status == 200
    call, other = collector.called("Route")
    assert (call.trace_id.hex(), call.parent_span_id.hex()) == (TRACE, CALLER)
    assert other.trace_id != call.trace_id


async def test_a_collector_that_is_away_holds_up_neither_answers_nor_the_end(
    url: str, featuriser: Featuriser, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with running_collector() as gone:
        endpoint = gone.endpoint
    trace_to(endpoint, monkeypatch, {"OTEL_EXPORTER_OTLP_TIMEOUT": "3600"})
    monkeypatch.setattr(spans, "_SEND_SECONDS_MAX", 0.1)
    async with running_app(url, featuriser) as running:
        await running.create_models(only={})
        assert (await running.route()).model == "only"
    assert "UNAVAILABLE" in caplog.text


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"OTEL_SERVICE_NAME": "pointsman"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317", "OTEL_SDK_DISABLED": "true"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317", "OTEL_TRACES_EXPORTER": "none"},
    ],
)
def test_whoever_asks_for_no_traces_has_none(environment: dict[str, str]) -> None:
    assert isinstance(open_tracing(environment), Untraced)


def test_a_server_without_traces_does_not_even_load_what_makes_them() -> None:
    code = (
        "import sys, server.app, server.tracing.asked as asked; asked.open_tracing({});"
        "sys.exit(any(each.startswith('opentelemetry') for each in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER: must be otlp or none, not zipkin"),
        (
            {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"},
            "OTEL_EXPORTER_OTLP_PROTOCOL: must be grpc, which OTLP is sent by, not http/protobuf",
        ),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_BSP_MAX_QUEUE_SIZE": "-1"},
            "OTEL_EXPORTER_OTLP_ENDPOINT: asks for traces, which cannot be made: max_queue_size must be",
        ),
    ],
)
def test_a_server_that_cannot_trace_as_it_is_asked_to_does_not_start(
    tmp_path: Path, environment: dict[str, str], told: str
) -> None:
    command = [str(POINTSMAN), "serve", "--port", "0", "--database-url", f"sqlite:///{tmp_path}/pointsman.db"]
    ended = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, check=False, timeout=60
    )
    assert ended.returncode == 2
    assert told in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def test_without_the_extra_the_refusal_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "server.tracing.spans")
    monkeypatch.setitem(sys.modules, "opentelemetry.instrumentation.grpc", None)
    with pytest.raises(InvalidFieldError, match=r"pip install 'pointsman\[tracing\]'") as caught:
        open_tracing({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317"})
    assert caught.value.field == "OTEL_EXPORTER_OTLP_ENDPOINT"
