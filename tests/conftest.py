"""Fixtures: one text embedding for the whole session, and servers on free loopback ports."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from servers import Disk, Running, running_app
from threadpoolctl import threadpool_limits

from policy.features import Featuriser

# As the command line does: two learners are compared to the last bit.
threadpool_limits(limits=1, user_api="blas")


@pytest.fixture(scope="session")
def featuriser() -> Featuriser:
    """The text embedding, loaded once."""
    return Featuriser()


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A database of the test's own."""
    return f"sqlite:///{tmp_path / 'pointsman.db'}"


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
