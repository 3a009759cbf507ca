"""Keys and certificates for the tests, and calls that show a key."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import grpc
import trustme
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from server.clock import now_us
from server.keys import ApiKey, Scope, digest_of, new_key_text
from server.storage.engine import migrate, open_engine
from server.storage.key_store import create_key


def add_key(url: str, *scopes: Scope, routers: Iterable[str] = (), **fields: Any) -> str:
    """Puts a key into the database, of all scopes if none is given; gives its text."""
    key_id, text = new_key_text()
    mine = frozenset(routers) or None
    key = ApiKey(key_id, "test", digest_of(text), frozenset(scopes or Scope), now_us(), mine, **fields)
    engine = open_engine(url)
    try:
        migrate(engine)
        create_key(engine, key)
    finally:
        engine.dispose()
    return text


def bearer(key: str) -> list[tuple[str, str]]:
    """The metadata that shows a key."""
    return [("authorization", f"Bearer {key}")]


async def outcome(
    channel: grpc.aio.Channel, method: str, request: bytes = b"", metadata: Iterable[tuple[str, str]] = ()
) -> tuple[grpc.StatusCode, str]:
    """The code of a call of any kind, and the reason of its ErrorInfo; of a watch, which has no end, OK once it is
    answered.
    """

    async def once() -> AsyncIterator[bytes]:
        yield request

    call = channel.stream_stream(method)(once(), metadata=list(metadata), timeout=30)
    try:
        async for _ in call:
            if method.endswith("/Watch"):
                call.cancel()
                return grpc.StatusCode.OK, ""
    except grpc.aio.AioRpcError as error:
        info = error_details_pb2.ErrorInfo()
        status = rpc_status.from_call(error)
        for detail in status.details if status else ():
            detail.Unpack(info)
        return error.code(), info.reason
    return await call.code(), ""


class Authority:
    """An authority with the files of the certificates that it gives."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._ca = trustme.CA()
        self.ca = folder / "ca.pem"
        self._ca.cert_pem.write_to_path(self.ca)
        self.roots = self.ca.read_bytes()

    def issue(self, name: str = "server", *identities: str, **given: Any) -> tuple[Path, Path]:
        """The files of a certificate and its key."""
        made = self._ca.issue_cert(*(identities or ("localhost", "127.0.0.1")), **given)
        certificate, key = self._folder / f"{name}.pem", self._folder / f"{name}-key.pem"
        certificate.write_bytes(b"".join(each.bytes() for each in made.cert_chain_pems))
        made.private_key_pem.write_to_path(key)
        return certificate, key
