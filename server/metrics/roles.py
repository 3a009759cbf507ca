"""Who learns, and how old what decisions are made with is."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from server.registry import Registry
from server.views import Views


class Roles(Collector):
    """`learning_since_us` is when the server's turn to learn began, None while another learns. `unlearned` is how
    many positions of the log are not in the published views, as of the last look; None where none are published.
    """

    def __init__(
        self,
        registry: Registry,
        views: Views,
        learning_since_us: Callable[[], int | None],
        unlearned: Callable[[], int | None],
    ) -> None:
        self._registry = registry
        self._views = views
        self._learning_since_us = learning_since_us
        self._unlearned = unlearned

    def collect(self) -> Iterator[Metric]:
        """Every metric with its values as of now."""
        since_us = self._learning_since_us()
        yield GaugeMetricFamily(
            "pointsman_learner_active",
            "1 if this server is the one that learns.",
            value=float(since_us is not None),
        )
        since = GaugeMetricFamily(
            "pointsman_learner_active_since_timestamp_seconds", "When its turn began, since 1970.", labels=()
        )
        if since_us is not None:
            since.add_metric([], since_us * 1e-6)
        yield since
        lag = GaugeMetricFamily(
            "pointsman_views_lag_records",
            "Where several processes use the database: records of the log not in what the learner has published.",
            labels=(),
        )
        unlearned = self._unlearned()
        if unlearned is not None:
            lag.add_metric([], unlearned)
        yield lag
        age = GaugeMetricFamily(
            "pointsman_view_age_seconds",
            "Seconds since what the router decides with was learned; it grows while there is no news.",
            labels=("router",),
        )
        for entry in self._registry.entries():
            seconds = self._views.age_seconds(entry.router.id)
            if seconds is not None:
                age.add_metric([entry.router.id], seconds)
        yield age
