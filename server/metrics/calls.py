"""How many calls there were of each method, how they ended and how long they took."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from server.metrics.distribution import SECONDS, Distribution


class MethodCalls:
    """The calls of one method. Counted in the event loop."""

    def __init__(self) -> None:
        self.running = 0
        self.codes: Counter[str] = Counter()
        self.seconds = Distribution(SECONDS)


class Calls(Collector):
    """The calls of every method."""

    def __init__(self) -> None:
        self._methods: dict[str, MethodCalls] = {}

    def method(self, name: str) -> MethodCalls:
        """That of the method that is served under this name, as `RouterService/Route`."""
        return self._methods.setdefault(name, MethodCalls())

    def collect(self) -> Iterator[Metric]:
        """Every metric with its values as of now."""
        requests = CounterMetricFamily(
            "pointsman_grpc_requests", "Calls answered, by the code they ended with.", labels=("method", "code")
        )
        running = GaugeMetricFamily("pointsman_grpc_requests_running", "Calls being answered.", labels=("method",))
        seconds = HistogramMetricFamily(
            "pointsman_grpc_request_seconds", "Seconds from a call to its answer.", labels=("method",)
        )
        for name, calls in sorted(self._methods.copy().items()):
            for code, count in sorted(calls.codes.copy().items()):
                requests.add_metric([name, code], count)
            running.add_metric([name], calls.running)
            seconds.add_metric([name], calls.seconds.buckets(), calls.seconds.total)
        yield from (requests, running, seconds)
