"""Makes the rows of a file into logged decisions, each with its outcome."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np

from policy.choices import Candidate, Choice, Exclusion
from policy.domain import (
    MODELS_PER_ROUTER_MAX,
    Features,
    InvalidFieldError,
    Model,
    ModelSpec,
    Router,
    require_model_id,
)
from policy.features import Featuriser
from policy.layout import HASHED, STRUCTURE
from policy.log import DecisionRecord, ReportRecord, Usage
from server.evaluate.source import Logged
from server.json_lines import UnreadableFileError
from server.rows.file import RowFile
from server.rows.row import CandidateRow, Row

_FIRST_SEQ = 1_000_000  # Above the uid of any model.
_SECOND_US = 1_000_000
_SUM_TOLERANCE = 1e-6
_PROPENSITY_MIN = 1e-12
_PRIOR_QUALITY = 0.5
_OTHER_MODELS = ("served_model", "incumbent_model", "proposed_model")
_NO_FEATURES: Features = np.zeros(0, dtype=np.float32)
_NOTHING: Mapping[str, Any] = MappingProxyType({})


class LogFileError(UnreadableFileError):
    """A file that cannot be evaluated. The message names the file, the row and the field."""


@dataclass(slots=True)
class _Seen:
    """The means of what a model's calls have brought so far: the prediction where a line has none."""

    quality: float = _PRIOR_QUALITY
    cost_usd: float = 0.0
    latency_seconds: float = 0.0
    rewards: int = 0
    costs: int = 0
    latencies: int = 0

    def learn(self, reward: float | None, cost_usd: float | None, latency_seconds: float | None) -> None:
        """Takes what came of one call."""
        if reward is not None:
            self.rewards += 1
            self.quality += (reward - self.quality) / self.rewards
        if cost_usd is not None:
            self.costs += 1
            self.cost_usd += (cost_usd - self.cost_usd) / self.costs
        if latency_seconds is not None:
            self.latencies += 1
            self.latency_seconds += (latency_seconds - self.latency_seconds) / self.latencies


_UNSEEN = _Seen()


class LogFile:
    """The decisions of one router in a file, read as they are asked for.

    The router has the models that the rows so far have named, and `router`'s spec. Where a row does not say
    what was predicted of a model, it is the mean of what the rows before it brought. `featuriser` None leaves
    the features empty, which is enough where nothing learns.
    """

    def __init__(self, rows: RowFile, router: Router, name: str | None, featuriser: Featuriser | None) -> None:
        self._file = rows
        self._router = router
        self._name = name
        self._featuriser = featuriser
        self._known: set[str] = set()
        self._seen: dict[str, _Seen] = {}
        self._rows = 0
        self._first_name: str | None = ""

    def __iter__(self) -> Iterator[Logged]:
        """Raises UnreadableFileError; at a row at fault, LogFileError."""
        for number, row in self._file:
            try:
                if isinstance(row, InvalidFieldError):
                    raise row
                logged = self._logged(number, row)
            except InvalidFieldError as error:
                raise LogFileError(f"{self._file.path}:{number}: {error}") from error
            if logged is not None:
                self._rows += 1
                yield logged
        if not self._rows:
            of = f" of {self._name!r}" if self._name else ""
            raise LogFileError(f"{self._file.path}: has no decisions{of}")

    def _logged(self, number: int, row: Row) -> Logged | None:
        if self._name is not None and row.router != self._name:
            return None
        if self._rows and row.router != self._first_name:
            raise InvalidFieldError(
                "router", f"is {row.router!r} and was {self._first_name!r}: name one with --router"
            )
        self._first_name = row.router
        candidates = self._candidates(row)
        for name in _OTHER_MODELS:
            if (model := getattr(row, name)) and model not in self._known:
                require_model_id(name, model)
        self._grow(row, candidates)
        time_us = row.time_us
        decision = self._decision(number, number * _SECOND_US if time_us is None else time_us, row, candidates)
        report = _report(decision, row)
        seen = self._seen.setdefault(report.subject, _Seen())
        seen.learn(row.reward, row.cost_usd, row.latency_seconds)
        return Logged(self._router, decision, (report,))

    def _grow(self, row: Row, candidates: Sequence[Candidate]) -> None:
        """Adds models that the router did not have, and takes the length of the callers' embeddings."""
        new = [each.model for each in candidates if each.model not in self._known]
        wanted = size = self._router.spec.embedding_dimensions
        if row.embedding or row.features:
            size = len(row.embedding or ()) or len(row.features or ()) - STRUCTURE - HASHED - 1
        if not new and size == wanted:
            return
        if size != wanted and (self._rows or size < 1):
            name = "embedding" if row.embedding else "features"
            raise InvalidFieldError(name, f"must have {wanted} numbers of an embedding, as before, not {size}")
        count = len(self._router.models)
        if count + len(new) > MODELS_PER_ROUTER_MAX:
            raise InvalidFieldError("model", f"must be one of at most {MODELS_PER_ROUTER_MAX} in the file")
        added = tuple(Model(model, count + each, ModelSpec()) for each, model in enumerate(new))
        spec = replace(self._router.spec, embedding_dimensions=size)
        self._router = replace(self._router, spec=spec, models=(*self._router.models, *added))
        self._known.update(new)

    def _candidates(self, row: Row) -> list[Candidate]:
        given = row.given_candidates
        if not given:
            known = (each.id for each in self._router.models)
            given = [CandidateRow(model) for model in dict.fromkeys((*known, row.model))]
        models = [each.model for each in given]
        if row.model not in models:
            raise InvalidFieldError("candidates", f"must have the chosen model {row.model!r}")
        for model in models:
            if model not in self._known:
                require_model_id("model" if model == row.model else "candidates", model)
        found = [self._candidate(each) for each in given]
        if all(each.exclusion for each in found):
            raise InvalidFieldError("candidates", "must have one that is not excluded")
        return _with_propensity(found, models.index(row.model), row.propensity)

    def _candidate(self, given: CandidateRow) -> Candidate:
        seen = self._seen.get(given.model) or _UNSEEN
        quality = seen.quality if given.quality is None else given.quality
        probability = given.propensity
        if probability is None:
            # An incumbent is obeyed even where it would be excluded.
            probability = 0.0 if given.excluded else math.nan
        # What nobody told is not known to be 0: a call without usage would be taken to have cost that.
        predicted_usd = seen.cost_usd if seen.costs else math.nan
        return Candidate(
            given.model,
            probability,
            quality,
            predicted_usd if given.cost_usd is None else given.cost_usd,
            seen.latency_seconds if given.latency_seconds is None else given.latency_seconds,
            quality if given.score is None else given.score,
            Exclusion.NOT_ALLOWED if given.excluded else None,
        )

    def _decision(self, number: int, time_us: int, row: Row, candidates: Sequence[Candidate]) -> DecisionRecord:
        if row.price_of_money is None and math.isinf(self._router.spec.objective.value_usd):
            raise InvalidFieldError(
                "price_of_money", "must be there with a budget alone, or say --quality-value-usd"
            )
        choice = Choice(
            model=row.model,
            probability=next(each.probability for each in candidates if each.model == row.model),
            candidates=tuple(candidates),
            fallbacks=(),
            policy="",
            snapshot=0,
            price_of_money=row.price_of_money or 0.0,
            sticky=bool(row.sticky),
            proposed_model=row.proposed_model or "",
        )
        return DecisionRecord(
            seq=_FIRST_SEQ + 2 * number,
            time_us=time_us,
            expire_us=time_us,
            router=self._router.id,
            decision_id=f"line-{number}" if row.request_id is None else str(row.request_id),
            choice=choice,
            features=self._features(row),
            prompt_tokens=len(row.prompt or "") / 4.0,
            input_tokens=0,
            max_output_tokens=0,
            exploit_only=bool(row.exploit_only),
            incumbent_model=row.incumbent_model or "",
            categorical=row.given_categorical if row.categorical else _NOTHING,
            numeric=row.given_numeric if row.numeric else _NOTHING,
        )

    def _features(self, row: Row) -> Features:
        if self._featuriser is None:
            return _NO_FEATURES
        if row.features:
            return np.array(row.features, dtype=np.float32)
        size = self._router.spec.embedding_dimensions
        return self._featuriser.featurise(
            size, row.prompt or "", row.embedding or (), row.given_numeric, row.given_categorical
        ).vector


def _report(decision: DecisionRecord, row: Row) -> ReportRecord:
    usage = None
    if row.cost_usd is not None:
        usage = Usage(int(row.input_tokens or 0), int(row.output_tokens or 0), row.cost_usd)
    return ReportRecord(
        seq=decision.seq + 1,
        time_us=decision.time_us,
        decision_id=decision.decision_id,
        reward=row.reward,
        usage=usage,
        latency_seconds=row.latency_seconds,
        served_model=row.served_model or "",
        error=row.error,
        subject=row.served_model or row.model,
        learned_reward=row.reward,
        charged_usd=row.cost_usd,
        settles=row.cost_usd is not None,
    )


def _with_propensity(said: list[Candidate], chosen: int, propensity: float | None) -> list[Candidate]:
    """The candidates with the chosen one's propensity, where the row says it apart. Raises InvalidFieldError."""
    candidates, drawn = said, said[chosen]
    if propensity is not None and drawn.probability != propensity:
        if abs(drawn.probability - propensity) > _SUM_TOLERANCE:
            raise InvalidFieldError(
                "propensity", f"must be the candidate's {drawn.probability:g}, not {propensity:g}"
            )
        if 0.0 < propensity < _PROPENSITY_MIN:
            raise InvalidFieldError("propensity", f"must be {_PROPENSITY_MIN:g} or more, or 0 if it is not known")
        drawn = replace(drawn, probability=propensity)
        candidates = [*said[:chosen], drawn, *said[chosen + 1 :]]
    total = sum([each.probability for each in candidates])
    if abs(total - 1.0) <= _SUM_TOLERANCE and drawn.probability >= _PROPENSITY_MIN:
        return candidates
    if any(each.probability >= (_PROPENSITY_MIN if each.exclusion else 0.0) for each in said):
        raise InvalidFieldError(
            "candidates",
            f"must have propensities with a sum of 1, and one above 0 of {drawn.model!r}, which was chosen",
        )
    if propensity == 1.0:  # Then nothing else could have been drawn.
        return [replace(each, probability=float(each is drawn)) for each in candidates]
    return candidates
