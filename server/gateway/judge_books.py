"""What judges have cost today, by router, so that a day's cap holds across restarts and crashes."""

from __future__ import annotations

import contextlib
import datetime as dt
import fcntl
import json
import logging
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO

from server.gateway.settings import SettingError

logger = logging.getLogger(__name__)

# The file runs ahead by so much of the cap: it is written this often a day, and after a crash so much is lost.
_STEP = 1 / 50


def utc_day() -> str:
    """Today, as 2026-11-25."""
    return dt.datetime.now(dt.UTC).date().isoformat()


class JudgeBooks:
    """A call is let through only if the most that it can cost is left; then it is booked at what it did cost.

    The file never says less than was spent and may yet be spent by calls under way, so that a gateway which is
    killed begins with too little left rather than too much. Raises SettingError for a file that cannot be used.
    """

    def __init__(self, path: Path, caps_usd: Mapping[str, float], day: Callable[[], str] = utc_day) -> None:
        self._path = path
        self._caps_usd = caps_usd
        self._today = day
        with contextlib.ExitStack() as opened:
            self._lock = opened.enter_context(_lock(path))
            self._day, self._stated = _read(path)
            opened.pop_all()
        self._spent = dict(self._stated)
        self._held: dict[str, float] = {}

    def hold(self, router: str, most_usd: float) -> bool:
        """Keeps so much for a call that begins now; False if the day's cap does not have it."""
        self._turn()
        cap = self._caps_usd[router]
        needed = self.spent_usd(router) + self._held.get(router, 0.0) + most_usd
        if needed > cap:
            return False
        if needed > self._stated.get(router, 0.0) and not self._state(router, min(cap, needed + _STEP * cap)):
            return False
        self._held[router] = self._held.get(router, 0.0) + most_usd
        return True

    def settle(self, router: str, most_usd: float, cost_usd: float) -> None:
        """A call that had `most_usd` kept for it has ended, and has cost so much."""
        self._turn()
        self._held[router] = max(0.0, self._held.get(router, 0.0) - most_usd)
        self._spent[router] = self._spent.get(router, 0.0) + cost_usd
        if self._spent[router] > self._stated.get(router, 0.0):
            self._state(router, self._spent[router])

    def spent_usd(self, router: str) -> float:
        """What is booked today."""
        return self._spent.get(router, 0.0) if self._day == self._today() else 0.0

    def close(self) -> None:
        """Writes what was really spent, with what calls that are still under way may cost."""
        self._turn()
        routers = self._spent.keys() | self._held.keys()
        exact = {each: self._spent.get(each, 0.0) + self._held.get(each, 0.0) for each in routers}
        if exact:
            self._write(exact)
        self._lock.close()

    def _turn(self) -> None:
        """A new day begins with nothing spent, but with what is kept for calls under way."""
        today = self._today()
        if today != self._day:
            self._day, self._stated, self._spent = today, {}, {}

    def _state(self, router: str, usd: float) -> bool:
        stated = {**self._stated, router: usd}
        if not self._write(stated):
            return False
        self._stated = stated
        return True

    def _write(self, stated: Mapping[str, float]) -> bool:
        """Without a word on disk nothing more is spent: the cap comes first."""
        fresh = self._path.with_name(self._path.name + ".new")
        try:
            with fresh.open("w", encoding="utf-8") as file:
                json.dump({"day": self._day, "spent_usd": stated}, file)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self._path)
        except OSError as error:
            logger.error("judge_books_file: %s cannot be written: %s", self._path, error.strerror)
            return False
        return True


def _lock(path: Path) -> IO[str]:
    place = path.with_name(path.name + ".lock")
    try:
        file = place.open("w", encoding="utf-8")
    except OSError as error:
        raise SettingError(f"judge_books_file: {place} cannot be written: {error.strerror}") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise SettingError(f"judge_books_file: {path} is used by another gateway: give each its own") from error
    return file


def _read(path: Path) -> tuple[str, dict[str, float]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        day, spent = content["day"], {str(name): float(usd) for name, usd in content["spent_usd"].items()}
    except FileNotFoundError:
        return "", {}
    except OSError as error:
        raise SettingError(f"judge_books_file: {path} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise SettingError(f"judge_books_file: {path} is not what a gateway wrote; remove it") from error
    if not isinstance(day, str) or not all(math.isfinite(usd) and usd >= 0 for usd in spent.values()):
        raise SettingError(f"judge_books_file: {path} is not what a gateway wrote; remove it")
    return day, spent
