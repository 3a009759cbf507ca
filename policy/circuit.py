"""The circuit of one model: which failed calls take the model out, and how it comes back.

Closed, the model is a candidate like any other. FAILURES_TO_OPEN failed calls in a row open it: then the
model is no candidate until a back-off has passed. After that it is half-open, and a candidate again for
one call at a time, the probe. A probe that works closes the circuit; one that fails opens it again, with
the back-off doubled; one that nothing is heard of stops counting after PROBE_US, and another may follow.

How a probe is drawn: not apart from other requests, but by the router's policy, as always. A half-open
model without a probe in flight is a candidate, and takes part in the draw with the probability that the
policy gives it by its score; the request that draws it is the probe. Whether it is a candidate is settled
before the draw and not by it, so that the propensity logged is the true one, and the draw can be repeated
from the log. A model that the router would not choose anyway is not called just to see if it works.

What is evidence: of order in the log, not of arrival. Calls take long and reports come late, so a call
that worked speaks only against failures of decisions made before its own, and a failure only against
calls that worked before it. What was decided before the circuit opened, or by a view that did not yet
know of it, neither closes it nor opens it again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Any

from policy.log import DecisionRecord, ReportRecord
from policy.quick import quick

FAILURES_TO_OPEN = 4
BACK_OFF_US = 5_000_000
BACK_OFF_MAX_US = 40_000_000
PROBE_US = 60_000_000


class Phase(Enum):
    """Whether a model may be called: CLOSED, it may; OPEN, not; HALF_OPEN, for one call."""

    CLOSED = auto()
    OPEN = auto()
    HALF_OPEN = auto()


@quick
@dataclass(frozen=True, slots=True)
class Circuit:
    """The circuit at one position of the log; each record that concerns it gives another. Times are
    microseconds of the log's time.

    `failures` are the positions, rising, of the last few decisions whose calls failed in a row, and
    `worked` is that of the last known to have worked. `opened` is the position of the report that opened
    it, 0 while it is closed. `measured` is whether any call was ever reported with usage or a latency.
    """

    failures: tuple[int, ...] = ()
    worked: int = 0
    opened: int = 0
    retry_us: int = 0
    back_off_us: int = 0
    probe_until_us: int = 0
    measured: bool = False

    @classmethod
    def restore(cls, state: Mapping[str, Any]) -> Circuit:
        """The circuit whose fields were written as JSON."""
        return cls(**{**state, "failures": tuple(state["failures"])})

    @property
    def closed(self) -> bool:
        """Whether the model's calls have not been failing."""
        return not self.opened

    def phase(self, now_us: int) -> Phase:
        """Whether the model may be called now, as far as the log knows."""
        if not self.opened:
            return Phase.CLOSED
        return Phase.OPEN if now_us < max(self.retry_us, self.probe_until_us) else Phase.HALF_OPEN

    def decided(self, decision: DecisionRecord) -> Circuit:
        """A decision for the model was logged."""
        if not decision.choice.probe or not self._known_to(decision):
            return self
        return replace(self, probe_until_us=decision.time_us + PROBE_US)

    def reported(self, report: ReportRecord, decision: DecisionRecord) -> Circuit:
        """A report about the model was logged; the decision may have been for another that it stood in for.

        That a call worked is shown by usage or a latency, which come with the answer, and not by a reward,
        which may be a guess about an answer that never came. Only of a model that is never reported with
        either, rewards have to do: else a circuit of it could not close.
        """
        if report.error is not None and report.error.is_outage:
            return self._failed(report, decision)
        if report.usage is not None or report.latency_seconds is not None:
            return self._worked(decision, measured=True)
        if not self.measured and report.error is None and report.learned_reward is not None:
            return self._worked(decision, measured=False)
        return self

    def _failed(self, report: ReportRecord, decision: DecisionRecord) -> Circuit:
        if decision.seq < self.worked or (self.opened and not self._known_to(decision)):
            return self
        failures = tuple(sorted((*self.failures, decision.seq))[-FAILURES_TO_OPEN:])
        if not self.opened and len(failures) == FAILURES_TO_OPEN:
            return self._open(report, failures, BACK_OFF_US)
        if self.opened and decision.choice.probe and decision.choice.model == report.subject:
            return self._open(report, failures, min(2 * self.back_off_us, BACK_OFF_MAX_US))
        # If it is open, this was a call for want of anything else, and no probe.
        return replace(self, failures=failures)

    def _open(self, report: ReportRecord, failures: tuple[int, ...], back_off_us: int) -> Circuit:
        return replace(
            self,
            failures=failures,
            opened=report.seq,
            retry_us=report.time_us + back_off_us,
            back_off_us=back_off_us,
            probe_until_us=0,
        )

    def _worked(self, decision: DecisionRecord, *, measured: bool) -> Circuit:
        measured = measured or self.measured
        failures = self.failures and tuple([each for each in self.failures if each >= decision.seq])
        if self.opened and (failures or not self._known_to(decision)):
            return self if measured == self.measured else replace(self, measured=True)
        if decision.seq <= self.worked and failures == self.failures and measured == self.measured:
            return self
        return Circuit(failures, max(self.worked, decision.seq), measured=measured)

    def _known_to(self, decision: DecisionRecord) -> bool:
        """Whether the decision was made knowing that the circuit had opened, and not before or meanwhile."""
        return decision.choice.snapshot >= self.opened > 0
