"""What processes of one machine have of an SQLite file beside its tables: who holds its lock, and how it fails."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from server.storage.engine import migrate, open_engine
from server.storage.session import Session, SessionLostError, open_session


@contextmanager
def session_on(url: str) -> Iterator[Session]:
    engine = open_engine(url)
    try:
        migrate(engine)
        with closing(open_session(engine)) as session:
            yield session
    finally:
        engine.dispose()


def test_a_lock_is_the_same_from_any_folder_and_by_any_url(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a b").mkdir()
    monkeypatch.chdir(tmp_path)
    with session_on("sqlite:///a b/p.db") as one:
        assert one.try_lock("learn")
        monkeypatch.chdir(tmp_path / "a b")
        for url in ("sqlite:///p.db", f"sqlite:///{tmp_path}/a b/p.db", "sqlite:///../a b/p.db"):
            with session_on(url) as other:
                assert not other.try_lock("learn")
    with session_on("sqlite:///p.db") as next_one:
        assert next_one.try_lock("learn")


@pytest.mark.parametrize("mode", [0o600, 0o660])
def test_who_may_use_the_database_may_use_its_locks(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "p.db"
    path.touch(mode)
    path.chmod(mode)
    with session_on(f"sqlite:///{path}") as session:
        assert session.try_lock("learn")
        lock = Path(f"{path}-learn.lock").stat()
        assert (lock.st_mode & 0o777, lock.st_uid, lock.st_gid) == (mode, path.stat().st_uid, path.stat().st_gid)


def test_a_database_that_cannot_be_opened_is_no_fault_of_ours(tmp_path: Path) -> None:
    (tmp_path / "p.db").mkdir()
    engine = open_engine(f"sqlite:///{tmp_path / 'p.db'}")
    with pytest.raises(SessionLostError, match="unable to open database file"):
        open_session(engine)
    engine.dispose()


def test_a_lock_whose_file_cannot_be_had_is_said_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "p.db"
    Path(f"{path}-learn.lock").mkdir()
    with session_on(f"sqlite:///{path}") as session, pytest.raises(SessionLostError, match=r"p\.db-learn\.lock"):
        session.try_lock("learn")
