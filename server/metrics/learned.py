"""What has been learned of routers and their models: money, rewards, exploration, circuits."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from policy.circuit import Phase
from policy.domain import Router
from policy.view import ModelRecord, PolicyView
from server.metrics.rising import Rising
from server.registry import Registry
from server.views import Views

_ROUTER = ("router",)
_MODEL = ("router", "model")
_PHASES = {Phase.CLOSED: 0.0, Phase.HALF_OPEN: 1.0, Phase.OPEN: 2.0}

ModelTotal = tuple[str, str, Callable[[ModelRecord], float]]
RouterTotal = tuple[str, str, Callable[[PolicyView], float]]

MODEL_TOTALS: tuple[ModelTotal, ...] = (
    ("pointsman_decisions", "Decisions that the learner has heard of, by their model.", lambda r: r.decisions),
    ("pointsman_model_errors", "Calls reported as failed.", lambda r: r.errors),
    ("pointsman_model_cost_usd", "USD that calls of the model were reported to cost.", lambda r: r.cost_sum_usd),
    ("pointsman_rewards", "Rewards learned from.", lambda r: r.rewards),
    ("pointsman_windows_closed", "Decisions whose join window has closed.", lambda r: r.closed),
    ("pointsman_rewards_missing", "Of them those that no reward came for.", lambda r: r.missing),
)
ROUTER_TOTALS: tuple[RouterTotal, ...] = (
    ("pointsman_spent_usd", "USD charged to the router.", lambda v: v.router.spent_usd),
    (
        "pointsman_exploration_decisions",
        "Draws not of the best known.",
        lambda v: v.router.explored.decisions,
    ),
    ("pointsman_exploration_utility", "Utility they gave up, as predicted.", lambda v: v.router.explored.utility),
    ("pointsman_second_calls", "Decisions that named a second model to call.", lambda v: v.router.second.calls),
    ("pointsman_second_calls_spent_usd", "USD spent on second calls.", lambda v: v.router.second.spent_usd),
)


class Learned(Collector):
    """What the views hold. Before `begin` there is nothing of it: a learner that still reads the log would look
    like one that has just lost everything.

    `begin` may be called from any thread, and more than once.
    """

    def __init__(self, registry: Registry, views: Views, clock_us: Callable[[], int]) -> None:
        self._registry = registry
        self._views = views
        self._clock_us = clock_us
        self._lock = threading.Lock()
        self._begun = False
        self._rising = Rising()

    def begin(self) -> None:
        """The learner has read the log as far as it goes: counts are of what comes from here on."""
        with self._lock:
            if self._begun:
                return
            for router, view in self._known():
                for name, _, total in ROUTER_TOTALS:
                    self._rising.begin((name, router.uid), total(view))
                for key, record in view.models.items():
                    for name, _, of_model in MODEL_TOTALS:
                        self._rising.begin((name, router.uid, key), of_model(record))
            self._begun = True

    def collect(self) -> Iterator[Metric]:
        """Every metric with its values as of now."""
        with self._lock:
            known = self._known() if self._begun else []
            yield from self._totals(known)
        yield from self._money(known)
        yield from self._models(known)

    def _known(self) -> list[tuple[Router, PolicyView]]:
        return [(each.router, self._views.get(each.router)) for each in self._registry.entries()]

    def _totals(self, known: list[tuple[Router, PolicyView]]) -> Iterator[Metric]:
        for name, told, total in ROUTER_TOTALS:
            family = CounterMetricFamily(name, told, labels=_ROUTER)
            for router, view in known:
                family.add_metric([router.id], self._rising.added((name, router.uid), total(view)))
            yield family
        for name, told, of_model in MODEL_TOTALS:
            family = CounterMetricFamily(name, told, labels=_MODEL)
            for router, view in known:
                for model_id, key, record in _records(router, view):
                    added = self._rising.added((name, router.uid, key), of_model(record))
                    family.add_metric([router.id, model_id], added)
            yield family
        if known:
            self._rising.forget_others()

    def _money(self, known: list[tuple[Router, PolicyView]]) -> Iterator[Metric]:
        price = _gauge("pointsman_price_of_money_per_usd", "Utility that one USD stands for in a decision.")
        used = _gauge("pointsman_budget_utilization_ratio", "Spend over budget, of the period or of all time.")
        request = _gauge("pointsman_budget_usd_per_request", "What a request may cost on average, as of now.")
        period = _gauge("pointsman_period_budget_usd", "Budget of the day or month.")
        spent = _gauge("pointsman_period_spent_usd", "Spent of it, and predicted for calls in flight.")
        cost = _gauge("pointsman_exploration_cost_usd", "What exploring has cost since ever, as predicted.")
        quality = _gauge("pointsman_exploration_quality", "Quality that exploring gave up, as predicted.")
        for router, view in known:
            objective, standing = router.spec.objective, view.standing
            price.add_metric([router.id], view.price_of_money(objective))
            cost.add_metric([router.id], view.router.explored.cost_usd)
            quality.add_metric([router.id], view.router.explored.quality)
            if objective.budgeted:
                used.add_metric([router.id], view.utilization(objective))
                request.add_metric([router.id], objective.budget_usd_per_request or view.budget_usd_per_request)
            if objective.period_budget and standing is not None:
                period.add_metric([router.id], standing.budget_usd)
                spent.add_metric([router.id], standing.spent_usd)
        yield from (price, used, request, period, spent, cost, quality)

    def _models(self, known: list[tuple[Router, PolicyView]]) -> Iterator[Metric]:
        circuit = _gauge("pointsman_model_circuit", "0 closed, 1 half-open, 2 open: not called.", _MODEL)
        fallen = _gauge("pointsman_model_fallen", "By how much its quality has fallen, 0 if it has not.", _MODEL)
        reward = _gauge("pointsman_model_mean_reward", "Mean of the rewards learned from.", _MODEL)
        latency = _gauge("pointsman_model_latency_seconds", "Mean latency of its last calls.", _MODEL)
        now_us = self._clock_us()
        for router, view in known:
            for model_id, _, record in _records(router, view):
                labels = [router.id, model_id]
                circuit.add_metric(labels, _PHASES[record.circuit.phase(now_us)])
                fallen.add_metric(labels, record.fallen)
                if record.rewards:
                    reward.add_metric(labels, record.reward_sum / record.rewards)
                if record.latencies:
                    latency.add_metric(labels, record.latency_seconds)
        yield from (circuit, fallen, reward, latency)


def _records(router: Router, view: PolicyView) -> Iterator[tuple[str, str, ModelRecord]]:
    for model in router.models:
        record = view.models.get(model.key)
        if record is not None:
            yield model.id, model.key, record


def _gauge(name: str, told: str, labels: tuple[str, ...] = _ROUTER) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, told, labels=labels)
