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
from server.storage.tail import LogPage


@dataclass(frozen=True, slots=True)
class _Setting:
    """What an evaluation is of. Since the position `since_seq` the live policy has been what it is."""

    router: Router
    candidates: tuple[CandidateSpec, ...]
    since_seq: int

    @classmethod
    def first(cls, router: Router) -> _Setting:
        """That of a router that is new."""
        return cls(router, (), router.uid)

    def then(self, router: Router, record: RegistryRecord) -> _Setting:
        """What it is from this record on, by which the router has become this."""
        if not isinstance(record, PolicyRecord):
            anew, candidates = other_policy(self.router.spec, router.spec), self.candidates
        else:
            anew = other_policy(self.router.spec, router.spec) or record.restored is not None
            candidates = record.candidates
        return _Setting(router, candidates, record.seq if anew else self.since_seq)


class EvaluationFold(LogFold[Evaluation]):
    """The evaluations of all routers at one position of the log.

    `read` takes as long as learning the whole log where there is a new candidate that learns; it changes nothing
    that can be asked for, and raises ReplayStoppedError as soon as it is `stopping`.
    """

    def __init__(
        self,
        reader: LogReader,
        stored: list[StoredEvaluation],
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
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
        self._stopping = stopping
        self._known: dict[int, dict[str, Learned]] = {}

    def read(self, limit: int, upto: int | None = None) -> LogPage:
        """As of any fold, and learns what the page's new candidates begin with."""
        page = super().read(limit, upto)
        self._learn_beforehand(page)
        return page

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
        self._settings[router.id] = _Setting.first(router)
        return Evaluation(router)

    def _changed(self, follower: Evaluation, router: Router, record: RegistryRecord) -> Evaluation:
        before, after = self._settings[router.id], self._settings[router.id].then(router, record)
        recorded = record if isinstance(record, PolicyRecord) else None
        if after.since_seq != before.since_seq:
            follower.restart(record.seq, promoted=recorded is not None)
        if router != before.router:
            follower.on_registry(router)
        if recorded is not None:
            follower.on_candidates(after.candidates, self._known.pop(record.seq))
            if recorded.requirements is not None:
                follower.on_requirements(recorded.requirements, record.seq)
        self._settings[router.id] = after
        return follower

    def _learn_beforehand(self, page: LogPage) -> None:
        """Learns what the page's new candidates begin with, from the log alone: nobody who asks has to wait."""
        settings = dict(self._settings)
        for record in page.records:
            if not isinstance(record, RegistryRecord):
                continue
            if record.seq <= self._followed_upto.get(record.router_id, 0):
                continue
            before = settings.get(record.router_id)
            if record.router is None:
                settings.pop(record.router_id, None)
            elif before is None:
                settings[record.router_id] = _Setting.first(record.router)
            else:
                if isinstance(record, PolicyRecord):
                    self._known[record.seq] = self._learned(before, record)
                settings[record.router_id] = before.then(record.router, record)

    def _learned(self, before: _Setting, record: PolicyRecord) -> dict[str, Learned]:
        """What new candidates begin with, by name: what a learner of their kind knows of the log so far.

        The former live policy, which is a candidate now, so goes on as it was. One that does not see all features
        begins with nothing: what was learned from all of them is not what it would know.
        """
        known = {each.id for each in before.candidates}
        new = [each for each in record.candidates if each.id not in known and each.learns and not each.features]
        found: dict[LearnerKind, Learned] = {}
        for kind in {each.learner or before.router.spec.learner for each in new}:
            learner = learned_as(self._reader, before.router, kind, record, self._stopping)
            found[kind] = Learned(learner.router, learner.state())
        return {each.id: found[each.learner or before.router.spec.learner] for each in new}
