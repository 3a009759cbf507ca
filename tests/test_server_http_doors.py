"""Who gets in over HTTP: keys and TLS are those of gRPC, and no other site's page is served."""

from __future__ import annotations

import http.client
import os
import ssl
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from http_calls import HEALTH, ROUTE, post, serving, serving_models
from locks import Authority, add_key
from pointsman.v1 import policy_service_pb2 as policy_pb
from pointsman.v1 import registry_service_pb2 as registry_pb
from servers import eventually

from policy.domain import InvalidFieldError
from policy.features import Featuriser
from server.keys import Scope


@pytest.fixture
async def port(url: str, featuriser: Featuriser) -> AsyncIterator[int]:
    async with serving_models(url, featuriser) as found:
        yield found


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
