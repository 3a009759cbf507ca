"""GetHistory: what a router did over time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sqlalchemy import Engine

from policy.domain import InvalidFieldError
from server.errors import RouterNotFoundError
from server.registry import Registry
from server.storage.bounded_reads import BoundedReads
from server.storage.history_store import (
    DAY_MINUTES,
    HOUR_MINUTES,
    KEPT_DAYS,
    LEVELS_MINUTES,
    MINUTE_US,
    Counts,
    read_cursor,
    read_history,
)

BUCKETS_MAX = 500

_BUCKETS_USUAL = 120
_BUCKET_MINUTES_MAX = 366 * DAY_MINUTES
_ROUND_MINUTES = (1, 2, 5, 10, 15, 30, 60, 120, 180, 360, 720)


@dataclass(frozen=True, slots=True)
class History:
    """Counts by the bucket's first minute since 1970 and by model; those in which nothing was are not there.

    The buckets are those from `start_minute` to before `end_minute`. The log is counted up to `counted`.
    """

    start_minute: int
    end_minute: int
    bucket_minutes: int
    counted: int
    buckets: Mapping[int, Mapping[str, Counts]]


class GetHistory:
    """Reads what the history loop has counted; `position` is up to where."""

    def __init__(
        self,
        engine: Engine,
        registry: Registry,
        reads: BoundedReads,
        clock_us: Callable[[], int],
        position: Callable[[], int],
    ) -> None:
        self._engine = engine.execution_options(read_only=True)
        self._registry = registry
        self._reads = reads
        self._clock_us = clock_us
        self._position = position

    async def __call__(
        self, router_id: str, start_us: int | None, end_us: int | None, bucket_us: int | None
    ) -> History:
        """The history of a router; without `end_us` up to now, without `start_us` of a day, without `bucket_us` in
        buckets of a round length, 120 at most.

        Raises InvalidFieldError, RouterNotFoundError, StorageUnavailableError.
        """
        entry = self._registry.entry(router_id)
        if entry is None:
            raise RouterNotFoundError(router_id)
        now_us = self._clock_us()
        upto_us = now_us if end_us is None else min(end_us, now_us)
        if start_us is not None and start_us >= upto_us:
            raise InvalidFieldError("start_time", "must be before end_time, and before now")
        now, end = now_us // MINUTE_US, -(-upto_us // MINUTE_US)
        start = max(end - DAY_MINUTES, 0) if start_us is None else start_us // MINUTE_US
        age = now - start
        bucket = _usual_bucket(end - start, age) if bucket_us is None else _bucket(bucket_us, age)
        start, end = start - start % bucket, -(-end // bucket) * bucket
        if (end - start) // bucket > BUCKETS_MAX:
            raise InvalidFieldError(
                "bucket", f"must be longer: at most {BUCKETS_MAX} are given, not {(end - start) // bucket}"
            )
        uid, known = entry.router.uid, self._position()

        def read() -> History:
            with self._engine.connect() as connection:
                # The cursor is not stored where there was nothing to count.
                counted = max(read_cursor(connection).seq, known)
                return History(start, end, bucket, counted, read_history(connection, uid, start, end, bucket))

        return await self._reads(read)


def _bucket(bucket_us: int, age_minutes: int) -> int:
    """The length that was asked for, in minutes. Raises InvalidFieldError if nothing is kept of it."""
    bucket, rest = divmod(bucket_us, MINUTE_US)
    if rest or not 1 <= bucket <= _BUCKET_MINUTES_MAX:
        raise InvalidFieldError("bucket", "must be a whole number of minutes, from one to those of 366 days")
    if not _is_kept(bucket, age_minutes):
        raise InvalidFieldError(
            "bucket",
            f"must be made of what is still kept of start_time: minutes for {KEPT_DAYS[1]} days, hours for "
            f"{KEPT_DAYS[HOUR_MINUTES]} days, days for ever",
        )
    return bucket


def _usual_bucket(minutes: int, age_minutes: int) -> int:
    for each in _ROUND_MINUTES:
        if minutes <= each * _BUCKETS_USUAL and _is_kept(each, age_minutes):
            return each
    return DAY_MINUTES * max(1, -(-minutes // (DAY_MINUTES * _BUCKETS_USUAL)))


def _is_kept(bucket: int, age_minutes: int) -> bool:
    days = KEPT_DAYS[max(each for each in LEVELS_MINUTES if bucket % each == 0)]
    return days is None or age_minutes <= days * DAY_MINUTES
