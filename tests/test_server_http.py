"""JSON over HTTP: the same services, called and answered in JSON."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import socket
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from connectrpc.client import ConnectClient
from connectrpc.code import Code
from connectrpc.compat import google_protobuf_json_codec
from connectrpc.errors import ConnectError
from connectrpc.method import IdempotencyLevel, MethodInfo, StreamType
from google.rpc import error_details_pb2
from http_calls import HEALTH, ROUTE, free_port, post, serving, serving_models
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from locks import add_key
from pointsman.v1 import policy_service_pb2 as policy_pb
from pointsman.v1 import registry_service_pb2 as registry_pb
from pointsman.v1 import router_service_pb2 as pb
from servers import serving_process

from policy.domain import InvalidFieldError
from policy.features import Featuriser
from server.http.connect import methods_of, timeout_seconds, to_proto
from server.http.door import HttpDoor
from server.services.access import METHODS
from server.settings import Settings

REPORT = "/pointsman.v1.RouterService/ReportReward"
DOCS = Path(__file__).parents[1] / "docs" / "http.md"
SERVICES = [each for file in (pb, registry_pb, policy_pb) for each in file.DESCRIPTOR.services_by_name.values()]


@pytest.fixture
async def port(url: str, featuriser: Featuriser) -> AsyncIterator[int]:
    async with serving_models(url, featuriser) as found:
        yield found


async def test_a_decision_is_asked_for_rewarded_and_read_in_json(url: str, featuriser: Featuriser) -> None:
    async with serving(url, featuriser) as (running, port):
        await running.create_models(small={}, large={})
        routed = await post(port, ROUTE, {"prompt": "What is 2 + 2?", "requestId": "one"})
        decision_id = routed.body["decisionId"]
        reported = await post(port, REPORT, {"decision_id": decision_id, "reward": 0.5})
        by_grpc = (await running.router.GetDecision(pb.GetDecisionRequest(decision_id=decision_id))).decision
    assert (routed.status, reported.status) == (200, 200)
    assert reported.body == {"disposition": "DISPOSITION_RECORDED"}
    assert (by_grpc.model, by_grpc.probability) == (routed.body["model"], routed.body["probability"])
    assert by_grpc.reward == 0.5


async def test_every_method_of_the_services_is_served_or_said_to_stream(port: int) -> None:
    for path, method in methods_of(SERVICES).items():
        answer = await post(port, path)
        assert "there is nothing at" not in json.dumps(answer.body), path
        assert (answer.status == 501) == method.streams, path
    assert set(METHODS) - {"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"} == set(
        methods_of(SERVICES)
    )


async def test_health_is_told_without_a_key(url: str, featuriser: Featuriser) -> None:
    add_key(url)
    async with serving(url, featuriser) as (running, port):
        await running.health_is(1)
        assert (await post(port, HEALTH)).body == {"status": "SERVING"}
        assert (await post(port, HEALTH, {"service": "nonsense"})).status == 404


async def test_the_official_client_understands_answers_and_errors_with_their_details(port: int) -> None:
    route: MethodInfo[Any, Any] = MethodInfo(
        name="Route",
        service_name="pointsman.v1.RouterService",
        input=pb.RouteRequest,
        output=pb.RouteResponse,
        idempotency_level=IdempotencyLevel.UNKNOWN,
        stream_type=StreamType.UNARY,
    )
    async with ConnectClient(
        f"http://127.0.0.1:{port}",
        codec=google_protobuf_json_codec(),
        accept_compression=[],
        send_compression=None,
    ) as client:
        answer = await client.execute_unary(
            request=pb.RouteRequest(prompt="Hello"), method=route, timeout_ms=20_000
        )
        assert answer.model in {"small", "large"}
        with pytest.raises(ConnectError) as caught:
            await client.execute_unary(request=pb.RouteRequest(router="routers/none"), method=route)
    assert caught.value.code is Code.NOT_FOUND
    info = error_details_pb2.ErrorInfo.FromString(caught.value.details[0].message_bytes)
    assert (caught.value.details[0].type_name, info.reason) == ("google.rpc.ErrorInfo", "ROUTER_NOT_FOUND")


@pytest.mark.parametrize(
    ("body", "field", "told"),
    [
        ({"promt": "x"}, "promt", "there are router, requestId, prompt"),
        ({"router": 3}, "router", "expected string"),
        ({"inputTokens": "many"}, "inputTokens", "parse"),
        ({"inputTokens": -1}, "input_tokens", "0"),
        (b"", "request", "{} at least"),
        (b"{", "request", "JSON"),
        (b"[]", "request", "JSON"),
        (b"7", "request", "JSON"),
        (b'{"prompt": "\xff\xfe"}', "request", "UTF-8"),
        (b'{"prompt": "\\ud800"}', "prompt", ""),
        (b"[" * 100_000, "request", ""),
    ],
)
async def test_a_bad_request_is_answered_with_the_field_at_fault(
    port: int, body: Any, field: str, told: str
) -> None:
    answer = await post(port, ROUTE, body)
    assert (answer.status, answer.body["code"], answer.reason) == (400, "invalid_argument", "INVALID_FIELD")
    (violation,) = answer.body["details"][1]["debug"]["fieldViolations"]
    assert violation["field"] == field
    assert told in violation["description"]


@hypothesis_settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    st.binary(max_size=200)
    | st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["prompt", "constraints", "embedding", "maxLatency"]), inner, max_size=3
            )
        ),
        max_leaves=8,
    ).map(lambda value: json.dumps(value).encode())
)
def test_whatever_is_sent_is_a_message_or_a_bad_field(body: bytes) -> None:
    method = methods_of(SERVICES)[ROUTE]
    try:
        pb.RouteRequest.FromString(to_proto(method, body))
    except InvalidFieldError as refusal:
        assert refusal.message


async def test_a_body_larger_than_a_message_may_be_is_refused(url: str, featuriser: Featuriser) -> None:
    async with serving(url, featuriser, message_bytes_max=1 << 16) as (_, port):
        answer = await post(port, ROUTE, {"prompt": "x" * (1 << 16)})
    assert (answer.status, answer.body["message"]) == (
        400,
        "request: is larger than the 65536 bytes that are taken",
    )


async def test_a_long_prompt_is_read_beside_the_loop_and_answered(port: int) -> None:
    assert (await post(port, ROUTE, {"prompt": "word " * 50_000})).status == 200


@pytest.mark.parametrize("text", ["-1", "1.5", "soon", "12345678901", " 5"])
def test_a_deadline_is_a_whole_number_of_ten_digits(text: str) -> None:
    with pytest.raises(InvalidFieldError) as caught:
        timeout_seconds(text)
    assert caught.value.field == "connect-timeout-ms"


class _Stuck:
    """A handler that never answers, and knows whether it was cancelled and how long it had."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.left: float | None = None

    async def __call__(self, _: Any, request: Any, context: Any) -> Any:
        self.left = context.time_remaining()
        self.entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()


@pytest.fixture
def stuck(monkeypatch: pytest.MonkeyPatch) -> _Stuck:
    found = _Stuck()

    async def handler(self: Any, request: Any, context: Any) -> Any:
        return await found(self, request, context)

    monkeypatch.setattr("server.services.router_service.RouterService.Route", handler)
    return found


async def test_a_deadline_reaches_the_handler_and_ends_the_call(
    stuck: _Stuck, url: str, featuriser: Featuriser
) -> None:
    async with serving(url, featuriser) as (_, port):
        answer = await post(port, ROUTE, connect_timeout_ms="300")
        assert (answer.status, answer.body["code"]) == (504, "deadline_exceeded")
        assert stuck.left is not None
        assert 0.0 < stuck.left <= 0.3
        await asyncio.wait_for(stuck.cancelled.wait(), 60)


async def test_a_client_that_hangs_up_cancels_its_call(stuck: _Stuck, url: str, featuriser: Featuriser) -> None:
    async with serving(url, featuriser) as (_, port):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            f"POST {ROUTE} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
            "content-length: 2\r\n\r\n{}".encode()
        )
        await asyncio.wait_for(stuck.entered.wait(), 60)
        writer.close()
        await asyncio.wait_for(stuck.cancelled.wait(), 60)


async def test_what_waits_when_the_server_stops_is_given_its_grace_and_no_more(
    stuck: _Stuck, url: str, featuriser: Featuriser
) -> None:
    async with serving(url, featuriser, grace_seconds=0.2) as (_, port):
        asking = asyncio.create_task(post(port, ROUTE))
        await asyncio.wait_for(stuck.entered.wait(), 60)
    assert stuck.cancelled.is_set()
    assert (await asking).status in {499, 503}


def test_a_port_that_was_asked_for_and_is_taken_is_an_error(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = str(taken.getsockname()[1])
        arguments = ("--database-url", f"sqlite:///{tmp_path}/x.db", "--http-port", number)
        with (
            pytest.raises(AssertionError, match=f"cannot listen for HTTP on 127.0.0.1:{number}"),
            serving_process(*arguments),
        ):
            pass


def shape(value: Any) -> Any:
    """What of an answer is the same in each run: names, texts, and kinds of values."""
    if isinstance(value, dict):
        return {key: shape(each) for key, each in sorted(value.items())}
    if isinstance(value, list):
        return [shape(each) for each in value]
    if isinstance(value, str):
        return re.sub(r"[0-9a-f]{32}|[0-9]+", "0", value)
    return type(value).__name__ if isinstance(value, float | int) else value


def test_what_the_page_on_http_shows_is_what_curl_gets(tmp_path: Path) -> None:
    environment = {"POINTSMAN_HTTP_PORT": free_port()}
    shown = re.findall(r"^\$ (curl .*)\n(\{.*)$", DOCS.read_text(), re.MULTILINE)
    assert len(shown) >= 6
    decision = ""
    with serving_process("--database-url", f"sqlite:///{tmp_path}/x.db", **environment):
        for command, expected in shown:
            ready = command.replace(":50080", f":{environment['POINTSMAN_HTTP_PORT']}").replace(
                "DECISION", decision
            )
            answer = json.loads(subprocess.run(["bash", "-c", ready], capture_output=True, check=True).stdout)
            decision = answer.get("decisionId", decision)
            if os.environ.get("POINTSMAN_SHOW_ANSWERS"):
                print(json.dumps(answer, ensure_ascii=False, separators=(",", ":")))
            else:
                assert shape(answer) == shape(json.loads(expected)), command


def test_a_connection_sends_an_answers_body_without_waiting_for_the_clients_word() -> None:
    nobody: Any = None
    listening = HttpDoor(Settings(http_port=0), nobody, ())._listen()
    assert listening is not None
    with listening, socket.create_connection(listening.getsockname()[:2]):
        taken, _ = listening.accept()
        with taken:
            assert taken.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0


def test_details_are_the_bytes_that_grpc_sends() -> None:
    shown = re.search(r'"type":"google.rpc.ErrorInfo","value":"([^"]+)"', DOCS.read_text())
    assert shown is not None
    packed = shown.group(1)
    info = error_details_pb2.ErrorInfo.FromString(base64.b64decode(packed + "=" * (-len(packed) % 4)))
    assert (info.reason, info.domain) == ("INVALID_FIELD", "pointsman")
