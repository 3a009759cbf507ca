"""JSON over HTTP: the same services behind the same doors, and no other site's page gets in."""

from __future__ import annotations

import asyncio
import base64
import http.client
import json
import os
import re
import socket
import ssl
import stat
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from connectrpc.client import ConnectClient
from connectrpc.code import Code
from connectrpc.compat import google_protobuf_json_codec
from connectrpc.errors import ConnectError
from connectrpc.method import IdempotencyLevel, MethodInfo, StreamType
from google.rpc import error_details_pb2
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from locks import Authority, add_key
from pointsman.v1 import policy_service_pb2 as policy_pb
from pointsman.v1 import registry_service_pb2 as registry_pb
from pointsman.v1 import router_service_pb2 as pb
from servers import Running, eventually, running_app, serving_process

from policy.domain import InvalidFieldError
from policy.features import Featuriser
from server.http.connect import methods_of, timeout_seconds, to_proto
from server.http.door import HttpDoor
from server.keys import Scope
from server.services.access import METHODS
from server.settings import Settings

ROUTE = "/pointsman.v1.RouterService/Route"
REPORT = "/pointsman.v1.RouterService/ReportReward"
HEALTH = "/grpc.health.v1.Health/Check"
DOCS = Path(__file__).parents[1] / "docs" / "http.md"
SERVICES = [each for file in (pb, registry_pb, policy_pb) for each in file.DESCRIPTOR.services_by_name.values()]


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: Any

    @property
    def reason(self) -> str:
        """The reason of the ErrorInfo."""
        return str(self.body["details"][0]["debug"]["reason"])


async def post(
    port: int, path: str, body: Any = None, method: str = "POST", tls: ssl.SSLContext | None = None, **headers: str
) -> Answer:
    """Sends JSON, or bytes as they are; an underscore in a header's name is a dash."""
    sent = body if isinstance(body, bytes) else json.dumps(body or {}).encode()
    given = {
        "content-type": "application/json",
        **{key.replace("_", "-"): value for key, value in headers.items()},
    }

    def ask() -> Answer:
        connection: http.client.HTTPConnection = (
            http.client.HTTPSConnection("localhost", port, timeout=60, context=tls)
            if tls
            else http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        )
        try:
            connection.request(method, path, sent, given)
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, json.loads(answer.read()))
        finally:
            connection.close()

    return await asyncio.to_thread(ask)


async def fetch(port: int, path: str, method: str = "GET", **headers: str) -> Answer:
    """Reads a file; an underscore in a header's name is a dash."""

    def ask() -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            connection.request(
                method, path, headers={key.replace("_", "-"): each for key, each in headers.items()}
            )
            answer = connection.getresponse()
            named = {key.lower(): value for key, value in answer.getheaders()}
            return Answer(answer.status, named, answer.read().decode())
        finally:
            connection.close()

    return await asyncio.to_thread(ask)


@asynccontextmanager
async def serving(url: str, featuriser: Featuriser, **settings: Any) -> AsyncIterator[tuple[Running, int]]:
    """A server with two models, and its port for HTTP."""
    async with running_app(url, featuriser, **{"http_port": 0, **settings}) as running:
        assert running.app is not None
        yield running, running.app.http_port


@pytest.fixture
async def port(url: str, featuriser: Featuriser) -> AsyncIterator[int]:
    async with serving(url, featuriser) as (running, found):
        await running.create_models(small={}, large={"prices": (10.0, 30.0, 0.0)})
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


async def test_without_a_key_nothing_is_served_and_the_body_is_not_even_read(
    url: str, featuriser: Featuriser
) -> None:
    add_key(url)
    async with serving(url, featuriser) as (_, port):
        for headers in ({}, {"authorization": "Bearer pmk_wrong"}, {"authorization": "Basic eDp5"}):
            answer = await post(port, ROUTE, b"{ not even JSON", **headers)
            assert (answer.status, answer.body["code"]) == (401, "unauthenticated")


@pytest.mark.parametrize(("scopes", "status"), [((Scope.REPORT,), 403), ((Scope.ROUTE,), 400)])
async def test_a_key_is_good_for_its_scopes_only(
    url: str, featuriser: Featuriser, scopes: tuple[Scope, ...], status: int
) -> None:
    key = add_key(url, *scopes)
    async with serving(url, featuriser) as (_, port):
        assert (await post(port, ROUTE, authorization=f"Bearer {key}")).status == status


async def test_a_key_is_good_for_its_routers_only(url: str, featuriser: Featuriser) -> None:
    key = add_key(url, routers=["mine"])
    async with serving(url, featuriser) as (_, port):
        answer = await post(port, ROUTE, {"router": "routers/other"}, authorization=f"Bearer {key}")
        assert (answer.status, answer.reason) == (403, "ROUTER_NOT_PERMITTED")


async def test_a_keys_rate_holds_over_both_doors_together(url: str, featuriser: Featuriser) -> None:
    key = add_key(url, requests_per_second=0.001, burst=2)
    async with serving(url, featuriser) as (running, port):
        metadata = [("authorization", f"Bearer {key}")]
        await running.registry.ListRouters(registry_pb.ListRoutersRequest(), metadata=metadata)
        path = "/pointsman.v1.RegistryService/ListRouters"
        assert (await post(port, path, authorization=f"Bearer {key}")).status == 200
        limited = await post(port, path, authorization=f"Bearer {key}")
    assert (limited.status, limited.reason) == (429, "RATE_LIMITED")
    assert "retryDelay" in limited.body["details"][1]["debug"]


async def test_a_body_larger_than_a_message_may_be_is_refused(url: str, featuriser: Featuriser) -> None:
    async with serving(url, featuriser, message_bytes_max=1 << 16) as (_, port):
        answer = await post(port, ROUTE, {"prompt": "x" * (1 << 16)})
    assert (answer.status, answer.body["message"]) == (
        400,
        "request: is larger than the 65536 bytes that are taken",
    )


async def test_a_long_prompt_is_read_beside_the_loop_and_answered(port: int) -> None:
    assert (await post(port, ROUTE, {"prompt": "word " * 50_000})).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://elsewhere.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:1"},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site", "origin": "http://localhost:3000"},
    ],
)
async def test_another_sites_page_is_refused_and_may_read_nothing(port: int, headers: dict[str, str]) -> None:
    answer = await post(port, ROUTE, **headers)
    assert (answer.status, answer.reason) == (403, "CROSS_SITE")
    assert "access-control-allow-origin" not in answer.headers


async def test_a_page_of_its_own_origin_is_served(port: int) -> None:
    assert (await post(port, ROUTE, origin=f"http://127.0.0.1:{port}")).status == 200
    assert (await post(port, ROUTE, sec_fetch_site="same-origin", origin="https://behind.a.proxy")).status == 200


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "application/grpc", ""])
async def test_what_a_form_could_send_is_refused(port: int, kind: str) -> None:
    answer = await post(port, ROUTE, content_type=kind)
    assert (answer.status, answer.headers["accept-post"]) == (415, "application/json")


async def test_preflights_and_reads_are_refused(port: int) -> None:
    for method in ("OPTIONS", "GET", "PUT", "DELETE"):
        answer = await post(port, ROUTE, method=method)
        assert (answer.status, answer.headers["allow"]) == (405, "POST")
        assert "access-control-allow-methods" not in answer.headers


@pytest.mark.parametrize("host", ["elsewhere.example", "127.0.0.1.elsewhere.example", "[bad", "", "10.0.0.1:80"])
async def test_a_name_that_is_made_to_resolve_to_loopback_is_refused(port: int, host: str) -> None:
    answer = await post(port, ROUTE, host=host)
    assert (answer.status, answer.reason) == (403, "HOST_NOT_LOOPBACK")


@pytest.mark.parametrize("host", ["localhost:50080", "127.0.0.1", "[::1]:50080", "LOCALHOST"])
async def test_this_machines_own_names_are_taken(port: int, host: str) -> None:
    assert (await post(port, ROUTE, host=host)).status == 200


async def test_with_keys_a_proxy_may_keep_the_name_it_is_called_by(url: str, featuriser: Featuriser) -> None:
    key = add_key(url)
    async with serving(url, featuriser) as (_, port):
        answer = await post(port, ROUTE, host="pointsman.example.com", authorization=f"Bearer {key}")
    assert answer.reason == "NO_ELIGIBLE_MODEL"


async def test_every_answer_says_that_it_is_no_page_and_not_to_be_kept(port: int) -> None:
    for answer in (await post(port, ROUTE), await post(port, "/"), await post(port, ROUTE, b"")):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")
        assert answer.headers["cache-control"] == "no-store"


async def test_the_console_is_files_that_run_nothing_but_this_servers_scripts(port: int) -> None:
    page = await fetch(port, "/")
    assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert page.headers["x-content-type-options"] == "nosniff"
    for path in re.findall(r'(?:src|href)="(/[^"#]+)"', page.body):
        found = await fetch(port, path)
        assert (found.status, found.headers["x-content-type-options"]) == (200, "nosniff"), path


async def test_a_file_that_the_browser_has_is_not_sent_again(port: int) -> None:
    first = await fetch(port, "/app.js")
    again = await fetch(port, "/app.js", if_none_match=first.headers["etag"])
    head = await fetch(port, "/app.js", "HEAD")
    assert (again.status, again.body) == (304, "")
    assert (head.status, head.body, head.headers["content-length"]) == (
        200,
        "",
        str(len(first.body.encode())),
    )


async def test_nothing_but_the_consoles_files_is_served(port: int) -> None:
    for path in (
        "/../files.py",
        "/%2e%2e/files.py",
        "/vendor/../../app.py",
        "/app.js/",
        "//app.js",
        "/.",
        "/vendor",
    ):
        answer = await fetch(port, path)
        assert (answer.status, json.loads(answer.body)["code"]) == (404, "unimplemented"), path
    written = await post(port, "/")
    assert (written.status, written.headers["allow"]) == (405, "GET, HEAD")


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


async def test_who_promoted_over_http_is_on_record_by_its_own_address(url: str, featuriser: Featuriser) -> None:
    async with serving(url, featuriser) as (running, port):
        await running.create_models(small={}, large={})
        service = "/pointsman.v1.PolicyService"
        body = {"policyId": "mine", "policy": {"policy": "uniform"}}
        lie = {"pointsman_forwarded_peer": "somebody else"}
        assert (await post(port, f"{service}/CreatePolicy", body, **lie)).status == 200
        metadata = [("pointsman-forwarded-peer", "somebody else")]
        request = policy_pb.CreatePolicyRequest(policy_id="other", policy=policy_pb.Policy(policy="uniform"))
        await running.policies.CreatePolicy(request, metadata=metadata)
        listed = (await running.policies.ListTransitions(policy_pb.ListTransitionsRequest())).transitions
    assert [each.actor.rpartition(":")[0] for each in listed] == ["http:127.0.0.1", "ipv4:127.0.0.1"]


async def test_nobody_but_the_servers_user_may_enter_the_folder_of_its_socket(
    url: str, featuriser: Featuriser
) -> None:
    async with serving(url, featuriser) as (running, _):
        assert running.app is not None
        inside = running.app._http._inside
        assert inside is not None
        assert stat.S_IMODE(inside.stat().st_mode) == stat.S_IRWXU
        assert inside.stat().st_uid == os.getuid()
    assert not inside.exists()


async def test_tls_is_by_the_same_certificates_which_are_read_again_when_they_change(
    url: str, featuriser: Featuriser, tmp_path: Path
) -> None:
    authority = Authority(tmp_path / "ca")
    certificate, key = authority.issue()
    old = ssl.create_default_context(cafile=str(authority.ca))
    async with serving(url, featuriser, tls_certificate=certificate, tls_key=key) as (_, port):
        assert (await post(port, HEALTH, tls=old)).status == 200
        with pytest.raises((http.client.HTTPException, OSError)):
            await post(port, HEALTH)
        other = Authority(tmp_path / "other")
        for target, source in zip((certificate, key), other.issue(), strict=True):
            target.write_bytes(source.read_bytes())
        new = ssl.create_default_context(cafile=str(other.ca))

        async def renewed() -> bool:
            try:
                return (await post(port, HEALTH, tls=new)).status == 200
            except ssl.SSLError:
                return False

        await eventually(renewed)


async def test_where_clients_must_show_a_certificate_they_must_over_http_too(
    url: str, featuriser: Featuriser, tmp_path: Path
) -> None:
    authority = Authority(tmp_path / "ca")
    certificate, key = authority.issue()
    settings = {"tls_certificate": certificate, "tls_key": key, "tls_client_ca": authority.ca}
    stranger = ssl.create_default_context(cafile=str(authority.ca))
    known = ssl.create_default_context(cafile=str(authority.ca))
    known.load_cert_chain(*authority.issue("client"))
    async with serving(url, featuriser, **settings) as (_, port):
        assert (await post(port, HEALTH, tls=known)).status == 200
        with pytest.raises((http.client.HTTPException, OSError)):
            await post(port, HEALTH, tls=stranger)


@pytest.mark.parametrize("settings", [{"http_host": "0.0.0.0"}, {"http_host": ""}])
async def test_other_machines_are_not_served_over_http_without_keys(
    url: str, featuriser: Featuriser, settings: dict[str, str]
) -> None:
    if settings["http_host"]:
        with pytest.raises(InvalidFieldError) as caught:
            async with serving(url, featuriser, **settings):
                pass
        assert caught.value.field == "POINTSMAN_HTTP_HOST"
    else:
        with pytest.raises(ValueError, match="must not be empty"):
            async with serving(url, featuriser, **settings):
                pass


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


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return str(found.getsockname()[1])


def test_details_are_the_bytes_that_grpc_sends() -> None:
    shown = re.search(r'"type":"google.rpc.ErrorInfo","value":"([^"]+)"', DOCS.read_text())
    assert shown is not None
    packed = shown.group(1)
    info = error_details_pb2.ErrorInfo.FromString(base64.b64decode(packed + "=" * (-len(packed) % 4)))
    assert (info.reason, info.domain) == ("INVALID_FIELD", "pointsman")
