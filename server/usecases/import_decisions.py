"""ImportDecisions: takes over decisions made elsewhere, with what came of them, into the same log."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import fsum

import numpy as np

from policy.choices import IMPORTED, Candidate, Choice
from policy.domain import MODELS_PER_ROUTER_MAX, InvalidFieldError, ModelError, require_number, require_text
from policy.features import Featuriser, QueryFeatures
from policy.layout import FEATURE_VERSION, HASHED, STRUCTURE
from policy.log import DecisionRecord, ReportRecord, Usage
from server.errors import ModelNotFoundError, PointsmanError, RouterNotFoundError
from server.registry import Registry, RouterEntry
from server.storage.group_commit import GroupCommit
from server.storage.writes import Disposition, ImportedRow, ImportWrite
from server.usecases.report_reward import check_report
from server.usecases.route_command import ID_LENGTH_MAX, check_features, check_prompt

ROWS_MAX = 1000

_ROUNDING = 1e-6
# Between these requests are decided: a write is waited for by all who come meanwhile, and so is the event loop.
_ROWS_A_WRITE = 25
_SECONDS_IN_A_ROW = 0.002


@dataclass(frozen=True, slots=True)
class ImportCommand:
    """One decision made elsewhere. Models are named by their ids.

    `propensity` is None where it is not known; so are those of the candidates, which are told by id.
    `features` is the whole vector, in the router's own features.
    """

    request_id: str
    model: str
    prompt: str = ""
    embedding: Sequence[float] = ()
    features: Sequence[float] = ()
    numeric_features: Mapping[str, float] = field(default_factory=dict)
    categorical_features: Mapping[str, str] = field(default_factory=dict)
    propensity: float | None = None
    candidates: Sequence[tuple[str, float | None]] = ()
    reward: float | None = None
    usage: Usage | None = None
    latency_seconds: float | None = None
    error: ModelError | None = None
    session_id: str = ""
    incumbent_model: str = ""
    event_time_us: int | None = None


class ImportDecisions:
    """Checks each row by itself, and writes the good ones, both in short pieces: routing goes on between."""

    def __init__(
        self,
        registry: Registry,
        featuriser: Featuriser,
        log: GroupCommit,
        clock_us: Callable[[], int],
        new_decision_id: Callable[[int], str],
    ) -> None:
        self._registry = registry
        self._featuriser = featuriser
        self._log = log
        self._clock_us = clock_us
        self._new_decision_id = new_decision_id

    async def __call__(
        self, router_id: str, commands: Sequence[ImportCommand]
    ) -> list[Disposition | PointsmanError | InvalidFieldError]:
        """The fate of each row. Where this raises, the first rows may be stored; all can be sent again.

        Raises RouterNotFoundError, QueueFullError, StorageUnavailableError.
        """
        entry = self._registry.entry(router_id)
        if entry is None:
            raise RouterNotFoundError(router_id)
        rows: list[ImportedRow | PointsmanError | InvalidFieldError] = []
        began = time.perf_counter()
        for command in commands:
            spent = time.perf_counter() - began
            if spent > _SECONDS_IN_A_ROW:  # Features take time.
                await asyncio.sleep(spent)
                began = time.perf_counter()
            rows.append(self._row_or_refusal(command, entry))
        good = [each for each in rows if isinstance(each, ImportedRow)]
        fates: list[Disposition] = []
        for start in range(0, len(good), _ROWS_A_WRITE):
            fates += await self._log.submit(ImportWrite(good[start : start + _ROWS_A_WRITE]))
        following = iter(fates)
        return [next(following) if isinstance(each, ImportedRow) else each for each in rows]

    def _row_or_refusal(
        self, command: ImportCommand, entry: RouterEntry
    ) -> ImportedRow | PointsmanError | InvalidFieldError:
        try:
            return self._row(command, entry)
        except (PointsmanError, InvalidFieldError) as refusal:
            return refusal

    def _row(self, command: ImportCommand, entry: RouterEntry) -> ImportedRow:
        _check(command)
        _check_models(command, entry)
        decision_id = self._new_decision_id(self._clock_us())
        report = ReportRecord(
            seq=0,
            time_us=0,
            decision_id=decision_id,
            report_id=IMPORTED,
            reward=command.reward,
            usage=command.usage,
            latency_seconds=command.latency_seconds,
            error=command.error,
            event_time_us=command.event_time_us,
        )
        check_report(report)
        choice = _choice(command)
        features = self._features(command, entry)
        decision = DecisionRecord(
            seq=0,
            time_us=0,
            expire_us=0,
            router=entry.router.id,
            decision_id=decision_id,
            choice=choice,
            features=features.vector,
            prompt_tokens=features.prompt_tokens,
            input_tokens=command.usage.input_tokens if command.usage else 0,
            max_output_tokens=0,
            request_id=command.request_id,
            session_id=command.session_id,
            incumbent_model=command.incumbent_model,
            feature_version=FEATURE_VERSION,
            prompt=command.prompt if entry.router.spec.store_prompts else None,
            router_uid=entry.router.uid,
            categorical=dict(command.categorical_features),
            numeric=dict(command.numeric_features),
        )
        return ImportedRow(decision, report)

    def _features(self, command: ImportCommand, entry: RouterEntry) -> QueryFeatures:
        dimensions = entry.router.spec.embedding_dimensions
        if len(command.features):
            return QueryFeatures(_vector(command.features, dimensions + STRUCTURE + HASHED + 1), 0.0)
        return self._featuriser.featurise(
            dimensions,
            command.prompt,
            command.embedding,
            command.numeric_features,
            command.categorical_features,
        )


def _vector(given: Sequence[float], size: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    if len(given) != size:
        raise InvalidFieldError("features", f"must have {size} values, as the router's own, not {len(given)}")
    values = np.asarray(given, dtype=np.float32)
    if not (np.abs(values) <= 1e6).all():
        raise InvalidFieldError("features", "must have values of -1e6 to 1e6 only")
    if values[-1] != 1.0:
        raise InvalidFieldError(
            "features", f"must end with 1, as the router's own, not with {float(values[-1])!r}"
        )
    return values


def _choice(command: ImportCommand) -> Choice:
    """The choice as it was made elsewhere; nobody predicted anything, so predictions are 0.

    A probability that is not known is 0.
    """
    told = dict(command.candidates) or {command.model: command.propensity}
    chosen = _propensity(command, told)
    shares = {model: share or 0.0 for model, share in told.items()} | {command.model: chosen}
    candidates = tuple(Candidate(model, share, 0.0, 0.0, 0.0, 0.0) for model, share in shares.items())
    return Choice(command.model, chosen, candidates, (), IMPORTED, snapshot=0, price_of_money=0.0)


def _propensity(command: ImportCommand, told: Mapping[str, float | None]) -> float:
    """That of the chosen model, 0 if it is not known. Raises InvalidFieldError for a contradiction."""
    if len(told) < len(command.candidates):
        raise InvalidFieldError("candidates", "must name each model once")
    if command.model not in told:
        raise InvalidFieldError("candidates", f"must have the chosen model {command.model!r} among them")
    among = told[command.model]
    chosen = among if command.propensity is None else command.propensity
    if among is not None and chosen is not None and abs(among - chosen) > _ROUNDING:
        raise InvalidFieldError("propensity", f"is {chosen!r}, but {among!r} among the candidates")
    known = [share for model, share in told.items() if share is not None and model != command.model]
    if chosen is None:
        if known:
            raise InvalidFieldError("propensity", "must be set where other candidates have one")
        return 0.0
    if chosen <= 0.0:
        raise InvalidFieldError("propensity", "must be above 0: the model was chosen")
    total = fsum([chosen, *known])
    complete = len(known) == len(told) - 1 and len(command.candidates) > 0
    if total > 1.0 + _ROUNDING or (complete and total < 1.0 - _ROUNDING):
        raise InvalidFieldError("candidates", f"must have propensities that sum to 1, not to {total!r}")
    return chosen


def _check(command: ImportCommand) -> None:
    """Raises InvalidFieldError for what is wrong whatever the router."""
    if not command.request_id:
        raise InvalidFieldError("request_id", "must be set: it keeps a second import from counting twice")
    for name in ("request_id", "session_id"):
        require_text(name, getattr(command, name), ID_LENGTH_MAX)
    if not command.model:
        raise InvalidFieldError("model", "must be set: it is the model that was called")
    check_prompt(command.prompt)
    check_features(command.numeric_features, command.categorical_features)
    if len(command.features) and (len(command.embedding) or command.prompt):
        raise InvalidFieldError("features", "cannot be set beside prompt or embedding: they have both in them")
    queried = (command.prompt, command.embedding, command.features, command.numeric_features)
    if not any(len(each) for each in queried) and not command.categorical_features:
        raise InvalidFieldError("prompt", "must be set, or else embedding, features or features by name")
    if len(command.candidates) > MODELS_PER_ROUTER_MAX:
        raise InvalidFieldError("candidates", f"must be at most {MODELS_PER_ROUTER_MAX}")
    if command.propensity is not None:
        require_number("propensity", command.propensity, 0, 1, above=True)
    for model, share in command.candidates:
        if share is not None:
            require_number(f"candidates[{model}].propensity", share, 0, 1)


def _check_models(command: ImportCommand, entry: RouterEntry) -> None:
    """Raises ModelNotFoundError for a model that the router never had; one that was removed learns nothing."""
    named = [("model", command.model), ("incumbent_model", command.incumbent_model)]
    named += [("candidates", model) for model, _ in command.candidates]
    for name, model in named:
        if model and model not in entry.by_id and model not in entry.removed_models:
            raise ModelNotFoundError(entry.router.id, model[:160], name)
