"""The metrics of a server, and the port that Prometheus asks for them at."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.metadata import version
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    start_http_server,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from server.evaluation_loop import Found
from server.metrics.calls import Calls
from server.metrics.learned import Learned
from server.metrics.log import Batches, Following
from server.metrics.policies import Policies
from server.metrics.roles import Roles
from server.registry import Registry
from server.views import Views


class Metrics(Collector):
    """What is known now. Counts and money are those that the learner has learned of.

    `noted`, `counted` and `level` may be called from any thread.
    """

    def __init__(self, registry: Registry, views: Views, clock_us: Callable[[], int]) -> None:
        self.calls = Calls()
        self.batches = Batches()
        self._learned = Learned(registry, views, clock_us)
        self._policies = Policies(registry)
        self._reports: Counter[str] = Counter()
        self._following: Following | None = None
        self._roles: Roles | None = None
        self._server: Any = None
        self._thread: threading.Thread | None = None
        self.port = 0

    def follow(self, following: Following, roles: Roles) -> None:
        """Tells also who follows the log, and who learns."""
        self._following = following
        self._roles = roles

    def level(self) -> None:
        """The learner has caught up with the log."""
        self._learned.begin()

    def noted(self, router_id: str, found: Found | None) -> None:
        """Takes what the evaluation has found of a router, None once that is gone."""
        self._policies.noted(router_id, found)

    def forget(self) -> None:
        """Another server evaluates: what was found here is old."""
        self._policies.forget()

    def counted(self, disposition: str) -> None:
        """A report was answered with this disposition."""
        self._reports[disposition] += 1

    def serve(self, host: str, port: int) -> None:
        """Answers scrapes at /metrics, in threads of its own. Raises OSError if the address is taken."""
        scraped = CollectorRegistry()
        scraped.register(self)
        ProcessCollector(registry=scraped)
        PlatformCollector(registry=scraped)
        GCCollector(registry=scraped)
        try:
            self._server, self._thread = start_http_server(port, host, scraped)
        except OSError as error:
            raise OSError(
                f"cannot listen for metrics on {host}:{port}: it is taken by another server, or no address of "
                "this machine"
            ) from error
        self.port = self._server.server_port

    def stop(self) -> None:
        """Answers no more."""
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()

    def describe(self) -> Iterator[Metric]:
        """Nothing, so that being registered asks for nothing."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Every metric with its values as of now."""
        build = GaugeMetricFamily(
            "pointsman_build_info", "1, with the version of the server.", labels=("version",)
        )
        build.add_metric([version("pointsman")], 1.0)
        yield build
        reports = CounterMetricFamily(
            "pointsman_reports", "Reports answered since the server has started.", labels=("disposition",)
        )
        for disposition, count in sorted(self._reports.copy().items()):
            reports.add_metric([disposition], count)
        yield reports
        for each in (self.calls, self.batches, self._following, self._roles, self._learned, self._policies):
            if each is not None:
                yield from each.collect()
