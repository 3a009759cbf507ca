"""Why this model: what each predicted quality of a decision is the sum of, by what is known now."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np

from policy.domain import FloatArray, Model, Router
from policy.layout import FEATURE_VERSION, HASHED, STRUCTURE, STRUCTURE_NAMES
from policy.log import DecisionRecord
from policy.quality import Parts
from policy.view import PolicyView


class Source(Enum):
    """What a part of a predicted quality comes from."""

    LEVEL = "level"
    DRIFT = "drift"
    DIFFICULTY = "difficulty"
    EMBEDDING = "embedding"
    STRUCTURE = "structure"
    CALLER = "caller"
    WHOLE = "whole"


@dataclass(frozen=True, slots=True)
class Term:
    """One part of a predicted quality, in the unit of the reward.

    A structure feature has its name, and by how much its value is above that of the typical query.
    """

    source: Source
    quality: float
    feature: str = ""
    value: float | None = None


@dataclass(frozen=True, slots=True)
class CandidateExplanation:
    """A candidate's predicted quality by what is known now, and the terms it is the sum of.

    `detail` says why there are none, for a candidate of which nothing is known any more.
    """

    model: str
    quality: float = 0.0
    terms: tuple[Term, ...] = ()
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Explanation:
    """A decision's candidates, in its order, explained with this snapshot; None if none could be."""

    snapshot: int | None
    candidates: tuple[CandidateExplanation, ...]


def explain(decision: DecisionRecord, router: Router | None, view: PolicyView | None) -> Explanation:
    """Explains a decision with its router and the router's view as they are now, None once it was deleted.

    The weights that it was made with are not kept with it. So the terms sum, up to rounding, to what would
    be predicted for its query now, which is what was predicted then only if the snapshot is the same.

    The level is what the model is predicted to be worth on the typical query, whose features are the mean of
    the recent ones; every other term but the drift is what its features' distance from the typical adds (for a
    linear model with independent features, its Shapley values: Lundberg and Lee 2017).
    """
    names = [each.model for each in decision.choice.candidates]
    if router is None or view is None or router.uid != decision.router_uid:
        return _unexplained(names, f"routers/{decision.router} was deleted since")
    if decision.feature_version != FEATURE_VERSION:
        return _unexplained(names, f"its features have version {decision.feature_version}, not {FEATURE_VERSION}")
    size = len(view.typical_features)
    if len(decision.features) != size:
        return _unexplained(names, f"it has {len(decision.features)} features, its router's queries now {size}")
    known = _explained(view, router, decision.features.astype(np.float64))
    by_id = {model.id: model for model in router.models}
    return Explanation(
        view.snapshot, tuple(_candidate(name, by_id.get(name), known, decision.seq) for name in names)
    )


def _unexplained(names: list[str], detail: str) -> Explanation:
    return Explanation(None, tuple(CandidateExplanation(name, detail=detail) for name in names))


def _candidate(
    name: str, model: Model | None, known: dict[str, CandidateExplanation], seq: int
) -> CandidateExplanation:
    if model is None:
        return CandidateExplanation(name, detail="it was removed since")
    if model.uid > seq:
        return CandidateExplanation(name, detail="it was removed since, and another was added by its name")
    return known[name]


def _explained(view: PolicyView, router: Router, features: FloatArray) -> dict[str, CandidateExplanation]:
    """Every model of the router, by id."""
    aligned = view.aligned(router)
    learned = view.quality.predict(features, aligned.keys).tolist()
    here = view.quality.parts(features, aligned.keys)
    typical = view.quality.parts(view.typical_features, aligned.keys)
    deviation = features - view.typical_features
    found = {}
    for row, (name, quality, drift) in enumerate(zip(aligned.ids, learned, aligned.offsets, strict=True)):
        if here is None or typical is None:
            terms: tuple[Term, ...] = (Term(Source.WHOLE, quality),)
        else:
            terms = _terms(here, typical, row, deviation)
        found[name] = CandidateExplanation(name, quality + drift, (*terms, Term(Source.DRIFT, drift)))
    return found


def _terms(here: Parts, typical: Parts, row: int, deviation: FloatArray) -> tuple[Term, ...]:
    """The terms of the model in this row of the parts, on top of which comes the drift."""
    caller = len(deviation) - 1 - HASHED
    structure = caller - STRUCTURE
    gains = here.products[row] - typical.products[row]  # (features,); the intercept's is 0
    named = zip(
        STRUCTURE_NAMES, gains[structure:caller].tolist(), deviation[structure:caller].tolist(), strict=True
    )
    return (
        Term(Source.LEVEL, float(typical.difficulty[row] + typical.products[row].sum())),
        Term(Source.DIFFICULTY, float(here.difficulty[row] - typical.difficulty[row])),
        Term(Source.EMBEDDING, float(gains[:structure].sum())),
        *(Term(Source.STRUCTURE, gain, name, value) for name, gain, value in named),
        Term(Source.CALLER, float(gains[caller:].sum())),
    )
