"""A running server as the commands meet it: the channel, what its failures are called, how wide tables are."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import click
import grpc
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from rich.console import Console

from server.doors import is_loopback

DEADLINE_SECONDS = 10.0
_KEY_VARIABLE = "POINTSMAN_API_KEY"
_ELSEWHERE_VARIABLE = "POINTSMAN_TLS_ENDS_ELSEWHERE"
_META = "pointsman.tls."

Command = TypeVar("Command", bound=Callable[..., Any])


def target_option(command: Command) -> Command:
    """Which server a command connects to."""
    option = click.option(
        "--target",
        default="127.0.0.1:50051",
        envvar="POINTSMAN_TARGET",
        show_default=True,
        show_envvar=True,
        help="HOST:PORT of the server.",
    )
    return option(command)


def tls_options(command: Command) -> Command:
    """The options of a command that connects: how it knows the server, and the server it."""
    for option in (
        _option("--tls", is_flag=True, help="Use TLS, with the authorities that gRPC knows."),
        _option("--ca", type=_FILE, help="PEM file of the server's authority; means TLS."),
        _option("--client-certificate", type=_FILE, help="PEM file of the certificate to show; means TLS."),
        _option("--client-key", type=_FILE, help="PEM file of that certificate's key."),
    )[::-1]:
        command = option(command)
    return command


_FILE = click.Path(path_type=Path)


def _option(flag: str, **given: Any) -> Callable[[Command], Command]:
    """An option that `open_channel` finds, so that no command has to hand it on. An API key is none: the command
    line is seen by others.
    """
    name = flag.removeprefix("--").replace("-", "_")

    def keep(context: click.Context, _parameter: click.Parameter, value: Any) -> None:
        context.meta[_META + name] = value

    variable = f"POINTSMAN_{name.upper()}"
    return click.option(flag, envvar=variable, show_envvar=True, expose_value=False, callback=keep, **given)


class _Details(NamedTuple):
    """grpc.ClientCallDetails, of which there is no class to make one of."""

    method: str
    timeout: float | None
    metadata: Sequence[tuple[str, str | bytes]] | None
    credentials: grpc.CallCredentials | None
    wait_for_ready: bool | None
    compression: Any


class _WithKey(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
):
    """Sends the key with every call. Credentials of gRPC's own would not go without TLS, as on loopback."""

    def __init__(self, key: str) -> None:
        self._metadata = ("authorization", f"Bearer {key}")

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return continuation(self._keyed(client_call_details), request)

    def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return continuation(self._keyed(client_call_details), request)

    def intercept_stream_unary(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return continuation(self._keyed(client_call_details), request_iterator)

    def _keyed(self, details: Any) -> _Details:
        metadata = [*(details.metadata or ()), self._metadata]
        return _Details(
            details.method,
            details.timeout,
            metadata,
            details.credentials,
            details.wait_for_ready,
            details.compression,
        )


def open_channel(target: str, options: Sequence[tuple[str, Any]] = ()) -> grpc.Channel:
    """A channel to the server by the options of `tls_options`, with the key of the environment if there is one.

    Raises UsageError for a file that cannot be read, or if the key could be read on its way.
    """
    given = {
        name: click.get_current_context().meta.get(_META + name)
        for name in ("tls", "ca", "client_certificate", "client_key")
    }
    key = os.environ.get(_KEY_VARIABLE, "").strip()
    if not any(given.values()):
        if (
            key
            and not _stays_here(target)
            and os.environ.get(_ELSEWHERE_VARIABLE, "").lower() not in ("1", "true")
        ):
            raise click.UsageError(
                f"{_KEY_VARIABLE} is set, and without TLS it could be read on its way to {target}: give --tls or "
                f"--ca, or set {_ELSEWHERE_VARIABLE}=true if a proxy has the TLS"
            )
        channel = grpc.insecure_channel(target, options)
    else:
        parts = [_read(given[name]) for name in ("ca", "client_key", "client_certificate")]
        channel = grpc.secure_channel(target, grpc.ssl_channel_credentials(*parts), options)
    return grpc.intercept_channel(channel, _WithKey(key)) if key else channel


def _read(path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        return path.read_bytes()
    except OSError as error:
        raise click.UsageError(f"{path}: cannot be read: {error.strerror}") from error


def _stays_here(target: str) -> bool:
    return target.startswith("unix:") or is_loopback(target.rpartition(":")[0])


@contextmanager
def connected(target: str, options: Sequence[tuple[str, Any]] = ()) -> Iterator[grpc.Channel]:
    """A channel to the server, with these options of gRPC's.

    A call that fails within the block raises ClickException naming the target.
    """
    try:
        with open_channel(target, options) as channel:
            yield channel
    except grpc.RpcError as error:
        raise click.ClickException(f"{target} answers {_describe(error)}") from error


def _describe(error: grpc.RpcError) -> str:
    """The status of a failed call, in one line."""
    return f"{error.code().name}: {error.details()}" if isinstance(error, grpc.Call) else str(error)


def all_pages(ask: Callable[..., Any], request: Any, listed: str, seconds: float = DEADLINE_SECONDS) -> list[Any]:
    """What a list has on all its pages, in each of which it is the field `listed`."""
    found: list[Any] = []
    while True:
        page = ask(request, timeout=seconds)
        found.extend(getattr(page, listed))
        if not page.next_page_token:
            return found
        request.page_token = page.next_page_token


def print_json(messages: Iterable[Message]) -> None:
    """Prints them as one list, each with the names of the proto."""
    click.echo(json.dumps([MessageToDict(each, preserving_proto_field_name=True) for each in messages]))


def console() -> Console:
    """Where tables are printed. Piped, a table has no width to fit into: ids are then printed whole."""
    return Console() if sys.stdout.isatty() else Console(width=200)
