"""Rate and concurrency of each key, as far as this server sees them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

from server.errors import LimitExceededError
from server.keys import ApiKey

_ROOM_MIN = 64
_UNLIMITED = nullcontext()
_RETRY_SECONDS = 0.1  # Nobody knows when a request in flight will be answered.


@dataclass(slots=True)
class _Use:
    """What a key has left of its burst at a time, when it has all of it again, and its requests in flight."""

    left: float
    at_seconds: float
    full_seconds: float
    in_flight: int = 0


class Admission:
    """Lets a key's requests in, as fast and as many at once as the key allows. For one thread."""

    def __init__(self, clock_seconds: Callable[[], float]) -> None:
        self._clock_seconds = clock_seconds
        self._uses: dict[str, _Use] = {}
        self._room = _ROOM_MIN

    def request(self, key: ApiKey | None) -> AbstractContextManager[None]:
        """A request of the key, as long as the block; of None where no key is asked for.

        Entering raises LimitExceededError for one too many.
        """
        if key is None or (key.requests_per_second is None and key.concurrent_max is None):
            return _UNLIMITED
        return self._counted(key)

    @contextmanager
    def _counted(self, key: ApiKey) -> Iterator[None]:
        use = self._admit(key)
        use.in_flight += 1
        try:
            yield
        finally:
            use.in_flight -= 1

    def _admit(self, key: ApiKey) -> _Use:
        now = self._clock_seconds()
        burst = key.burst or math.ceil(key.requests_per_second or 1.0)
        if key.id not in self._uses:
            self._forget_idle(now)
        use = self._uses.setdefault(key.id, _Use(burst, now, now))
        if key.concurrent_max is not None and use.in_flight >= key.concurrent_max:
            raise LimitExceededError(
                "CONCURRENCY_LIMITED",
                f"key {key.id} has {key.concurrent_max} requests in flight, which is all it may",
                {"key": key.id, "concurrent_max": str(key.concurrent_max)},
                _RETRY_SECONDS,
            )
        rate = key.requests_per_second
        if rate is not None:
            use.left = min(burst, use.left + (now - use.at_seconds) * rate)
            use.at_seconds = now
            if use.left < 1.0:
                raise LimitExceededError(
                    "RATE_LIMITED",
                    f"key {key.id} may send {rate:g} requests a second",
                    {"key": key.id, "requests_per_second": f"{rate:g}"},
                    (1.0 - use.left) / rate,
                )
            use.left -= 1.0
            use.full_seconds = now + (burst - use.left) / rate
        return use

    def _forget_idle(self, now_seconds: float) -> None:
        """Keys come and go: of those that are at rest nothing has to be known, once there are many."""
        if len(self._uses) < self._room:
            return
        self._uses = {
            key_id: use for key_id, use in self._uses.items() if use.in_flight or now_seconds < use.full_seconds
        }
        self._room = max(_ROOM_MIN, 2 * len(self._uses))
