"""The metrics for Prometheus: put together when they are asked for, so that no request waits for them."""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from policy.promotion import gain_over_fixed
from server.evaluation_loop import Found
from server.registry import Registry
from server.views import Views

_ROUTER = ("router",)
_MODEL = ("router", "model")


class Metrics(Collector):
    """What is known of the routers now. Counts and money are those that the learner has learned of.

    `noted` and `counted` may be called from any thread.
    """

    def __init__(
        self, registry: Registry, views: Views, is_storage_away: Callable[[], bool] = lambda: False
    ) -> None:
        self._registry = registry
        self._views = views
        self._is_storage_away = is_storage_away
        self._found: dict[str, Found] = {}
        self._reports: Counter[str] = Counter()
        self._server: Any = None
        self._thread: threading.Thread | None = None
        self.port = 0

    def noted(self, router_id: str, found: Found) -> None:
        """Takes what the evaluation has found of a router."""
        self._found[router_id] = found

    def counted(self, disposition: str) -> None:
        """A report was answered with this disposition."""
        self._reports[disposition] += 1

    def serve(self, host: str, port: int) -> None:
        """Answers scrapes at /metrics, in threads of its own. Raises OSError if the address is taken."""
        scraped = CollectorRegistry()
        scraped.register(self)
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

    def collect(self) -> Iterator[Metric]:
        """Every metric with its values as of now."""
        yield from self._policies()
        yield from self._counts()

    def _policies(self) -> Iterator[Metric]:
        gain = GaugeMetricFamily(
            "pointsman_live_policy_utility_gain",
            "Utility of a decision of the live policy less that of the best model alone, as estimated.",
            labels=_ROUTER,
        )
        ends = [
            GaugeMetricFamily(
                f"pointsman_live_policy_utility_gain_{end}",
                f"The {end} end of its interval, which holds at all times at once.",
                labels=_ROUTER,
            )
            for end in ("low", "high")
        ]
        worse = GaugeMetricFamily(
            "pointsman_live_policy_worse", "1 if a model alone is better, with confidence.", labels=_ROUTER
        )
        crossed = GaugeMetricFamily(
            "pointsman_guardrail_crossed",
            "1 if the live policy has crossed a guardrail since it was promoted.",
            labels=_ROUTER,
        )
        for entry in self._registry.entries():
            router_id = entry.router.id
            found = self._found.get(router_id)
            if found is None:
                continue
            worse.add_metric([router_id], float(bool(found.worse_than)))
            crossed.add_metric([router_id], float(found.crossed is not None))
            known = gain_over_fixed(found.results)
            if known is None:
                continue
            value, interval = known
            for family, each in zip((gain, *ends), (value, interval.low, interval.high), strict=True):
                if math.isfinite(each):
                    family.add_metric([router_id], each)
        yield from (gain, *ends, worse, crossed)

    def _counts(self) -> Iterator[Metric]:
        reports = CounterMetricFamily(
            "pointsman_reports", "Reports answered since the server has started.", labels=("disposition",)
        )
        for disposition, count in sorted(self._reports.copy().items()):
            reports.add_metric([disposition], count)
        yield reports
        yield GaugeMetricFamily(
            "pointsman_storage_away",
            "1 while what is to be logged cannot be stored, as far as is known.",
            value=float(self._is_storage_away()),
        )
        decisions = CounterMetricFamily(
            "pointsman_decisions", "Decisions that the learner has heard of, by their model.", labels=_MODEL
        )
        errors = CounterMetricFamily("pointsman_model_errors", "Calls reported as failed.", labels=_MODEL)
        spent = CounterMetricFamily("pointsman_spent_usd", "USD charged to the router.", labels=_ROUTER)
        for entry in self._registry.entries():
            router = entry.router
            view = self._views.get(router)
            spent.add_metric([router.id], view.router.spent_usd)
            for model in router.models:
                record = view.models.get(model.key)
                if record is not None:
                    decisions.add_metric([router.id, model.id], record.decisions)
                    errors.add_metric([router.id, model.id], record.errors)
        yield from (decisions, errors, spent)
