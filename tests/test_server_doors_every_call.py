"""Every call of every service, over gRPC and as JSON, is refused with the right code where a door is closed."""

from __future__ import annotations

import asyncio
import http.client
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from every_call import HEALTH, NO_ROUTER_IN_THE_REQUEST, REFLECTION, REQUESTS, STREAMS, may, message_naming, naming
from google.protobuf import json_format
from http_calls import Answer, post
from locks import Authority, add_key, bearer, outcome
from servers import running_app

from policy.features import Featuriser
from server.clock import now_us
from server.http.files import console_files
from server.keys import Scope, new_key_text
from server.services.access import METHODS

Code = grpc.StatusCode
EVERY = [*METHODS, *HEALTH]
# Reflection has no path over HTTP, and streams are refused there to everyone.
ROUTES = [*REQUESTS, *HEALTH]
UNARY = [each for each in ROUTES if each not in STREAMS]
REFUSED = (Code.UNAUTHENTICATED, Code.PERMISSION_DENIED, Code.UNIMPLEMENTED)
NAMING = [each for each in REQUESTS if each.rpartition("/")[2] not in NO_ROUTER_IN_THE_REQUEST]
YESTERDAY = datetime.now(UTC) - timedelta(days=1)


@dataclass(frozen=True)
class Locked:
    """A server with keys that asks for certificates, its ports, and what opens it and what does not."""

    port: int
    http_port: int
    servers: Authority
    clients: Authority
    shown: tuple[Path, Path]
    key: str
    bad_keys: dict[str, str]
    scoped: dict[str, str]
    bound: str


@asynccontextmanager
async def locked(
    url: str, featuriser: Featuriser, folder: Path, not_after: datetime | None = None
) -> AsyncIterator[Locked]:
    """`not_after` is when the server's own certificate expires."""
    servers, clients = Authority(folder / "servers"), Authority(folder / "clients")
    certificate, key = servers.issue(not_after=not_after) if not_after else servers.issue()
    past = now_us() - 1
    good, bound = add_key(url), add_key(url, routers=["mine"])
    bad_keys = {
        "KEY_MISSING": "",
        "KEY_INVALID": new_key_text()[1],
        "KEY_EXPIRED": add_key(url, expire_us=past),
        "KEY_REVOKED": add_key(url, revoke_us=past),
    }
    scoped = {each.value: add_key(url, each) for each in Scope}
    settings = {"tls_certificate": certificate, "tls_key": key, "tls_client_ca": clients.ca, "http_port": 0}
    async with running_app(url, featuriser, **settings) as running:
        assert running.app is not None
        ports = running.app.port, running.app.http_port
        yield Locked(*ports, servers, clients, clients.issue("client", "app"), good, bad_keys, scoped, bound)


@pytest.fixture
async def server(url: str, featuriser: Featuriser, tmp_path: Path) -> AsyncIterator[Locked]:
    async with locked(url, featuriser, tmp_path) as found:
        yield found


def channel(port: int, roots: bytes | None, shown: tuple[Path, Path] | None = None) -> grpc.aio.Channel:
    """A connection of its own: none is shared, and none is put off since the one before has failed."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    if roots is None:
        return grpc.aio.insecure_channel(f"127.0.0.1:{port}", options)
    own = [shown[1].read_bytes(), shown[0].read_bytes()] if shown else [None, None]
    return grpc.aio.secure_channel(f"127.0.0.1:{port}", grpc.ssl_channel_credentials(roots, *own), options)


async def asked_anew(
    method: str, key: str, port: int, roots: bytes | None, shown: tuple[Path, Path] | None = None
) -> tuple[grpc.StatusCode, str]:
    async with channel(port, roots, shown) as opened:
        return await outcome(opened, method, b"", bearer(key))


async def nobody_is_let_in(
    key: str, port: int, roots: bytes | None, shown: tuple[Path, Path] | None = None
) -> None:
    """No call comes so far as to be answered by the server, whose answers all have a reason."""
    answers = await asyncio.gather(*(asked_anew(method, key, port, roots, shown) for method in EVERY))
    assert dict(zip(EVERY, answers, strict=True)) == dict.fromkeys(EVERY, (Code.UNAVAILABLE, ""))


def strange_certificates(server: Locked, folder: Path) -> list[tuple[Path, Path] | None]:
    """None at all, one of a stranger, one that the server itself could show, and one that has expired."""
    expired = server.clients.issue("old", "app", not_after=YESTERDAY)
    return [None, Authority(folder / "strangers").issue("app", "app"), server.servers.issue("app", "app"), expired]


def test_all_that_is_served_is_asked() -> None:
    assert set(EVERY) == {*REQUESTS, REFLECTION, *HEALTH}
    assert {"Check", "List", "Watch"} == {each.rpartition("/")[2] for each in HEALTH}
    assert len(NAMING) == sum(bool(access.router) for access in METHODS.values())


async def test_with_the_right_certificate_and_key_every_call_is_let_in(server: Locked) -> None:
    async with channel(server.port, server.servers.roots, server.shown) as opened:
        for method in EVERY:
            code, reason = await outcome(opened, method, b"", bearer(server.key))
            assert code not in REFUSED, method
            assert code is not Code.UNAVAILABLE or reason, method


async def test_no_call_is_answered_in_the_clear_on_a_port_with_tls(server: Locked) -> None:
    await nobody_is_let_in(server.key, server.port, None)


async def test_no_call_is_made_to_a_server_of_another_authority(server: Locked, tmp_path: Path) -> None:
    await nobody_is_let_in(server.key, server.port, Authority(tmp_path / "other").roots, server.shown)


async def test_no_call_is_answered_without_a_good_certificate_of_the_right_authority(
    server: Locked, tmp_path: Path
) -> None:
    for shown in strange_certificates(server, tmp_path):
        await nobody_is_let_in(server.key, server.port, server.servers.roots, shown)


async def test_no_call_is_made_to_a_server_whose_certificate_has_expired(
    url: str, featuriser: Featuriser, tmp_path: Path
) -> None:
    async with locked(url, featuriser, tmp_path, not_after=YESTERDAY) as server:
        await nobody_is_let_in(server.key, server.port, server.servers.roots, server.shown)
        for path in (*ROUTES, *console_files()):
            with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
                await sent(server, path, server.key)


async def test_no_call_but_of_health_is_answered_without_a_good_key(server: Locked) -> None:
    async with channel(server.port, server.servers.roots, server.shown) as opened:
        for reason, key in server.bad_keys.items():
            for method in METHODS:
                answer = await outcome(opened, method, b"", bearer(key) if key else [])
                assert answer == (Code.UNAUTHENTICATED, reason), method
            for method in HEALTH:
                assert await outcome(opened, method, b"", bearer(key) if key else []) == (Code.OK, ""), method


async def test_no_call_is_answered_with_a_key_of_another_scope_or_router(server: Locked) -> None:
    async with channel(server.port, server.servers.roots, server.shown) as opened:
        for scope, key in server.scoped.items():
            for method in REQUESTS:
                code, reason = await outcome(opened, method, b"", bearer(key))
                refused = (code, reason) == (Code.PERMISSION_DENIED, "SCOPE_MISSING")
                assert refused is not may(scope, method), (method, scope)
            for method in (REFLECTION, *HEALTH):
                assert await outcome(opened, method, b"", bearer(key)) == (Code.OK, ""), method
        for method in NAMING:
            answer = await outcome(opened, method, naming(method, "theirs"), bearer(server.bound))
            assert answer == (Code.PERMISSION_DENIED, "ROUTER_NOT_PERMITTED"), method
        for method in (REFLECTION, *HEALTH):
            assert await outcome(opened, method, b"", bearer(server.bound)) == (Code.OK, ""), method


def trusting(server: Locked, shown: tuple[Path, Path] | None, ca: Path | None = None) -> ssl.SSLContext:
    """How a client of JSON connects, which shows this certificate."""
    context = ssl.create_default_context(cafile=str(ca or server.servers.ca))
    if shown:
        context.load_cert_chain(*shown)
    return context


async def sent(
    server: Locked, path: str, key: str = "", body: Any = None, tls: ssl.SSLContext | None = None
) -> Answer:
    """What is answered to a POST."""
    shown = {"authorization": f"Bearer {key}"} if key else {}
    return await post(server.http_port, path, body, tls=tls or trusting(server, server.shown), **shown)


async def no_route_is_answered(server: Locked, tls: ssl.SSLContext | None) -> None:
    """Not even what is no call: the connection ends before there is any HTTP."""
    for path in (*ROUTES, *console_files(), "/no.Such/Method"):
        with pytest.raises((http.client.HTTPException, OSError)) as caught:
            await post(server.http_port, path, tls=tls, authorization=f"Bearer {server.key}")
        assert not isinstance(caught.value, TimeoutError | ConnectionRefusedError), path


async def test_with_the_right_certificate_and_key_every_route_is_served(server: Locked) -> None:
    for path in ROUTES:
        answer = await sent(server, path, server.key)
        assert (answer.status == 501) is (path in STREAMS), path
        assert answer.status not in {401, 403, 405}, path
        assert "there is nothing at" not in json.dumps(answer.body), path


async def test_no_route_is_answered_in_the_clear_or_of_another_authority_or_to_no_good_certificate(
    server: Locked, tmp_path: Path
) -> None:
    await no_route_is_answered(server, None)
    await no_route_is_answered(server, trusting(server, server.shown, Authority(tmp_path / "other").ca))
    for shown in strange_certificates(server, tmp_path):
        await no_route_is_answered(server, trusting(server, shown))


async def test_no_route_but_of_health_is_served_without_a_good_key(server: Locked) -> None:
    for reason, key in server.bad_keys.items():
        for path in UNARY:
            # Not even read: it is no JSON.
            answer = await sent(server, path, key, b"{" if path in REQUESTS else None)
            if path in HEALTH:
                assert answer.status == 200, path
            else:
                assert (answer.status, answer.body["code"], answer.reason) == (401, "unauthenticated", reason), (
                    path
                )
        await streams_are_not_served(server, key)


async def test_no_route_is_served_to_a_key_of_another_scope_or_router(server: Locked) -> None:
    for scope, key in server.scoped.items():
        for path in UNARY:
            answer = await sent(server, path, key)
            refused = answer.status == 403 and answer.reason == "SCOPE_MISSING"
            assert refused is not (path in HEALTH or may(scope, path)), (path, scope)
        await streams_are_not_served(server, key)
    for path in (each for each in NAMING if each in UNARY):
        body = json_format.MessageToDict(message_naming(path, "theirs"))
        answer = await sent(server, path, server.bound, body)
        assert (answer.status, answer.reason) == (403, "ROUTER_NOT_PERMITTED"), path


async def streams_are_not_served(server: Locked, key: str) -> None:
    for path in STREAMS:
        assert (await sent(server, path, key)).status == 501, path
    assert (await sent(server, REFLECTION, key)).status == 404
