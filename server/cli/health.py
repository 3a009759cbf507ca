"""pointsman health: whether a server serves, for probes of containers and the like."""

from __future__ import annotations

import sys
from typing import Any

import click
import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from server.cli.remote import open_channel, target_option, tls_options

_SERVING = health_pb2.HealthCheckResponse.SERVING


@click.command()
@target_option
@tls_options
@click.option(
    "--service",
    default="",
    help="One of its services alone, as pointsman.v1.RouterService or pointsman.v1.evaluation.",
)
@click.option(
    "--deadline", type=click.FloatRange(0.1, 60), default=3.0, show_default=True, help="Seconds for an answer."
)
def health(target: str, service: str, deadline: float) -> None:
    """Say whether a server serves: ends with 0 if it does, and with 1 if not or if there is no answer."""
    with open_channel(target) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        try:
            status = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=deadline).status
        except grpc.RpcError as error:
            said = f"{error.code().name}: {error.details()}" if isinstance(error, grpc.Call) else str(error)
            click.echo(f"{target} answers {said}", err=True)
            sys.exit(1)
    click.echo(health_pb2.HealthCheckResponse.ServingStatus.Name(status))
    sys.exit(int(status != _SERVING))
