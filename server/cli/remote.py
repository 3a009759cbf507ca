"""A running server as the commands meet it: the channel, what its failures are called, how wide tables are."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click
import grpc
from rich.console import Console

DEADLINE_SECONDS = 10.0
TARGET_DEFAULT = "127.0.0.1:50051"


@contextmanager
def connected(target: str, options: Sequence[tuple[str, Any]] = ()) -> Iterator[grpc.Channel]:
    """A channel to the server, with these options of gRPC's.

    A call that fails within the block raises ClickException naming the target.
    """
    try:
        with grpc.insecure_channel(target, options) as channel:
            yield channel
    except grpc.RpcError as error:
        raise click.ClickException(f"{target} answers {_describe(error)}") from error


def _describe(error: grpc.RpcError) -> str:
    """The status of a failed call, in one line."""
    return f"{error.code().name}: {error.details()}" if isinstance(error, grpc.Call) else str(error)


def console() -> Console:
    """Where tables are printed. Piped, a table has no width to fit into: ids are then printed whole."""
    return Console() if sys.stdout.isatty() else Console(width=200)
