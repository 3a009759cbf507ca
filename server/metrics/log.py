"""The log's writer, and those who follow the log: how far behind it they are, and how old what they saved is."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping

from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from server.metrics.distribution import SECONDS, Distribution
from server.storage.positions import Positions, read_positions, time_after_us

logger = logging.getLogger(__name__)

_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class Batches(Collector):
    """The transactions of the log's one writer."""

    def __init__(self) -> None:
        self._sizes = Distribution(_SIZES)
        self._seconds = Distribution(SECONDS)

    def add(self, size: int, seconds: float) -> None:
        """A batch of so many writes has been committed, or has failed, after so many seconds."""
        self._sizes.add(size)
        self._seconds.add(seconds)

    def collect(self) -> Iterator[Metric]:
        """Every metric with its values as of now."""
        for name, told, found in (
            ("pointsman_log_batch_writes", "Writes that shared a transaction.", self._sizes),
            ("pointsman_log_commit_seconds", "Seconds that a transaction of the log took.", self._seconds),
        ):
            yield HistogramMetricFamily(name, told, buckets=found.buckets(), sum_value=found.total)


class Following(Collector):
    """`followers` are those of this process by name, each with up to where it has followed the log, None while it
    does not. `waiting` is how many writes wait for the disk.

    The head of the log is asked of the database at each scrape, since other servers write, too.
    """

    def __init__(
        self,
        engine: Engine,
        clock_us: Callable[[], int],
        waiting: Callable[[], int],
        queue_max: int,
        followers: Mapping[str, Callable[[], int | None]],
        is_storage_away: Callable[[], bool] = lambda: False,
    ) -> None:
        self._engine = engine
        self._clock_us = clock_us
        self._waiting = waiting
        self._queue_max = queue_max
        self._followers = followers
        self._is_storage_away = is_storage_away

    def collect(self) -> Iterator[Metric]:
        """Every metric with its values as of now."""
        yield GaugeMetricFamily(
            "pointsman_log_queue_writes", "Writes that wait for the disk.", value=self._waiting()
        )
        yield GaugeMetricFamily(
            "pointsman_log_queue_writes_max", "Writes that may wait; one more is refused.", value=self._queue_max
        )
        yield GaugeMetricFamily(
            "pointsman_storage_away",
            "1 while what is to be logged cannot be stored, as far as is known.",
            value=float(self._is_storage_away()),
        )
        # Before the head, so that nobody seems to be ahead of it.
        positions = {name: position() for name, position in self._followers.items()}
        found, behind_us = None, dict[str, int]()
        try:
            found = read_positions(self._engine)
            behind_us = {
                name: self._behind_us(position) if position < found.head else 0
                for name, position in positions.items()
                if position is not None
            }
        except (SQLAlchemyError, OSError) as error:
            logger.warning("the metrics cannot reach the log: %s", error)
        yield GaugeMetricFamily(
            "pointsman_log_reachable",
            "1 if the log could be read for this scrape.",
            value=float(found is not None),
        )
        yield from self._lags(found, positions, behind_us)
        yield self._saved(found)

    def _behind_us(self, position: int) -> int:
        since_us = time_after_us(self._engine, position)
        return 0 if since_us is None else max(0, self._clock_us() - since_us)

    def _lags(
        self, found: Positions | None, positions: Mapping[str, int | None], behind_us: Mapping[str, int]
    ) -> Iterator[Metric]:
        head = GaugeMetricFamily(
            "pointsman_log_position", "Records of the log: the last position given out.", labels=()
        )
        running = GaugeMetricFamily(
            "pointsman_follower_running", "1 if what follows the log has begun to.", labels=("follower",)
        )
        records = GaugeMetricFamily(
            "pointsman_follower_lag_records", "Records of the log not followed yet.", labels=("follower",)
        )
        seconds = GaugeMetricFamily(
            "pointsman_follower_lag_seconds",
            "Age of the oldest record not followed yet, 0 without one.",
            labels=("follower",),
        )
        if found is not None:
            head.add_metric([], found.head)
        for name, position in positions.items():
            running.add_metric([name], float(position is not None))
            if found is not None and position is not None:
                records.add_metric([name], max(0, found.head - position))
                seconds.add_metric([name], behind_us[name] * 1e-6)
        yield from (head, running, records, seconds)

    def _saved(self, found: Positions | None) -> Metric:
        saved = GaugeMetricFamily(
            "pointsman_snapshot_timestamp_seconds",
            "When the newest snapshot was saved, since 1970; one is saved only if there is news.",
            labels=("router",),
        )
        if found is not None:
            for router_id, (_, time_us) in sorted(found.snapshots.items()):
                saved.add_metric([router_id], time_us * 1e-6)
        return saved
