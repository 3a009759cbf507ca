"""Going back to what was known before, of this router or of another: what is taken over, and what is of the world.

What was learned of the models goes back: their quality, cost, latency and level, and how many rewards that is by.
What has happened stays: money that was spent, budgets and their pacing, the books of exploration, the counts of
calls and failures, circuits, and which queries came lately.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace

from policy.array_state import loaded
from policy.cost import CostLearner
from policy.domain import Router
from policy.drift import Level
from policy.quality import QualityLearner
from policy.view import ModelRecord

Span = tuple[int, int]
"""Positions of the log: those above the first, up to the second."""


@dataclass
class Learned:
    """What is known of models, by their keys, when the router has made so many decisions and learned so many
    rewards.
    """

    quality: QualityLearner
    cost: CostLearner
    levels: dict[str, Level]
    records: dict[str, ModelRecord]
    decisions: int
    rewards: int


def misfits(known: Router, router: Router) -> dict[str, str]:
    """Why a router cannot take over what was learned of another's models: a sentence for each thing that differs.

    Empty if it can: then the models are matched by their ids, one that only the router has begins anew, and one
    that only the other has is left out.
    """
    found: dict[str, str] = {}
    for name in ("embedding_dimensions", "learner"):
        theirs, ours = getattr(known.spec, name), getattr(router.spec, name)
        if theirs != ours:
            found[name] = f"{theirs} in the snapshot, {ours} in the router"
    if not matched(known, router, own=False):
        theirs, ours = (", ".join(each.id for each in of.models) or "none" for of in (known, router))
        found["models"] = f"{theirs} in the snapshot, {ours} in the router: none is in both"
    return found


def matched(known: Router, router: Router, *, own: bool) -> dict[str, str]:
    """The keys of models of the router, by those that the snapshot has for them.

    In one of its `own` snapshots a model that was removed and added again since is not the one that it was.
    """
    ours = {model.key if own else model.id: model.key for model in router.models}
    pairs = {model.key: ours.get(model.key if own else model.id) for model in known.models}
    return {theirs: mine for theirs, mine in pairs.items() if mine is not None}


def taken_over(known: Learned, names: Mapping[str, str], now: Learned) -> Learned:
    """What was known, under the router's own names; the rest of each record is as it is `now`.

    `known` must not be used any more. How long ago a model's level changed is counted in decisions: that stays.
    """
    for key in [key for key in known.records if key not in names]:
        known.quality.remove(key)
        known.cost.remove(key)
    known.quality.rename(names)
    known.cost.rename(names)
    of = {mine: theirs for theirs, mine in names.items()}
    for key in [key for key in now.records if key not in of]:
        known.quality.add(key)
        known.cost.add(key)
    shift = now.decisions - known.decisions
    blank = ModelRecord(joined_at=known.rewards, changed_at=-shift)
    records = {
        key: _went_back(record, known.records[of[key]] if key in of else blank, shift)
        for key, record in now.records.items()
    }
    levels = {key: known.levels[of[key]] if key in of else Level() for key in now.records}
    return Learned(known.quality, known.cost, levels, records, now.decisions, known.rewards)


def _went_back(now: ModelRecord, then: ModelRecord, shift: int) -> ModelRecord:
    return replace(
        now,
        rewards=then.rewards,
        reward_sum=then.reward_sum,
        latencies=then.latencies,
        latency_seconds=then.latency_seconds,
        offset=then.offset,
        fallen=then.fallen,
        return_evidence=then.return_evidence,
        variance=then.variance,
        changed_at=then.changed_at + shift,
        joined_at=then.joined_at,
        decisions_before=now.decisions - (then.decisions - then.decisions_before),
    )


def forgotten(spans: list[Span], told: int, now: int) -> list[Span]:
    """The positions whose rewards are not in what is known after going back to `told`, `spans` among them."""
    return [*spans, *([(told, now)] if now > told else [])]


def state_version(state: bytes) -> int:
    """By which version of the learner a state was saved. Raises ValueError or OSError if it is none."""
    return int(json.loads(loaded(state, "meta")["meta"].tobytes())["version"])
