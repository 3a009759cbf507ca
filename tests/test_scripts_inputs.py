"""No input is too much for a server: a short form of scripts/check_inputs, and what that would find."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2
from hypothesis import given, settings
from hypothesis import strategies as st
from pointsman.v1 import router_service_pb2 as pb
from servers import Running, seeded

from scripts.inputs.calls import Method, called, methods
from scripts.inputs.command import FaultError, check
from scripts.inputs.messages import Requests
from scripts.inputs.target import running

INPUTS = 1_000


def test_a_server_bears_whatever_it_is_sent(tmp_path: Path) -> None:
    seed = seeded("inputs").randrange(1 << 30)
    with running(tmp_path) as target:
        found = check(target, INPUTS, seed)
    assert found.inputs >= INPUTS * 0.9
    assert {path for path, _ in found.codes} == {each.path for each in methods()}


def test_a_server_that_dies_is_found(tmp_path: Path) -> None:
    with running(tmp_path) as target:
        target.process.kill()
        target.process.wait()
        with pytest.raises(FaultError):
            check(target, INPUTS, 0)


def test_a_code_that_is_not_documented_is_found() -> None:
    with grpc.insecure_channel("127.0.0.1:1") as channel:
        method = Method("/pointsman.v1.RouterService/Route", pb.RouteRequest.DESCRIPTOR, False, False)
        answer = called(channel, method, [b""])
    assert "without details" in answer.fault


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_requests_are_mostly_of_the_message_that_they_are_for(data: st.DataObject) -> None:
    sent = data.draw(
        st.lists(Requests({"model": ["known"]}).of(pb.RouteRequest.DESCRIPTOR), min_size=30, max_size=30)
    )
    whole = 0
    for each in sent:
        try:
            pb.RouteRequest.FromString(each)
        except Exception:
            continue
        whole += 1
    assert whole > 0


async def test_health_of_all_services_is_listed(server: Running) -> None:
    await server.health_is(health_pb2.HealthCheckResponse.SERVING)
    listed = await server.health.List(health_pb2.HealthListRequest())
    assert listed.statuses["pointsman.v1.RouterService"].status == health_pb2.HealthCheckResponse.SERVING
    assert "" in listed.statuses
