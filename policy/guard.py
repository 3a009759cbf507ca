"""The guard: notices within some hundred decisions that a promoted policy has become worse than it may be.

It watches what comes of the live policy's own decisions, and holds it against the level that was known before. So
it needs no decisions of the former policy, of which a holdback of a tenth would give it one in ten; and it cannot
tell a policy that has become worse from a world that has. Where both are equally bad, going back costs little.

What is tested is a loss: the quality that is missing to 1, failed calls, USD, seconds. Its mean must not be above
a limit, which is the level with what the guardrail allows and what is not known of the level. For a loss y of at
least 0 and each of some bets 0 < b < 1

    L = 1 + b (y / limit - 1)

has an expectation of 1 at most while the mean is within the limit, whatever the distribution. The statistic of
Shiryaev and Roberts, R <- L (R + 1), then grows by 1 a decision at most in expectation, and so does the mean R of
the bets: an alarm at R >= c comes within n decisions with a probability of n / c at most, and after c decisions or
more in the mean (an e-detector: Shin, Ramdas & Rinaldo 2023, "E-detectors: a nonparametric framework for
sequential change detection"). The bound holds for each of the four metrics with c = 100,000, hence for all
together with 25,000; that the level was estimated is not in it but for `_DOUBT` standard errors. It is reached by
a policy whose mean is at the limit; one that is as good as the former is further away, and gives no alarm in
millions of decisions.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from policy.evidence import Metric
from policy.log import DecisionRecord, ReportRecord
from policy.verdict import Requirements

DECISIONS_PER_FALSE_ALARM = 25_000
"""How many decisions there are on average, at least, before an alarm of a policy that is within its limits."""

_WATCHED = (Metric.QUALITY, Metric.COST_USD, Metric.LATENCY_SECONDS, Metric.ERROR)
_ENOUGH = float(len(_WATCHED) * DECISIONS_PER_FALSE_ALARM)
# From small changes of what varies much to large ones of what hardly does.
_BETS = (0.03, 0.08, 0.2, 0.4, 0.7)
_MEMORY = 5000
_LEVEL_COUNT_MIN = 100
_DOUBT = 1.5
# One call that takes a hundred times the mean is no change of the mean.
_LIMITS_MAX = 10.0
_TOLD_MAX = 512
_WORKED, _FAILED, _REWARDED, _CHARGED, _TIMED = 1, 2, 4, 8, 16


@dataclass(frozen=True, slots=True)
class Crossed:
    """A guardrail that was crossed: what its metric was `since` a decision's position in the log, in its unit.

    `mean` is that of the `count` decisions since then of which it is known, `level` what it was before, and
    `limit` what it might be, the doubt about the level included.
    """

    metric: Metric
    mean: float
    level: float
    limit: float
    since: int
    count: int

    @property
    def sentence(self) -> str:
        """It in words."""
        return (
            f"the mean {self.metric} of its last {self.count} decisions, since position {self.since}, is "
            f"{self.mean:.6g}; it was {self.level:.6g} before, and {self.limit:.6g} is where the guardrail lies"
        )


@dataclass
class _Level:
    """The mean of a loss and its variance, with a memory of some thousand decisions."""

    count: int = 0
    mean: float = 0.0
    variance: float = 0.0

    def add(self, loss: float) -> None:
        self.count = min(self.count + 1, _MEMORY)
        weight = 1.0 / self.count
        miss = loss - self.mean
        self.mean += weight * miss
        self.variance += weight * ((1.0 - weight) * miss * miss - self.variance)

    def doubt(self, largest: float) -> float:
        """How far the true mean may well be above this one, where `largest` is the scale of rare large losses."""
        return _DOUBT * math.sqrt(self.variance / self.count) + _DOUBT**2 * largest / self.count


@dataclass
class _Test:
    """The statistic of each bet; and for each, since when it speaks for a change, by Page's rule (1954):
    the position, the losses and their number since the logarithms of L last had no sum above 0.
    """

    statistics: list[float] = field(default_factory=lambda: [0.0] * len(_BETS))
    evidence: list[float] = field(default_factory=lambda: [0.0] * len(_BETS))
    since: list[int] = field(default_factory=lambda: [0] * len(_BETS))
    counts: list[int] = field(default_factory=lambda: [0] * len(_BETS))
    sums: list[float] = field(default_factory=lambda: [0.0] * len(_BETS))

    def add(self, seq: int, loss: float, limit: float) -> bool:
        """Takes the next loss, of the decision at this position; says whether that is enough."""
        excess = loss / limit - 1.0
        for number, bet in enumerate(_BETS):
            gain = 1.0 + bet * excess
            self.statistics[number] = gain * (self.statistics[number] + 1.0)
            if self.evidence[number] <= 0.0:
                self.evidence[number], self.since[number] = 0.0, seq
                self.counts[number], self.sums[number] = 0, 0.0
            self.evidence[number] += math.log(gain)
            self.counts[number] += 1
            self.sums[number] += loss
        return sum(self.statistics) / len(_BETS) >= _ENOUGH

    def change(self) -> tuple[int, int, float]:
        """Since which position, and over how many losses of which mean, there is most evidence."""
        best = max(range(len(_BETS)), key=self.evidence.__getitem__)
        return self.since[best], self.counts[best], self.sums[best] / self.counts[best]


class Guard:
    """Follows one router's reports. It tests from a promotion on; before, it only learns the level.

    By the level with a memory of 5,000 decisions, so that traffic which changes within weeks is no alarm, and a
    policy that is bad from its first decision on moves the level by a sixteenth in 300. Of a decision counts
    the first reward, charge and latency that is told of it, and whether its call failed. What is told after the
    promotion of the former policy's decisions still belongs to the level. Imported decisions and those of shadow
    mode say nothing of the live policy. The same records give the same bits.
    """

    def __init__(self) -> None:
        self.crossed: Crossed | None = None
        """The first guardrail that was crossed since the policy became live, None if none was."""
        self._requirements = Requirements()
        self._armed = False
        self._since = 0
        self._levels = {metric: _Level() for metric in _WATCHED}
        self._tests = {metric: _Test() for metric in _WATCHED}
        # What was told of the decisions that were heard of last; and the last that was put away.
        self._told: OrderedDict[int, int] = OrderedDict()
        self._put_away = 0

    def require(self, requirements: Requirements) -> None:
        """These are the router's guardrails from here on."""
        self._requirements = requirements

    def begin(self, seq: int, *, promoted: bool) -> None:
        """The live policy is another from this position on.

        If it was `promoted`, it is held against the level so far. Else somebody has changed the router's own
        settings, and meant what comes of that: then the level is learned anew.
        """
        self.crossed = None
        self._armed, self._since = promoted, seq
        self._tests = {metric: _Test() for metric in _WATCHED}
        if not promoted:
            self._levels = {metric: _Level() for metric in _WATCHED}

    def on_report(self, report: ReportRecord, decision: DecisionRecord) -> None:
        """A report on one of the router's decisions was logged."""
        choice = decision.choice
        if report.late or report.activation or choice.imported or choice.proposed_model:
            return
        told = before = self._told.get(decision.seq, 0)
        if report.subject == choice.model:
            told |= self._call(report, decision, before)
        if report.settles and report.charged_usd is not None and not before & _CHARGED:
            told |= _CHARGED
            self._observe(Metric.COST_USD, decision.seq, report.charged_usd)
        if told != before:
            self._told[decision.seq] = told
            if len(self._told) > _TOLD_MAX:
                self._put_away = max(self._put_away, self._told.popitem(last=False)[0])

    def _call(self, report: ReportRecord, decision: DecisionRecord, before: int) -> int:
        """What a report says of the call of the model that was drawn."""
        told = 0
        if report.error is not None and not before & _FAILED:
            told |= _FAILED
            self._observe(Metric.ERROR, decision.seq, 1.0)
        elif report.error is None and not before & (_FAILED | _WORKED) and not self._known(report, decision):
            told |= _WORKED
            self._observe(Metric.ERROR, decision.seq, 0.0)
        if report.learned_reward is not None and not before & _REWARDED:
            told |= _REWARDED
            self._observe(Metric.QUALITY, decision.seq, 1.0 - report.learned_reward)
        if report.latency_seconds is not None and not before & _TIMED:
            told |= _TIMED
            self._observe(Metric.LATENCY_SECONDS, decision.seq, report.latency_seconds)
        return told

    def _known(self, report: ReportRecord, decision: DecisionRecord) -> bool:
        """Whether it is a late judgement of a call that was heard of long ago."""
        return decision.seq <= self._put_away and report.usage is None and report.latency_seconds is None

    def _observe(self, metric: Metric, seq: int, loss: float) -> None:
        level = self._levels[metric]
        if self._armed and self.crossed is None and seq > self._since and level.count >= _LEVEL_COUNT_MIN:
            limit = self._limit(metric, level)
            test = self._tests[metric]
            if limit is not None and test.add(seq, _cut(metric, loss, limit), limit):
                self.crossed = _crossed(metric, test, level.mean, limit)
        level.add(loss)

    def _limit(self, metric: Metric, level: _Level) -> float | None:
        """What the mean loss may be; None where it may be anything."""
        required = self._requirements
        if metric is Metric.QUALITY:
            allowed, factor, largest = required.quality_loss_max, 1.0, 1.0
        elif metric is Metric.ERROR:
            allowed, factor, largest = required.error_increase_max, 1.0, 1.0
        else:
            money = metric is Metric.COST_USD
            times = required.cost_factor_max if money else required.latency_factor_max
            allowed, factor, largest = None if times is None else 0.0, times or 0.0, level.mean
        if allowed is None:
            return None
        limit = factor * (level.mean + level.doubt(largest)) + allowed
        return limit if limit > 0.0 else None  # Calls that are free may become dear by no factor.

    def state(self) -> dict[str, Any]:
        """Everything but the requirements, as JSON takes it, for `restore`."""
        return {
            "crossed": asdict(self.crossed) if self.crossed else None,
            "armed": self._armed,
            "since": self._since,
            "levels": {metric: asdict(level) for metric, level in self._levels.items()},
            "tests": {metric: asdict(test) for metric, test in self._tests.items()},
            "told": list(self._told.items()),
            "put_away": self._put_away,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes back what `state` gave."""
        crossed = state["crossed"]
        self.crossed = Crossed(**{**crossed, "metric": Metric(crossed["metric"])}) if crossed else None
        self._armed, self._since = state["armed"], state["since"]
        self._levels = {metric: _Level(**state["levels"][metric]) for metric in _WATCHED}
        self._tests = {metric: _Test(**state["tests"][metric]) for metric in _WATCHED}
        self._told = OrderedDict((seq, told) for seq, told in state["told"])
        self._put_away = state["put_away"]


def _cut(metric: Metric, loss: float, limit: float) -> float:
    """The loss, where it has a largest value; USD and seconds have none, and are cut off at some limits."""
    return min(loss, _LIMITS_MAX * limit) if metric in (Metric.COST_USD, Metric.LATENCY_SECONDS) else loss


def _crossed(metric: Metric, test: _Test, level: float, limit: float) -> Crossed:
    since, count, mean = test.change()
    if metric is Metric.QUALITY:
        mean, level, limit = 1.0 - mean, 1.0 - level, 1.0 - limit
    return Crossed(metric, mean, level, limit, since, count)
