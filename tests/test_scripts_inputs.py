"""No input is too much for a server: a short form of scripts/check_inputs, and what that would find."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import grpc
import pytest
from engines import BOTH_ENGINES
from google.protobuf.message import DecodeError, Message
from grpc_health.v1 import health_pb2
from hypothesis import given, settings
from hypothesis import strategies as st
from pointsman.v1 import policy_service_pb2 as policy_pb
from pointsman.v1 import router_service_pb2 as pb
from servers import Running, seeded

from scripts.inputs.calls import Method, called, methods
from scripts.inputs.check import FaultError, check
from scripts.inputs.command import table
from scripts.inputs.contents import Contents
from scripts.inputs.messages import Requests
from scripts.inputs.target import running

INPUTS = 1_000


@BOTH_ENGINES
def test_a_server_bears_whatever_it_is_sent(tmp_path: Path, url: str) -> None:
    seed = seeded("inputs").randrange(1 << 30)
    with running(tmp_path, url) as target:
        found = check(target, INPUTS, seed)
    assert found.inputs >= INPUTS
    assert {path for path, _ in found.codes} == {each.path for each in methods()}
    assert all(found.codes[each.path, "OK"] for each in methods())
    assert table(found).count("\n| pointsman.v1.") == sum(
        each.path.startswith("/pointsman.v1.") for each in methods()
    )


def test_a_server_that_dies_is_found(tmp_path: Path, url: str) -> None:
    with running(tmp_path, url) as target:
        target.process.kill()
        target.process.wait()
        with pytest.raises(FaultError):
            check(target, INPUTS, 0)


@pytest.mark.parametrize(
    ("path", "request_type", "said"),
    [
        ("/pointsman.v1.RouterService/Route", pb.RouteRequest, "without details"),
        ("/grpc.health.v1.Health/Check", health_pb2.HealthCheckRequest, "not documented"),
    ],
)
def test_a_code_that_is_not_documented_is_found(path: str, request_type: type[Message], said: str) -> None:
    with grpc.insecure_channel("127.0.0.1:1") as channel:
        answer = called(channel, Method(path, request_type.DESCRIPTOR, False, False), [b""])
    assert said in answer.fault


def requests(**known: Sequence[str]) -> Requests:
    return Requests(Contents(known, {"pointsman.v1.RouteRequest": [pb.RouteRequest(prompt="right")]}))


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_requests_are_mostly_of_the_message_that_they_are_for(data: st.DataObject) -> None:
    sent = data.draw(st.lists(requests(model=["known"]).of(pb.RouteRequest.DESCRIPTOR), min_size=30, max_size=30))
    whole = 0
    for each in sent:
        try:
            pb.RouteRequest.FromString(each)
        except Exception:
            continue
        whole += 1
    assert whole > 0


@pytest.mark.parametrize("text", ["\ufdd0" * 3, "\ufdd1" * 3])
def test_what_no_text_may_hold_is_on_the_wire_in_the_place_of_what_stands_for_it(text: str) -> None:
    stands = Requests(
        Contents({}, {"pointsman.v1.RouteRequest": [pb.RouteRequest(prompt=f"a{text}b", router="r")]})
    )
    sent, _ = stands.right(pb.RouteRequest.DESCRIPTOR)
    assert len(sent) == pb.RouteRequest(prompt=f"a{9 * '-'}b", router="r").ByteSize()
    with pytest.raises(DecodeError):
        pb.RouteRequest.FromString(sent)


def test_a_file_in_which_such_bytes_stand_by_chance_is_sent_as_it_is() -> None:
    file = b"a snapshot " + "\ufdd0 \ufdd1".encode()
    right = policy_pb.ImportSnapshotRequest(parent="routers/other", chunk=file)
    sent, _ = Requests(Contents({}, {right.DESCRIPTOR.full_name: [right]})).right(right.DESCRIPTOR)
    assert policy_pb.ImportSnapshotRequest.FromString(sent) == right


async def test_health_of_all_services_is_listed(server: Running) -> None:
    await server.health_is(health_pb2.HealthCheckResponse.SERVING)
    listed = await server.health.List(health_pb2.HealthListRequest())
    assert listed.statuses["pointsman.v1.RouterService"].status == health_pb2.HealthCheckResponse.SERVING
    assert "" in listed.statuses
