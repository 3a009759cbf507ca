"""TLS as it is on the wire, and the addresses that a server does not listen on without keys or TLS."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from locks import Authority, add_key, bearer
from pointsman.v1 import router_service_pb2 as pb
from pointsman.v1 import router_service_pb2_grpc as router_grpc
from servers import running_app

from policy.domain import InvalidFieldError
from policy.features import Featuriser
from server.doors import Doors, is_loopback
from server.settings import Settings

Code = grpc.StatusCode
OUTSIDE = ("0.0.0.0", "[::]", "example.com", "10.0.0.1", "")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


@asynccontextmanager
async def serving(url: str, featuriser: Featuriser, **settings: object) -> AsyncIterator[int]:
    """A server, and its port; the channel of its own, which is in the clear, is not used."""
    async with running_app(url, featuriser, **settings) as running:
        assert running.app is not None
        yield running.app.port


async def ask(
    port: int,
    roots: bytes | None = None,
    shown: tuple[Path, Path] | None = None,
    key: str = "",
    host: str = "127.0.0.1",
) -> grpc.StatusCode:
    """The code of a call to Route, which a server without models answers with FAILED_PRECONDITION."""
    own = [shown[1].read_bytes(), shown[0].read_bytes()] if shown else [None, None]
    target = f"{host}:{port}"
    channel = (
        grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(roots, *own))
        if roots
        else grpc.aio.insecure_channel(target)
    )
    async with channel:
        try:
            call = router_grpc.RouterServiceStub(channel).Route
            await call(pb.RouteRequest(), metadata=bearer(key) if key else None, timeout=20)
        except grpc.aio.AioRpcError as error:
            return error.code()
    return Code.OK


def files(pair: tuple[Path, Path], **more: Path) -> dict[str, Path]:
    return {"tls_certificate": pair[0], "tls_key": pair[1], **more}


async def test_with_tls_only_who_trusts_the_authority_and_speaks_tls_is_served(
    url: str, featuriser: Featuriser, authority: Authority, tmp_path: Path
) -> None:
    key = add_key(url)
    async with serving(url, featuriser, **files(authority.issue())) as port:
        assert await ask(port, authority.roots, key=key) is Code.FAILED_PRECONDITION
        assert await ask(port, authority.roots) is Code.UNAUTHENTICATED
        assert await ask(port, key=key) is Code.UNAVAILABLE
        assert await ask(port, Authority(tmp_path / "other").roots, key=key) is Code.UNAVAILABLE


async def test_a_certificate_of_another_name_or_an_expired_one_is_not_believed(
    url: str, featuriser: Featuriser, authority: Authority, tmp_path: Path
) -> None:
    past = datetime.now(UTC) - timedelta(days=1)
    cases = (authority.issue("expired", not_after=past), authority.issue("elsewhere", "example.com"))
    for number, pair in enumerate(cases):
        async with serving(f"sqlite:///{tmp_path}/{number}.db", featuriser, **files(pair)) as port:
            assert await ask(port, authority.roots) is Code.UNAVAILABLE


async def test_with_mutual_tls_clients_show_a_good_certificate_of_the_right_authority(
    url: str, featuriser: Featuriser, authority: Authority, tmp_path: Path
) -> None:
    clients, strangers = Authority(tmp_path / "clients"), Authority(tmp_path / "strangers")
    past = datetime.now(UTC) - timedelta(days=1)
    async with serving(url, featuriser, **files(authority.issue(), tls_client_ca=clients.ca)) as port:
        assert await ask(port, authority.roots, clients.issue("app", "app")) is Code.FAILED_PRECONDITION
        for shown in (
            *(None, strangers.issue("app", "app"), authority.issue("app", "app")),
            clients.issue("old", "app", not_after=past),
        ):
            assert await ask(port, authority.roots, shown) is Code.UNAVAILABLE


async def test_a_renewed_certificate_is_taken_without_a_restart_and_a_broken_one_is_not(
    url: str, featuriser: Featuriser, authority: Authority, tmp_path: Path
) -> None:
    renewed = Authority(tmp_path / "renewed")
    certificate, key = authority.issue()
    new_certificate, new_key = renewed.issue()
    async with serving(url, featuriser, **files((certificate, key))) as port:
        assert await ask(port, authority.roots) is Code.FAILED_PRECONDITION
        certificate.write_text("half a certificate")
        assert await ask(port, authority.roots) is Code.FAILED_PRECONDITION
        certificate.write_bytes(new_certificate.read_bytes())
        assert await ask(port, authority.roots) is Code.FAILED_PRECONDITION
        key.write_bytes(new_key.read_bytes())
        os.utime(key, ns=(1, 1))
        assert await ask(port, renewed.roots) is Code.FAILED_PRECONDITION
        assert await ask(port, authority.roots) is Code.UNAVAILABLE


def refused(**settings: object) -> str:
    with pytest.raises(InvalidFieldError) as caught:
        Doors(Settings(**settings))
    return str(caught.value)


def test_a_file_that_will_not_do_is_named_with_its_setting(authority: Authority, tmp_path: Path) -> None:
    certificate, key = authority.issue()
    _, other_key = authority.issue("other")
    nonsense, none = tmp_path / "nonsense.pem", tmp_path / "none.pem"
    nonsense.write_text("not a certificate")
    pair = files((certificate, key))
    for settings, said in (
        ({**pair, "tls_key": none}, f"POINTSMAN_TLS_KEY: {none} cannot be read"),
        ({**pair, "tls_key": other_key}, f"POINTSMAN_TLS_KEY: {other_key} is not the key of {certificate}"),
        ({**pair, "tls_key": nonsense}, f"POINTSMAN_TLS_KEY: {nonsense} is not"),
        ({**pair, "tls_key": certificate}, f"POINTSMAN_TLS_KEY: {certificate} is not"),
        ({**pair, "tls_certificate": none}, f"POINTSMAN_TLS_CERTIFICATE: {none} cannot be read"),
        ({**pair, "tls_certificate": nonsense}, f"POINTSMAN_TLS_CERTIFICATE: {nonsense} is not"),
        ({**pair, "tls_client_ca": none}, f"POINTSMAN_TLS_CLIENT_CA: {none} cannot be read"),
        ({**pair, "tls_client_ca": nonsense}, f"POINTSMAN_TLS_CLIENT_CA: {nonsense} holds no certificate"),
        ({**pair, "tls_client_ca": key}, f"POINTSMAN_TLS_CLIENT_CA: {key} holds no certificate"),
        ({"tls_certificate": certificate}, f"POINTSMAN_TLS_CERTIFICATE: {certificate} is of no use without"),
        ({"tls_key": key}, f"POINTSMAN_TLS_KEY: {key} is of no use without POINTSMAN_TLS_CERTIFICATE"),
        ({"tls_client_ca": certificate}, f"POINTSMAN_TLS_CLIENT_CA: {certificate} is of no use without"),
    ):
        assert refused(**settings).startswith(said)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "localhost", "::1", "[::1]"])
def test_on_loopback_nothing_is_asked_for_and_it_is_said_that_there_are_no_keys(
    host: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert is_loopback(host)
    doors = Doors(Settings(host=host))
    doors.require_locked(locked=True)
    doors.tell(locked=True)
    assert "no keys" not in caplog.text
    doors.require_locked(locked=False)
    doors.tell(locked=False)
    assert "there are no keys: serving this machine only" in caplog.text


@pytest.mark.parametrize("host", [each for each in OUTSIDE if each])
def test_an_address_that_others_reach_takes_keys_and_tls_or_a_setting_that_says_otherwise(
    host: str, authority: Authority
) -> None:
    pair = files(authority.issue())
    for settings, locked, said in (
        ({}, False, "pointsman keys create"),
        (pair, False, "pointsman keys create"),
        ({"tls_ends_elsewhere": True}, False, "pointsman keys create"),
        ({}, True, "POINTSMAN_TLS_CERTIFICATE"),
        ({"insecure": True}, True, "POINTSMAN_TLS_CERTIFICATE"),
    ):
        with pytest.raises(InvalidFieldError, match=said) as caught:
            Doors(Settings(host=host, **settings)).require_locked(locked)
        assert caught.value.field == "POINTSMAN_HOST"
        assert host in str(caught.value)
    for settings, locked in (
        ({"insecure": True}, False),
        (pair, True),
        ({"tls_ends_elsewhere": True}, True),
    ):
        Doors(Settings(host=host, **settings)).require_locked(locked)


@pytest.mark.parametrize("host", OUTSIDE)
def test_what_others_reach_is_not_loopback(host: str) -> None:
    assert not is_loopback(host)


async def test_a_server_that_others_reach_starts_with_keys_and_not_without(
    url: str, featuriser: Featuriser
) -> None:
    given = {"host": "0.0.0.0", "tls_ends_elsewhere": True}
    with pytest.raises(InvalidFieldError, match="no keys"):
        async with serving(url, featuriser, **given):
            pass
    key = add_key(url)
    async with serving(url, featuriser, **given) as port:
        assert await ask(port) is Code.UNAUTHENTICATED
        assert await ask(port, key=key) is Code.FAILED_PRECONDITION
