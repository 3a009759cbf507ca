"""Reads logged decisions from JSON lines, optionally gzipped, one decision with its outcome a line."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from policy.domain import (
    MODELS_PER_ROUTER_MAX,
    TOKENS_MAX,
    Candidate,
    Choice,
    Exclusion,
    Features,
    InvalidFieldError,
    Model,
    ModelError,
    ModelSpec,
    Router,
    require_model_id,
)
from policy.features import Featuriser
from policy.log import DecisionRecord, ReportRecord, Usage
from server.evaluate.fields import Fields
from server.evaluate.source import Logged
from server.json_lines import UnreadableFileError, numbered_lines, parsed

_FIRST_SEQ = 1_000_000  # Above the uid of any model.
_SECOND_US = 1_000_000
_SUM_TOLERANCE = 1e-6
_PROPENSITY_MIN = 1e-12
_PRIOR_QUALITY = 0.5
_NO_FEATURES: Features = np.zeros(0, dtype=np.float32)


class LogFileError(UnreadableFileError):
    """A file that cannot be evaluated. The message names the file, the line and the field."""


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


class LogFile:
    """The decisions of one router in a file, read as they are asked for.

    The router has the models that the lines so far have named, and `router`'s spec. Where a line does not say
    what was predicted of a model, it is the mean of what the lines before it brought. `featuriser` None leaves
    the features empty, which is enough where nothing learns.
    """

    def __init__(self, path: Path, router: Router, name: str | None, featuriser: Featuriser | None) -> None:
        self._path = path
        self._router = router
        self._name = name
        self._featuriser = featuriser
        self._seen: dict[str, _Seen] = {}
        self._lines = 0
        self._first_name = ""

    def __iter__(self) -> Iterator[Logged]:
        """Raises UnreadableFileError; at a line at fault, LogFileError."""
        for number, line in numbered_lines(self._path):
            try:
                logged = self._logged(number, Fields(parsed(line)))
            except InvalidFieldError as error:
                raise LogFileError(f"{self._path}:{number}: {error}") from error
            if logged is not None:
                self._lines += 1
                yield logged
        if not self._lines:
            raise LogFileError(f"{self._path}: has no decisions" + (f" of {self._name!r}" if self._name else ""))

    def _logged(self, number: int, fields: Fields) -> Logged | None:
        name = fields.text("router")
        if self._name is not None and name != self._name:
            return None
        if self._lines and name != self._first_name:
            raise InvalidFieldError("router", f"is {name!r} and was {self._first_name!r}: name one with --router")
        self._first_name = name
        chosen = fields.model("model", required=True)
        candidates = self._candidates(fields, chosen)
        reports = (self._report(number, fields, chosen),)
        self._grow(fields, [each.model for each in candidates])
        logged = Logged(self._router, self._decision(number, fields, chosen, candidates), reports)
        served = fields.model("served_model") or chosen
        seen = self._seen.setdefault(served, _Seen())
        usage = reports[0].usage
        seen.learn(reports[0].reward, usage.cost_usd if usage else None, reports[0].latency_seconds)
        return logged

    def _grow(self, fields: Fields, models: list[str]) -> None:
        """Adds models that the router did not have, and takes the length of the callers' embeddings."""
        known = {each.id for each in self._router.models}
        new = [model for model in models if model not in known]
        size = len(fields.numbers("features")) or self._router.spec.embedding_dimensions
        if not new and size == self._router.spec.embedding_dimensions:
            return
        if self._lines and size != self._router.spec.embedding_dimensions:
            wanted = self._router.spec.embedding_dimensions
            raise InvalidFieldError("features", f"must have {wanted} numbers as in the lines before, not {size}")
        count = len(self._router.models)
        if count + len(new) > MODELS_PER_ROUTER_MAX:
            raise InvalidFieldError("model", f"must be one of at most {MODELS_PER_ROUTER_MAX} in the file")
        added = tuple(Model(model, count + each, ModelSpec()) for each, model in enumerate(new))
        spec = replace(self._router.spec, embedding_dimensions=size)
        self._router = replace(self._router, spec=spec, models=(*self._router.models, *added))

    def _candidates(self, fields: Fields, chosen: str) -> tuple[Candidate, ...]:
        said = fields.objects("candidates")
        propensities = fields.mapping("propensities")
        for model in propensities:
            require_model_id("propensities", model)
        known = [each.id for each in self._router.models]
        models = list(dict.fromkeys(said or [*known, *propensities, chosen]))
        if chosen not in models:
            raise InvalidFieldError("candidates", f"must have the chosen model {chosen!r}")
        fill = 0.0 if propensities else math.nan
        found = [self._candidate(model, said.get(model), propensities.get(model, fill)) for model in models]
        if all(each.exclusion for each in found):
            raise InvalidFieldError("candidates", "must have one that is not excluded")
        propensity = fields.number("propensity", 0.0, 1.0)
        return _with_propensity(found, chosen, propensity)

    def _candidate(self, model: str, said: Fields | None, propensity: float) -> Candidate:
        fields = said or Fields({})
        seen = self._seen.get(model) or _Seen()
        quality = fields.number("quality", -10.0, 10.0, seen.quality)
        # What nobody told is not known to be 0: a call without usage would be taken to have cost that.
        cost = fields.number("cost_usd", 0.0, 1e6, seen.cost_usd if seen.costs else math.nan)
        latency = fields.number("latency_seconds", 0.0, 1e6, seen.latency_seconds)
        excluded = fields.truth("excluded")
        # An incumbent is obeyed even where it would be excluded.
        probability = fields.number("probability", 0.0, 1.0, 0.0 if excluded else propensity)
        score = fields.number("score", -math.inf, math.inf, quality)
        return Candidate(
            model, probability, quality, cost, latency, score, Exclusion.NOT_ALLOWED if excluded else None
        )

    def _decision(
        self, number: int, fields: Fields, chosen: str, candidates: tuple[Candidate, ...]
    ) -> DecisionRecord:
        objective = self._router.spec.objective
        money = fields.number("price_of_money", 0.0, math.inf)
        if math.isnan(money) and math.isinf(objective.value_usd):
            raise InvalidFieldError(
                "price_of_money", "must be there with a budget alone, or say --quality-value-usd"
            )
        choice = Choice(
            model=chosen,
            probability=next(each.probability for each in candidates if each.model == chosen),
            candidates=candidates,
            fallbacks=(),
            policy=fields.text("policy"),
            snapshot=0,
            price_of_money=0.0 if math.isnan(money) else money,
            sticky=fields.truth("sticky"),
            proposed_model=fields.model("proposed_model"),
        )
        prompt = fields.text("prompt")
        time_us = int(fields.number("time_us", 0.0, 1e18, float(number * _SECOND_US)))
        return DecisionRecord(
            seq=_FIRST_SEQ + 2 * number,
            time_us=time_us,
            expire_us=time_us,
            router=self._router.id,
            decision_id=fields.text("decision_id") or f"line-{number}",
            choice=choice,
            features=self._features(fields, prompt),
            prompt_tokens=len(prompt) / 4.0,
            input_tokens=0,
            max_output_tokens=0,
            exploit_only=fields.truth("exploit_only"),
            incumbent_model=fields.model("incumbent_model"),
            categorical=fields.texts("categorical"),
            numeric=fields.mapping("numeric"),
        )

    def _features(self, fields: Fields, prompt: str) -> Features:
        if self._featuriser is None:
            return _NO_FEATURES
        size = self._router.spec.embedding_dimensions
        numeric, categorical = fields.mapping("numeric"), fields.texts("categorical")
        embedding = fields.numbers("features")
        return self._featuriser.featurise(size, prompt, embedding, numeric, categorical).vector

    def _report(self, number: int, fields: Fields, chosen: str) -> ReportRecord:
        served = fields.model("served_model")
        reward = _known(fields.number("reward", 0.0, 1.0))
        cost_usd = _known(fields.number("cost_usd", 0.0, 1e6))
        tokens_in, tokens_out = (
            int(fields.number(name, 0.0, TOKENS_MAX, 0.0)) for name in ("input_tokens", "output_tokens")
        )
        return ReportRecord(
            seq=_FIRST_SEQ + 2 * number + 1,
            time_us=int(fields.number("time_us", 0.0, 1e18, float(number * _SECOND_US))),
            decision_id=fields.text("decision_id") or f"line-{number}",
            reward=reward,
            usage=None if cost_usd is None else Usage(tokens_in, tokens_out, cost_usd),
            latency_seconds=_known(fields.number("latency_seconds", 0.0, 1e6)),
            served_model=served,
            error=ModelError.UNAVAILABLE if fields.truth("error") else None,
            subject=served or chosen,
            learned_reward=reward,
            charged_usd=cost_usd,
            settles=cost_usd is not None,
        )


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _with_propensity(candidates: list[Candidate], chosen: str, propensity: float) -> tuple[Candidate, ...]:
    """The candidates with the chosen one's propensity, where the line says it apart. Raises InvalidFieldError."""
    said = next(each.probability for each in candidates if each.model == chosen)
    told = any(each.probability >= (0.0 if each.exclusion is None else _PROPENSITY_MIN) for each in candidates)
    if not math.isnan(propensity):
        if not math.isnan(said) and abs(said - propensity) > _SUM_TOLERANCE:
            raise InvalidFieldError("propensity", f"must be the chosen model's {said:g}, not {propensity:g}")
        candidates = [
            replace(each, probability=propensity if each.model == chosen else each.probability)
            for each in candidates
        ]
    if 0.0 < propensity < _PROPENSITY_MIN:
        raise InvalidFieldError("propensity", f"must be {_PROPENSITY_MIN:g} or more, or 0 if it is not known")
    if not told:
        if propensity == 1.0:  # Then nothing else could have been drawn.
            candidates = [replace(each, probability=float(each.model == chosen)) for each in candidates]
        return tuple(candidates)
    total = sum(each.probability for each in candidates)
    if not abs(total - 1.0) <= _SUM_TOLERANCE:
        raise InvalidFieldError("propensities", f"must have a sum of 1, not {total:g}")
    if not any(each.model == chosen and each.probability >= _PROPENSITY_MIN for each in candidates):
        raise InvalidFieldError("propensities", f"must be above 0 for the chosen model {chosen!r}")
    return tuple(candidates)
