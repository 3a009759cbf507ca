"""Folds the log into the routers' evaluations: the same records always give the same numbers, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from policy.candidates import CandidateSpec
from policy.contenders import Learned
from policy.domain import LearnerKind, Router
from policy.evaluation import Evaluation
from policy.log import RegistryRecord
from policy.promotion import PolicyRecord, other_policy
from server.learner_fold import LogFold, Position, learned_as
from server.storage.evaluation_store import StoredEvaluation
from server.storage.reader import LogReader


@dataclass(frozen=True, slots=True)
class _Setting:
    """What an evaluation is of. Since the position `since_seq` the live policy has been what it is."""

    router: Router
    candidates: tuple[CandidateSpec, ...]
    since_seq: int


class EvaluationFold(LogFold[Evaluation]):
    """The evaluations of all routers at one position of the log."""

    def __init__(self, reader: LogReader, stored: list[StoredEvaluation]) -> None:
        super().__init__(
            reader,
            {
                each.router.id: (
                    Evaluation.restore(each.router, each.candidates, each.state),
                    Position(each.seq, each.closed_through_us),
                )
                for each in stored
            },
        )
        self._settings = {
            each.router.id: _Setting(each.router, each.candidates, each.since_seq) for each in stored
        }

    def uid(self, router: str) -> int:
        """The uid of the router that is followed under this name."""
        return self._settings[router].router.uid

    def since_seq(self, router: str) -> int:
        """From which position on the router's live policy has been what it is."""
        return self._settings[router].since_seq

    def crossed(self, router: str) -> bool:
        """Whether the router's live policy has crossed a guardrail since it was promoted."""
        evaluation = self.follower(router)
        return evaluation is not None and evaluation.crossed is not None

    def candidates(self, router: str) -> tuple[CandidateSpec, ...]:
        """The router's candidates at this position."""
        return self._settings[router].candidates

    def snapshot(self, router: str, rest: Callable[[], object] = lambda: None) -> StoredEvaluation | None:
        """The router's whole evaluation at this position; None once it was deleted. It `rest`s now and then."""
        evaluation = self.follower(router)
        if evaluation is None:
            return None
        setting = self._settings[router]
        return StoredEvaluation(
            router=setting.router,
            candidates=setting.candidates,
            seq=self.seq,
            since_seq=setting.since_seq,
            closed_through_us=self.closed_through_us,
            state=evaluation.state(rest),
        )

    def _change_router(self, record: RegistryRecord) -> None:
        super()._change_router(record)
        if record.router_id not in self._followers:
            self._settings.pop(record.router_id, None)

    def _begin(self, router: Router) -> Evaluation:
        self._settings[router.id] = _Setting(router, (), router.uid)
        return Evaluation(router)

    def _changed(self, follower: Evaluation, router: Router, record: RegistryRecord) -> Evaluation:
        before = self._settings[router.id]
        candidates, since = before.candidates, before.since_seq
        recorded = record if isinstance(record, PolicyRecord) else None
        if other_policy(before.router.spec, router.spec) or (recorded and recorded.restored):
            follower.restart(record.seq, promoted=recorded is not None)
            since = record.seq
        if router != before.router:
            follower.on_registry(router)
        if recorded is not None:
            candidates = recorded.candidates
            follower.on_candidates(candidates, self._learned(before, recorded))
            if recorded.requirements is not None:
                follower.on_requirements(recorded.requirements, record.seq)
        self._settings[router.id] = _Setting(router, candidates, since)
        return follower

    def _learned(self, before: _Setting, record: PolicyRecord) -> dict[str, Learned]:
        """What new candidates begin with, by name: what a learner of their kind knows of the log so far.

        The former live policy, which is a candidate now, so goes on as it was. One that does not see all features
        begins with nothing: what was learned from all of them is not what it would know.
        """
        known = {each.id for each in before.candidates}
        new = [each for each in record.candidates if each.id not in known and each.learns and not each.features]
        found: dict[LearnerKind, Learned] = {}
        for kind in {each.learner or before.router.spec.learner for each in new}:
            learner = learned_as(self._reader, before.router, kind, record)
            found[kind] = Learned(learner.router, learner.state())
        return {each.id: found[each.learner or before.router.spec.learner] for each in new}
