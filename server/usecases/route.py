"""Route: picks a model for one query and logs the decision before answering."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from policy.canary import RouteRequest
from policy.choices import Constraints, Preference, Query, Turn
from policy.decide import Blend, NoCandidateError, decide
from policy.domain import (
    TOKENS_MAX,
    WORTH_USD_MAX,
    WORTH_USD_MIN,
    InvalidFieldError,
    RouterMode,
    StorageAway,
    require_number,
    require_text,
)
from policy.features import FEATURE_VERSION, Featuriser, QueryFeatures
from policy.log import DecisionRecord
from policy.quick import quick
from policy.second import offered
from server.errors import (
    ModelNotFoundError,
    NoEligibleModelError,
    RouterNotFoundError,
    StorageUnavailableError,
)
from server.probes import Probe, Probes
from server.registry import Registry, RouterEntry
from server.sessions import LastTurn, Sessions
from server.storage.bounded_reads import BoundedReads
from server.storage.group_commit import GroupCommit
from server.storage.reader import LogReader
from server.storage.writes import DecisionWrite
from server.views import CandidateViews, Views

PROMPT_BYTES_MAX = 1 << 20
ID_LENGTH_MAX = 128
NAMES_MAX = 1000
CAPABILITIES_MAX = 64
CAPABILITY_LENGTH_MAX = 64
FEATURES_MAX = 256
FEATURE_NAME_LENGTH_MAX = 256

# Of the time until the caller's deadline: the rest is for the answer to get there.
_WAIT_SHARE = 0.8


@quick
@dataclass(frozen=True, slots=True)
class RouteCommand:
    """A request to route, as the caller made it. Models are named by their ids."""

    router_id: str
    request_id: str = ""
    prompt: str = ""
    embedding: Sequence[float] = ()
    numeric_features: Mapping[str, float] = field(default_factory=dict)
    categorical_features: Mapping[str, str] = field(default_factory=dict)
    allowed_models: Sequence[str] = ()
    denied_models: Sequence[str] = ()
    required_capabilities: Sequence[str] = ()
    max_cost_usd: float | None = None
    max_latency_seconds: float | None = None
    preference: Preference = Preference()
    input_tokens: int = 0
    max_output_tokens: int = 0
    session_id: str = ""
    incumbent_model: str = ""
    defer_activation: bool = False


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

    async def __call__(self, command: RouteCommand, deadline_seconds: float | None = None) -> DecisionRecord:
        """The decision as logged, or with a `seq` of 0 if it could not be and the router wants an answer all the
        same. That is given before the deadline, if the caller has one.

        Raises InvalidFieldError, RouterNotFoundError, ModelNotFoundError, NoEligibleModelError,
        QueueFullError, StorageUnavailableError.
        """
        _check(command)
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
        _check_models(command, entry)
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
            logged: DecisionRecord = await self._log.submit(self._making(attempt), _left(until))
        except Exception as error:
            if isinstance(error, StorageUnavailableError) and _answers_unlogged(entry):
                # A probe is made all the same. What comes of it nobody will hear.
                draft = attempt.draft or self._draft(attempt, self._entry(attempt.command))
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
            constraints=_constraints(command),
            preference=command.preference,
        )
        incumbent = command.incumbent_model if router.spec.mode is RouterMode.SHADOW else ""
        probed = self._probes.in_flight(router.uid, view.snapshot, now_us)
        blend = None if incumbent else self._blend(command, entry, query)
        choice = decide(view, router, query, decision_id, now_us, session, incumbent, probed, blend)
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
    return Turn(decision.choice.model, decision.query.charged_input_tokens)


def _constraints(command: RouteCommand) -> Constraints:
    return Constraints(
        frozenset(command.allowed_models) if command.allowed_models else None,
        frozenset(command.denied_models),
        frozenset(command.required_capabilities),
        command.max_cost_usd,
        command.max_latency_seconds,
    )


def _check(command: RouteCommand) -> None:
    """Raises InvalidFieldError for what is wrong whatever the router."""
    check_prompt(command.prompt)
    for name in ("request_id", "session_id"):
        require_text(name, getattr(command, name), ID_LENGTH_MAX)
    for name, most in (
        ("allowed_models", NAMES_MAX),
        ("denied_models", NAMES_MAX),
        ("required_capabilities", CAPABILITIES_MAX),
    ):
        if len(getattr(command, name)) > most:
            raise InvalidFieldError(f"constraints.{name}", f"must be at most {most:,}")
    if any(not each or len(each) > CAPABILITY_LENGTH_MAX for each in command.required_capabilities):
        raise InvalidFieldError(
            "constraints.required_capabilities", f"must be of 1 to {CAPABILITY_LENGTH_MAX} characters each"
        )
    for name in ("input_tokens", "max_output_tokens"):
        require_number(name, getattr(command, name), 0, TOKENS_MAX)
    if command.max_cost_usd is not None:
        require_number("constraints.max_cost_usd", command.max_cost_usd, 0)
    if command.max_latency_seconds is not None:
        require_number("constraints.max_latency", command.max_latency_seconds, 0)
    if command.preference.quality_value_usd is not None:
        value = command.preference.quality_value_usd
        require_number("preference.quality_value_usd", value, WORTH_USD_MIN, WORTH_USD_MAX)
    if command.preference.latency_usd_per_second is not None:
        price = command.preference.latency_usd_per_second
        require_number("preference.latency_usd_per_second", price, 0, WORTH_USD_MAX)
    check_features(command.numeric_features, command.categorical_features)


def check_prompt(prompt: str) -> None:
    """Raises InvalidFieldError for a prompt that is too long."""
    if len(prompt.encode()) > PROMPT_BYTES_MAX:
        raise InvalidFieldError(
            "prompt",
            f"must be at most {PROMPT_BYTES_MAX:,} bytes; send its beginning, or an embedding",
        )


def check_features(numeric: Mapping[str, float], categorical: Mapping[str, str]) -> None:
    """Raises InvalidFieldError for features of the caller's that cannot be taken."""
    for name, features in (("numeric_features", numeric), ("categorical_features", categorical)):
        if len(features) > FEATURES_MAX:
            raise InvalidFieldError(name, f"must be at most {FEATURES_MAX}")
        if any(len(key) > FEATURE_NAME_LENGTH_MAX for key in features):
            raise InvalidFieldError(name, f"names must be at most {FEATURE_NAME_LENGTH_MAX} characters")
    for key, value in numeric.items():
        require_number(f"numeric_features[{key}]", value, -1e6, 1e6)
    for key, text in categorical.items():
        if len(text) > FEATURE_NAME_LENGTH_MAX:
            raise InvalidFieldError(
                f"categorical_features[{key}]",
                f"must be at most {FEATURE_NAME_LENGTH_MAX} characters",
            )


def _check_models(command: RouteCommand, entry: RouterEntry) -> None:
    """Raises for a named model that the router never had; one that was removed is simply not there."""
    named = {
        "constraints.allowed_models": command.allowed_models,
        "constraints.denied_models": command.denied_models,
        "incumbent_model": [command.incumbent_model] if command.incumbent_model else [],
    }
    for name, ids in named.items():
        for model_id in ids:
            if model_id not in entry.by_id and model_id not in entry.removed_models:
                raise ModelNotFoundError(entry.router.id, model_id[:160], name)
    if entry.router.spec.mode is RouterMode.SHADOW and command.incumbent_model not in entry.by_id:
        raise InvalidFieldError(
            "incumbent_model",
            f"must name a present model, since routers/{entry.router.id} is in shadow mode",
        )
