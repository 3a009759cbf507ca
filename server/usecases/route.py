"""Route: picks a model for one query and logs the decision before answering."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from policy.canary import RouteRequest
from policy.choices import Query, Turn
from policy.decide import Blend, NoCandidateError, decide
from policy.domain import (
    InvalidFieldError,
    RouterMode,
    StorageAway,
)
from policy.features import Featuriser, QueryFeatures
from policy.layout import FEATURE_VERSION
from policy.log import DecisionRecord
from policy.second import offered
from server.errors import (
    NoEligibleModelError,
    RouterNotFoundError,
    StorageUnavailableError,
)
from server.owing import Owing
from server.probes import Probe, Probes
from server.registry import Registry, RouterEntry
from server.sessions import LastTurn, Sessions
from server.storage.bounded_reads import BoundedReads
from server.storage.group_commit import GroupCommit
from server.storage.reader import LogReader
from server.storage.writes import DecisionWrite
from server.usecases.route_command import RouteCommand, check_command, check_models
from server.views import CandidateViews, Views

# Of the time until the caller's deadline: the rest is for the answer to get there.
_WAIT_SHARE = 0.8


@dataclass(slots=True)
class Attempt:
    """A command on its way, and what has become of it. `entry` is the router as it was decided for; `probed` is
    whose probe it has begun: a router's uid, and the key of its model.
    """

    command: RouteCommand
    session: Turn | None
    entry: RouterEntry | None = None
    draft: DecisionRecord | None = None
    probe: Probe | None = None
    probed: tuple[int, str] = (0, "")


class Route:
    """Decides with the newest view; the decision is on disk when the answer is given, unless the router says that
    it may be given while storage is away.
    """

    def __init__(
        self,
        registry: Registry,
        views: Views,
        candidate_views: CandidateViews,
        featuriser: Featuriser,
        log: GroupCommit,
        reader: LogReader,
        reads: BoundedReads,
        clock_us: Callable[[], int],
        new_decision_id: Callable[[int], str],
        others_write: bool = False,
    ) -> None:
        self._registry = registry
        self._views = views
        self._candidate_views = candidate_views
        self._featuriser = featuriser
        self._log = log
        self._reader = reader
        self._reads = reads
        self._clock_us = clock_us
        self._new_decision_id = new_decision_id
        self._others_write = others_write
        self._sessions = Sessions()
        self._probes = Probes()
        self._owing = Owing()

    async def __call__(self, command: RouteCommand, deadline_seconds: float | None = None) -> DecisionRecord:
        """The decision as logged, or with a `seq` of 0 if it could not be and the router wants an answer all the
        same. That is given before the deadline, if the caller has one.

        Raises InvalidFieldError, RouterNotFoundError, ModelNotFoundError, NoEligibleModelError,
        QueueFullError, StorageUnavailableError.
        """
        check_command(command)
        entry = self._entry(command)
        now_us = self._clock_us()
        until = self._until(entry, deadline_seconds)
        attempt = Attempt(command, await self._session(command, entry, now_us, until))
        try:
            logged = _own(await self._store(attempt, entry, until))
        except NoCandidateError as error:
            earlier = await self._earlier_decision(command, entry, until)
            if earlier is None:
                raise NoEligibleModelError(str(error), error.reasons) from error
            return _own(earlier)
        if command.session_id and attempt.draft is not None and logged.decision_id == attempt.draft.decision_id:
            self._sessions.put(entry.router.uid, command.session_id, LastTurn(_turn(logged), now_us))
        return logged

    def _entry(self, command: RouteCommand) -> RouterEntry:
        """The command's router, of which it can be asked. Raises RouterNotFoundError, ModelNotFoundError."""
        entry = self._registry.entry(command.router_id)
        if entry is None:
            raise RouterNotFoundError(command.router_id)
        check_models(command, entry)
        return entry

    def _until(self, entry: RouterEntry, deadline_seconds: float | None) -> float:
        """Until when storage is waited for, by the clock of the event loop."""
        seconds = self._log.wait_seconds
        if deadline_seconds is not None and _answers_unlogged(entry):
            seconds = min(seconds, _WAIT_SHARE * deadline_seconds)
        return asyncio.get_running_loop().time() + seconds

    async def _store(self, attempt: Attempt, entry: RouterEntry, until: float) -> DecisionRecord:
        """Decides and logs it; gives the decision as logged, or the earlier one of the same request."""
        try:
            if self._log.is_slow:
                # All who wait may have to be answered at one moment: then there is no time to decide.
                self._draft(attempt, self._entry(attempt.command))
            # Whoever has asked may be gone before it is known whether there is a decision.
            on_lost = partial(self._end_probe, attempt)
            logged: DecisionRecord = await self._log.submit(self._making(attempt), _left(until), on_lost)
        except Exception as error:
            if isinstance(error, StorageUnavailableError):
                # Decided all the same: a request that is wrong hears so, and not that it may try again.
                draft = attempt.draft or self._draft(attempt, self._entry(attempt.command))
                if _answers_unlogged(entry):
                    # A probe is made all the same. What comes of it nobody will hear.
                    return _unlogged(draft, self._clock_us())
            self._end_probe(attempt)
            raise
        if attempt.draft is not None and logged.decision_id != attempt.draft.decision_id:
            self._end_probe(attempt)
        elif attempt.probe is not None:
            attempt.probe.seq = logged.seq
        return logged

    def _making(self, attempt: Attempt) -> Callable[[], DecisionWrite]:
        """What decides once the log is about to be written."""
        return partial(self._write, attempt)

    def _write(self, attempt: Attempt) -> DecisionWrite:
        entry = self._entry(attempt.command)  # The registry may be another than when the request came.
        decided = attempt.draft if attempt.entry is entry else None
        draft = decided or self._draft(attempt, entry)
        spec = entry.router.spec
        window_us = round(spec.reward_rule.join_window_seconds * 1e6)
        return DecisionWrite(draft, max(1, window_us), spec.paid_shadow.max_usd_per_day)

    def _draft(self, attempt: Attempt, entry: RouterEntry) -> DecisionRecord:
        self._end_probe(attempt)
        command, now_us = attempt.command, self._clock_us()
        features = self._featurise(command, entry)
        attempt.entry = entry
        attempt.draft = draft = self._decide(command, entry, features, attempt.session, now_us)
        if draft.choice.probe:
            attempt.probed = entry.router.uid, entry.by_id[draft.choice.model].key
            attempt.probe = self._probes.begin(*attempt.probed, now_us)
        return draft

    def _end_probe(self, attempt: Attempt) -> None:
        """The decision was not stored: another may take its probe's place."""
        if attempt.probe is not None:
            self._probes.end(*attempt.probed, attempt.probe)
            attempt.probe = None

    def _featurise(self, command: RouteCommand, entry: RouterEntry) -> QueryFeatures:
        return self._featuriser.featurise(
            entry.router.spec.embedding_dimensions,
            command.prompt,
            command.embedding,
            command.numeric_features,
            command.categorical_features,
        )

    def _decide(
        self,
        command: RouteCommand,
        entry: RouterEntry,
        features: QueryFeatures,
        session: Turn | None,
        now_us: int,
    ) -> DecisionRecord:
        decision_id = self._new_decision_id(now_us)
        router = entry.router
        view = self._views.get(router)
        query = Query(
            features=features.vector,
            input_tokens=command.input_tokens,
            prompt_tokens=features.prompt_tokens,
            max_output_tokens=command.max_output_tokens,
            constraints=command.constraints,
            preference=command.preference,
        )
        incumbent = command.incumbent_model if router.spec.mode is RouterMode.SHADOW else ""
        probed = self._probes.in_flight(router.uid, view.snapshot, now_us)
        blend = None if incumbent else self._blend(command, entry, query)
        owed = self._owing.of(router.uid)
        choice = decide(view, router, query, decision_id, now_us, session, incumbent, probed, blend, owed)
        self._owing.add(router.uid, choice, router.spec.exploration.max_utility_loss)
        second = offered(view, router, query, choice, decision_id, now_us)
        if second is not None:
            choice = replace(choice, second=second)
        return DecisionRecord(
            seq=0,
            time_us=0,
            expire_us=0,
            router=router.id,
            decision_id=decision_id,
            choice=choice,
            features=features.vector,
            prompt_tokens=features.prompt_tokens,
            input_tokens=command.input_tokens,
            max_output_tokens=command.max_output_tokens,
            deferred=command.defer_activation,
            exploit_only=command.preference.exploit_only,
            request_id=command.request_id,
            session_id=command.session_id,
            incumbent_model=command.incumbent_model,
            feature_version=FEATURE_VERSION,
            prompt=command.prompt if router.spec.store_prompts else None,
            router_uid=router.uid,
            categorical=dict(command.categorical_features),
            numeric=dict(command.numeric_features),
        )

    def _blend(self, command: RouteCommand, entry: RouterEntry, query: Query) -> Blend | None:
        """What gives the router's canary its share of the decision; None without one."""
        canary = entry.canary
        if canary is None:
            return None
        view = self._candidate_views.get(entry.router.id, canary.spec.id)
        request = RouteRequest(
            command.categorical_features,
            command.numeric_features,
            command.incumbent_model,
            command.preference.exploit_only,
        )
        return partial(canary.mixed, view, query, request)

    async def _earlier_decision(
        self, command: RouteCommand, entry: RouterEntry, until: float
    ) -> DecisionRecord | None:
        """The decision that the same request was given when there still was a model for it."""
        if not command.request_id:
            return None
        read = partial(self._reader.decision_of_request, entry.router.uid, command.request_id)
        return await self._reads(read, _left(until))

    async def _session(self, command: RouteCommand, entry: RouterEntry, now_us: int, until: float) -> Turn | None:
        """The session's last turn, None if there is none or it was too long ago.

        Where other servers write too, the log tells, but for a turn that was not logged.
        """
        if not command.session_id:
            return None
        uid = entry.router.uid
        since_us = now_us - round(entry.router.spec.session_ttl_seconds * 1e6)
        known = self._sessions.get(uid, command.session_id)
        if known is None or self._others_write:
            read = partial(self._reader.session_decision, uid, command.session_id, since_us)
            try:
                found = await self._reads(read, _left(until))
            except StorageUnavailableError:
                if not _answers_unlogged(entry):
                    raise
                found = None
            # Another request of the session may have been decided while the log was read.
            known = self._sessions.get(uid, command.session_id)
            if found and (known is None or known.time_us <= found.time_us):
                return _turn(found)
            if known is None:
                return None
        return known.turn if known.time_us >= since_us else None


def _answers_unlogged(entry: RouterEntry) -> bool:
    return entry.router.spec.storage_away is StorageAway.ANSWER_UNLOGGED


def _left(until: float) -> float:
    """The seconds until then, by the clock of the event loop."""
    return until - asyncio.get_running_loop().time()


def _unlogged(draft: DecisionRecord, now_us: int) -> DecisionRecord:
    """The draft as an answer: no second call, which could not be paid for from any budget."""
    return replace(draft, time_us=now_us, choice=replace(draft.choice, second=None))


def _own(decision: DecisionRecord) -> DecisionRecord:
    """The decision, if it is an answer. Raises InvalidFieldError for one that was made elsewhere."""
    if decision.choice.imported:
        raise InvalidFieldError("request_id", f"is that of an imported decision, {decision.decision_id}")
    return decision


def _turn(decision: DecisionRecord) -> Turn:
    return Turn(decision.choice.model, decision.charged_input_tokens)
