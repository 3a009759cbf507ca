"""Remembers the probes that are in flight beside what the views know of them."""

from __future__ import annotations

from dataclasses import dataclass

from policy.circuit import PROBE_US


@dataclass(slots=True)
class Probe:
    """A request that tries a model again. `seq` is its position in the log, None before it is stored."""

    until_us: int
    seq: int | None = None


class Probes:
    """At most one probe for each model, from the moment it is drawn until a view knows of its decision.

    A view is up to 0.2 s old, and in that time many requests are decided; without this each of them could
    be a probe. From then on the view itself says whether the probe is in flight. A probe whose decision
    was not stored is put back with `end`; one of which that cannot be told stops counting after PROBE_US.
    Each process of servers has its own: n of them may each have a probe in flight until their views agree.
    """

    def __init__(self) -> None:
        self._probes: dict[int, dict[str, Probe]] = {}

    def in_flight(self, router_uid: int, snapshot: int, now_us: int) -> frozenset[str]:
        """Keys of the models with a probe in flight that a view of this position does not know of."""
        probes = self._probes.get(router_uid)
        if not probes:
            return frozenset()
        for key in [each for each, probe in probes.items() if _over(probe, snapshot, now_us)]:
            del probes[key]
        return frozenset(probes)

    def begin(self, router_uid: int, model_key: str, now_us: int) -> Probe:
        """Notes that a probe was drawn."""
        for uid, probes in list(self._probes.items()):
            if all(now_us >= each.until_us for each in probes.values()):
                del self._probes[uid]
        probe = Probe(now_us + PROBE_US)
        self._probes.setdefault(router_uid, {})[model_key] = probe
        return probe

    def end(self, router_uid: int, model_key: str, probe: Probe) -> None:
        """The probe was not stored: another may take its place."""
        probes = self._probes.get(router_uid, {})
        if probes.get(model_key) is probe:
            del probes[model_key]


def _over(probe: Probe, snapshot: int, now_us: int) -> bool:
    return now_us >= probe.until_us or (probe.seq is not None and snapshot >= probe.seq)
