"""Who is judged on a router's log: its candidates and the comparators of its models, each under its own number."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from policy.array_state import part_of, prefixed
from policy.candidates import CANDIDATES_MAX, CandidateSpec, comparators
from policy.contenders import Build, Contender, Learned, Learning
from policy.domain import InvalidFieldError, Router
from policy.evidence import LeftOut
from policy.league import Tally
from policy.standing import Standing


@dataclass(slots=True)
class Entry:
    """A candidate under its name, with a number that no other has had.

    `model_uid` is of the one model that a comparator is about: another of the same id begins anew.
    """

    number: int
    spec: CandidateSpec
    comparator: bool
    contender: Contender | Standing
    tally: Tally
    model_uid: int | None = None


class Roster:
    """The entries by their names. `build` makes what answers for one, and `blank` a tally without events.

    Whoever changes them ends with `sort_out`.
    """

    def __init__(self, build: Build, blank: Callable[[], Tally]) -> None:
        self._build = build
        self._blank = blank
        self._entered = 0
        self.entries: dict[str, Entry] = {}
        self.sort_out()

    def sort_out(self) -> None:
        """Sorts out who is there: by number, who has to be asked at once, and whose answers can wait."""
        entries = self.entries.values()
        self.numbers = tuple(entry.number for entry in entries)
        self.names = {entry.number: name for name, entry in self.entries.items()}
        self.standing = {each.number: each.contender for each in entries if isinstance(each.contender, Standing)}
        self.asked: list[tuple[int, Contender]] = [
            (each.number, each.contender) for each in entries if not isinstance(each.contender, Standing)
        ]

    def compare(self, router: Router) -> None:
        """Gives every model its comparator, and takes away those of models that are gone.

        That of a model which has taken the id of one that is gone begins anew: they are not the same.
        """
        wanted = {spec.id: spec for spec in comparators(router)}
        for name in [name for name, entry in self.entries.items() if entry.comparator and name not in wanted]:
            del self.entries[name]
        for name, spec in wanted.items():
            entry = self.entries.get(name)
            if entry is None or entry.model_uid != _model_uid(spec, router):
                self._enter(spec, router, comparator=entry is None or entry.comparator)

    def enter(self, candidates: Iterable[CandidateSpec], router: Router) -> None:
        """The first candidates. One that is the same as a comparator takes its place.

        Raises InvalidFieldError for too many, and for names that stand twice or are a comparator's.
        """
        specs = list(candidates)
        if len(specs) > CANDIDATES_MAX:
            raise InvalidFieldError("candidates", f"must be at most {CANDIDATES_MAX}")
        for spec in specs:
            there = self.entries.get(spec.id)
            taken = there is not None and not (there.comparator and there.spec == spec)
            if taken or (spec.id.startswith("fixed:") and spec.policy != spec.id):
                raise InvalidFieldError("candidates", f"{spec.id!r} stands twice, or is the name of a comparator")
            self._enter(spec, router, comparator=False)

    def replace(self, candidates: Iterable[CandidateSpec], learned: Mapping[str, Learned], router: Router) -> None:
        """These are the candidates from here on; a new one begins with what was `learned` for it, if anything."""
        wanted = {spec.id: spec for spec in candidates}
        for name in [name for name, entry in self.entries.items() if not entry.comparator and name not in wanted]:
            del self.entries[name]
        for name, spec in wanted.items():
            if name not in self.entries:
                self._enter(spec, router, comparator=False)
                entered = self.entries[name].contender
                if name in learned and isinstance(entered, Learning):
                    entered.begin_with(learned[name])

    def tally(self, number: int) -> Tally | None:
        """That of an entry, None if it is gone."""
        name = self.names.get(number)
        return None if name is None else self.entries[name].tally

    def leave_out(self, reason: LeftOut, numbers: Sequence[int]) -> None:
        """Notes a decision that is no event of these."""
        for number in numbers:
            tally = self.tally(number)
            if tally is not None:
                tally.estimators.leave_out(reason)

    def state(self) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
        """Everything but the specs, for `restore`: what is JSON, and the arrays."""
        arrays: dict[str, npt.NDArray[Any]] = {}
        for place, entry in enumerate(self.entries.values()):
            if not isinstance(entry.contender, Standing):
                arrays[f"{place} contender"] = np.frombuffer(entry.contender.state(), dtype=np.uint8)
            arrays |= prefixed(f"{place} tally", entry.tally.state())
        entries = [[entry.number, name] for name, entry in self.entries.items()]
        return {"entered": self._entered, "entries": entries}, arrays

    def restore(self, meta: Mapping[str, Any], arrays: Mapping[str, Any], router: Router) -> None:
        """Takes back what `state` gave when the entries were these: each begins anew, under the number it had."""
        ordered = [(number, self.entries[name]) for number, name in meta["entries"]]
        self.entries = {}
        for place, (number, entry) in enumerate(ordered):
            self._entered = number - 1
            self._enter(entry.spec, router, entry.comparator)
            entered = self.entries[entry.spec.id]
            if not isinstance(entered.contender, Standing):
                entered.contender.restore(router, arrays[f"{place} contender"].tobytes())
            entered.tally.restore(part_of(arrays, f"{place} tally"))
        self._entered = meta["entered"]

    def _enter(self, spec: CandidateSpec, router: Router, comparator: bool) -> None:
        self._entered += 1
        self.entries[spec.id] = Entry(
            number=self._entered,
            spec=spec,
            comparator=comparator,
            contender=self._build(spec, router),
            tally=self._blank(),
            model_uid=_model_uid(spec, router),
        )


def _model_uid(spec: CandidateSpec, router: Router) -> int | None:
    """Of the one model that a comparator is about."""
    if not spec.id.startswith("fixed:") or spec.policy != spec.id:
        return None
    model = spec.id.removeprefix("fixed:")
    return next((each.uid for each in router.models if each.id == model), None)
