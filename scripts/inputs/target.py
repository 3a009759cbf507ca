"""The server that is struck: a process of its own on a new database, and what it is after all."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from pointsman.v1 import policy_service_pb2 as policy_pb
from pointsman.v1 import policy_service_pb2_grpc as policy_grpc
from pointsman.v1 import registry_service_pb2 as registry_pb
from pointsman.v1 import registry_service_pb2_grpc as registry_grpc
from pointsman.v1 import router_service_pb2 as pb
from pointsman.v1 import router_service_pb2_grpc as router_grpc

_ROUTERS = ("default", "other")
_MODELS = ("small", "large")
_DECISIONS = 5
_SECONDS = 30.0


class StartError(Exception):
    """The server did not start."""


@dataclass
class Target:
    """A running server. `known` are names, ids and etags of what is in it."""

    process: subprocess.Popen[bytes]
    port: int
    channel: grpc.Channel
    url: str
    log: Path
    known: dict[str, list[str]]

    def faults(self) -> list[str]:
        """What is wrong with the server now."""
        if self.process.poll() is not None:
            return [f"the server has ended with {self.process.returncode}"]
        said = self.log.read_text(errors="replace")
        found = (
            ["the log has a traceback: " + said[said.index("Traceback") :][:2000]] if "Traceback" in said else []
        )
        health: Any = health_pb2_grpc.HealthStub(self.channel)
        status = health.Check(health_pb2.HealthCheckRequest(), timeout=_SECONDS)
        if status.status != health_pb2.HealthCheckResponse.SERVING:
            found.append("the server is not SERVING")
        return found

    def resident_bytes(self) -> int:
        """The memory that the server holds; 0 where the system does not say."""
        status = Path(f"/proc/{self.process.pid}/statm")
        return int(status.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if status.exists() else 0

    def restore(self) -> None:
        """Puts back the routers and models that a request has taken away."""
        registry = registry_grpc.RegistryServiceStub(self.channel)
        for router in _ROUTERS:
            _made(registry.CreateRouter, registry_pb.CreateRouterRequest(router_id=router))
            for model in _MODELS:
                prices = registry_pb.Prices(input_usd_per_million_tokens=1.0, output_usd_per_million_tokens=2.0)
                message = registry_pb.Model(prices=prices)
                request = registry_pb.CreateModelRequest(parent=f"routers/{router}", model_id=model, model=message)
                _made(registry.CreateModel, request)


def _made(call: Any, request: Any) -> None:
    """Makes what is not there yet."""
    try:
        call(request, timeout=_SECONDS)
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.ALREADY_EXISTS:
            raise


@contextmanager
def running(folder: Path) -> Iterator[Target]:
    """A server with two routers, models, decisions and a candidate; ended with SIGKILL. Raises StartError."""
    url, log = f"sqlite:///{folder / 'inputs.db'}", folder / "server.log"
    command = [sys.executable, "-m", "server.cli.main", "serve", "--port", "0", "--database-url", url]
    with log.open("wb") as written:
        process = subprocess.Popen(  # noqa: S603
            command,
            stdout=subprocess.DEVNULL,
            stderr=written,
            env={**os.environ, "POINTSMAN_DURABILITY": "process_crash", "POINTSMAN_LOG_LEVEL": "WARNING"},
        )
    try:
        port = _port(process, log)
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            target = Target(process, port, channel, url, log, {})
            target.restore()
            target.known = _fill(channel)
            yield target
    finally:
        process.kill()
        process.wait()


def _port(process: subprocess.Popen[bytes], log: Path) -> int:
    while True:
        found = re.search(r"listens on [^ ]*:(\d+)\s", log.read_text(errors="replace"))
        if found:
            return int(found.group(1))
        try:
            process.wait(timeout=0.05)
        except subprocess.TimeoutExpired:
            continue
        raise StartError(log.read_text(errors="replace")[-2000:])


def _fill(channel: grpc.Channel) -> dict[str, list[str]]:
    """Some decisions, reports and a candidate; gives what a caller may name, by the field."""
    router = router_grpc.RouterServiceStub(channel)
    registry = registry_grpc.RegistryServiceStub(channel)
    policies = policy_grpc.PolicyServiceStub(channel)
    decisions = []
    for number in range(_DECISIONS):
        request = pb.RouteRequest(
            prompt=f"question {number}", request_id=f"request-{number}", session_id="session"
        )
        decision = router.Route(request, timeout=_SECONDS)
        report = pb.ReportRewardRequest(decision_id=decision.decision_id, report_id="report", reward=0.5)
        router.ReportReward(report, timeout=_SECONDS)
        decisions.append(decision.decision_id)
    candidate = policy_pb.Policy(policy="learned")
    create = policy_pb.CreatePolicyRequest(parent="routers/default", policy_id="candidate", policy=candidate)
    policies.CreatePolicy(create, timeout=_SECONDS)
    named = registry.GetRouter(registry_pb.GetRouterRequest(name="routers/default"), timeout=_SECONDS).router
    routers = [f"routers/{each}" for each in (*_ROUTERS, "none")]
    parts = ["models/small", "models/large", "policies/candidate", "promotionSettings", "snapshots/1"]
    return {
        "name": [*routers, *(f"routers/default/{each}" for each in parts)],
        "parent": routers,
        "router": routers,
        "router_id": [*_ROUTERS, "new"],
        "model_id": [*_MODELS, "new"],
        "model": [*_MODELS, "none", "routers/default/models/small"],
        "policy_id": ["candidate", "new"],
        "policy": ["learned", "uniform", "cheapest", "fixed:small", "threshold:large:small:0.2"],
        "decision_id": decisions,
        "request_id": [f"request-{number}" for number in range(_DECISIONS)],
        "session_id": ["session"],
        "etag": ["", named.etag],
        "paths": ["objective", "state", "prices", "exploration.kind", "reward_rule", "*"],
    }
