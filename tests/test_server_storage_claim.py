"""Which servers may use one SQLite file at a time: real processes, one after the other and killed."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from engines import SQLITE
from servers import POINTSMAN, running_app, serving_process

from policy.features import Featuriser
from server.storage import claim
from server.storage.claim import Claim
from server.storage.engine import migrate, open_engine

pytestmark = SQLITE

ALONE: tuple[str, ...] = ()
SHARING = [("--role", "router"), ("--role", "learner"), ("--share-port",), ("--learner-process",)]


def started(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """What becomes of a server that is not to start."""
    return subprocess.run(
        [str(POINTSMAN), "serve", "--port", "0", "--http-port", "off", "--database-url", url, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@contextmanager
def serving(url: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    with serving_process("--database-url", url, *arguments) as (process, _):
        yield process


def require_refused(done: subprocess.CompletedProcess[str], url: str) -> None:
    line = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 2, done.stderr
    assert line.startswith(f"pointsman: {url.removeprefix('sqlite:///')} is used by ")
    for right in ("--role, --share-port or --learner-process", "POINTSMAN_DATABASE_URL"):
        assert right in line


@pytest.mark.parametrize("sharing", SHARING, ids=" ".join)
def test_a_server_that_has_the_file_for_its_own_and_one_that_shares_it_do_not_go_together(
    url: str, sharing: tuple[str, ...]
) -> None:
    with serving(url, *sharing):
        require_refused(started(url), url)


def test_the_other_way_round_it_is_the_same_and_so_is_a_second_of_its_kind(url: str) -> None:
    with serving(url) as alone:
        for other in (SHARING[0], SHARING[3], ALONE):
            require_refused(started(url, *other), url)
        alone.send_signal(signal.SIGKILL)
        alone.wait()
        with serving(url, *SHARING[0]):
            pass
        with serving(url):
            pass


def test_no_command_that_works_on_the_file_is_hindered(url: str, tmp_path: Path) -> None:
    given = {**os.environ, "POINTSMAN_DATABASE_URL": url}
    with serving(url):
        for command in (("verify",), ("backup", str(tmp_path / "copy.db")), ("keys", "list")):
            done = subprocess.run(
                [str(POINTSMAN), *command], env=given, capture_output=True, text=True, check=False, timeout=60
            )
            assert done.returncode == 0, done.stderr


async def test_a_server_that_has_stopped_has_let_go_of_it(url: str, featuriser: Featuriser) -> None:
    async with running_app(url, featuriser):
        pass
    async with running_app(url, featuriser, role="router"), running_app(url, featuriser, share_port=True):
        with pytest.raises(OSError, match="this one does not share it"):
            async with running_app(url, featuriser):
                pass
    async with running_app(url, featuriser):
        pass


def test_a_lock_that_cannot_be_had_keeps_nobody_from_serving(url: str, caplog: pytest.LogCaptureFixture) -> None:
    engine = open_engine(url)
    migrate(engine)
    Path(f"{engine.url.database}-serve.lock").mkdir()
    with caplog.at_level(logging.WARNING):
        Claim(engine, shared=False).take()
    engine.dispose()
    assert "cannot be told" in caplog.text
    assert "-serve.lock" in caplog.text


def test_one_that_is_about_to_end_is_waited_for(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = open_engine(url)
    migrate(engine)
    ending, next_one = Claim(engine, shared=True), Claim(engine, shared=False)
    ending.take()
    monkeypatch.setattr(claim.time, "sleep", lambda _: ending.release())
    next_one.take()
    next_one.release()
    engine.dispose()
