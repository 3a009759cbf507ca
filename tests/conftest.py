"""Fixtures: one text embedding for the whole session, and servers on free loopback ports."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from engines import ENGINE, PostgreSQL, running_postgresql
from servers import Disk, Running, running_app
from threadpoolctl import threadpool_limits

from policy.features import Featuriser

# As the command line does: two learners are compared to the last bit.
threadpool_limits(limits=1, user_api="blas")


@pytest.fixture(scope="session", autouse=True)
def _saving_often() -> Iterator[None]:
    """A learner or an evaluation whose saving takes long, as it does on a busy machine, puts the next one off for
    the sake of who is answered meanwhile, by up to a minute: a test that waits for it gains nothing by that.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("server.learner_loop._SAVE_SHARE", 0.5)
        patch.setattr("server.evaluation_loop._UPKEEP_SHARE", 0.5)
        yield


@pytest.fixture(scope="session")
def featuriser() -> Featuriser:
    """The text embedding, loaded once."""
    return Featuriser()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Runs a test that uses a database on each of the engines that it, or else its module, is marked with."""
    marker = metafunc.definition.get_closest_marker("engines")
    if marker and "engine" in metafunc.fixturenames:
        metafunc.parametrize("engine", marker.args, indirect=True)


@pytest.fixture
def engine(request: pytest.FixtureRequest) -> str:
    """What the test's database is of."""
    return str(getattr(request, "param", ENGINE))


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """A PostgreSQL of the tests' own."""
    with running_postgresql() as server:
        yield server


@pytest.fixture
def url(engine: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """A database of the test's own."""
    if engine == "sqlite":
        yield f"sqlite:///{tmp_path / 'pointsman.db'}"
        return
    server: PostgreSQL = request.getfixturevalue("postgresql")
    database = server.new_database()
    yield database
    server.drop(database)


@pytest.fixture
async def server(url: str, featuriser: Featuriser) -> AsyncIterator[Running]:
    """A server with an empty database."""
    async with running_app(url, featuriser) as running:
        yield running


@pytest.fixture
def disk(url: str) -> Iterator[Disk]:
    """A log on disk, without a server."""
    log = Disk(url)
    yield log
    log.close()


@pytest.fixture
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test works where its database is, with no settings of whoever runs it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("POINTSMAN_DATABASE_URL", raising=False)
