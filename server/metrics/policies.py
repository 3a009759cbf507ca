"""What the evaluation has found of each router's live policy and of its candidates."""

from __future__ import annotations

import math
from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from policy.confidence import Contrast
from policy.evidence import Metric as Measured
from policy.promotion import gain_over_fixed
from policy.verdict import Outcome
from server.evaluation_loop import Found
from server.registry import Registry, RouterEntry

_ROUTER = ("router",)
_POLICY = ("router", "policy")


class Policies(Collector):
    """What is known of the policies. `noted` may be called from any thread."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._found: dict[str, Found] = {}

    def noted(self, router_id: str, found: Found | None) -> None:
        """Takes what the evaluation has found of a router, None once that is gone."""
        if found is None:
            self._found.pop(router_id, None)
        else:
            self._found[router_id] = found

    def forget(self) -> None:
        """Forgets what was found."""
        self._found = {}

    def collect(self) -> Iterator[Metric]:
        """Every metric with its values as of now."""
        entries = self._registry.entries()
        found = self._found.copy()
        known = [(each, found[each.router.id]) for each in entries if each.router.id in found]
        yield from self._live(known)
        yield from self._candidates(known)
        share = GaugeMetricFamily("pointsman_canary_share", "Share of the decisions it may have.", labels=_POLICY)
        for entry in entries:
            if entry.canary is not None:
                name = entry.canary.spec.id
                share.add_metric([entry.router.id, name], entry.policies[name].canary_share)
        yield share

    def _live(self, known: list[tuple[RouterEntry, Found]]) -> Iterator[Metric]:
        gain = _three(
            "pointsman_live_policy_utility_gain", _ROUTER, "of the live policy less the best model alone"
        )
        worse = GaugeMetricFamily(
            "pointsman_live_policy_worse", "1 if a model alone is better, with confidence.", labels=_ROUTER
        )
        crossed = GaugeMetricFamily(
            "pointsman_guardrail_crossed",
            "1 if the live policy has crossed a guardrail since it was promoted.",
            labels=_ROUTER,
        )
        pending = GaugeMetricFamily(
            "pointsman_evaluation_pending_decisions",
            "Decisions that wait for their window or reward to be evaluated.",
            labels=_ROUTER,
        )
        for entry, found in known:
            labels = [entry.router.id]
            worse.add_metric(labels, float(bool(found.worse_than)))
            crossed.add_metric(labels, float(found.crossed is not None))
            pending.add_metric(labels, found.results.pending)
            best = gain_over_fixed(found.results)
            if best is not None:
                _add(gain, labels, (best[0], best[1].low, best[1].high))
        yield from (*gain, worse, crossed, pending)

    def _candidates(self, known: list[tuple[RouterEntry, Found]]) -> Iterator[Metric]:
        gain = _three("pointsman_candidate_utility_gain", _POLICY, "of a candidate less the live policy")
        passed = GaugeMetricFamily(
            "pointsman_candidate_passed", "1 if it meets all that a promotion requires.", labels=_POLICY
        )
        for entry, found in known:
            for each in found.results.candidates:
                if each.comparator:
                    continue
                labels = [entry.router.id, each.id]
                passed.add_metric(labels, float(each.verdict.outcome is Outcome.PASSED))
                between = each.sequences[Contrast(Measured.UTILITY)]
                value = each.estimates[Measured.UTILITY].dr.difference.value
                _add(gain, labels, (value, between.low, between.high))
        yield from (*gain, passed)


def _three(name: str, labels: tuple[str, ...], of: str) -> list[GaugeMetricFamily]:
    """The families of an estimate and of the two ends of its interval."""
    told = {
        "": f"Mean utility {of}, as estimated.",
        "_low": "The low end of its interval, which holds at all times at once.",
        "_high": "The high end of its interval, which holds at all times at once.",
    }
    return [GaugeMetricFamily(name + end, text, labels=labels) for end, text in told.items()]


def _add(families: list[GaugeMetricFamily], labels: list[str], values: tuple[float, float, float]) -> None:
    for family, each in zip(families, values, strict=True):
        if math.isfinite(each):
            family.add_metric(labels, each)
