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

from scripts.inputs.contents import Filling

_SECONDS = 30.0
_TRACEBACK_MAX = 8000
_SETTINGS = {
    "POINTSMAN_DURABILITY": "process_crash",
    "POINTSMAN_HTTP_PORT": "off",
    "POINTSMAN_LOG_LEVEL": "WARNING",
    # A machine that is busy is not storage that is away.
    "POINTSMAN_STORAGE_WAIT_SECONDS": "30",
}


class StartError(Exception):
    """The server did not start."""


@dataclass
class Target:
    """A running server."""

    process: subprocess.Popen[bytes]
    port: int
    channel: grpc.Channel
    url: str
    log: Path
    filling: Filling

    def traceback(self) -> str:
        """The first one in the server's log; empty if there is none."""
        said = self.log.read_text(errors="replace")
        return said[said.index("Traceback") :][:_TRACEBACK_MAX] if "Traceback" in said else ""

    def faults(self) -> list[str]:
        """What is wrong with the server now."""
        if self.process.poll() is not None:
            return [f"the server has ended with {self.process.returncode}"]
        traceback = self.traceback()
        found = [f"the log has a traceback: {traceback}"] if traceback else []
        health: Any = health_pb2_grpc.HealthStub(self.channel)
        status = health.Check(health_pb2.HealthCheckRequest(), timeout=_SECONDS)
        if status.status != health_pb2.HealthCheckResponse.SERVING:
            found.append("the server is not SERVING")
        return found

    def resident_bytes(self) -> int:
        """The memory that the server holds; 0 where the system does not say."""
        status = Path(f"/proc/{self.process.pid}/statm")
        return int(status.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if status.exists() else 0


@contextmanager
def running(folder: Path, url: str) -> Iterator[Target]:
    """A server on the database, its log in the folder; ended with SIGKILL. Raises StartError."""
    log = folder / "server.log"
    command = [sys.executable, "-m", "server.cli.main", "serve", "--port", "0", "--database-url", url]
    with log.open("wb") as written:
        process = subprocess.Popen(  # noqa: S603
            command,
            stdout=subprocess.DEVNULL,
            stderr=written,
            env={**os.environ, **_SETTINGS},
        )
    try:
        port = _port(process, log)
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield Target(process, port, channel, url, log, Filling(channel))
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
