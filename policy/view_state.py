"""Views as bytes: what the learner publishes for the servers that decide, without all that it learns with."""

from __future__ import annotations

import io
import json
from dataclasses import asdict
from typing import Any

import numpy as np

from policy.allowance import Standing
from policy.array_state import ArrayState, json_array, loaded, part_of, prefixed
from policy.cost import COST_FEATURES, CostPredictor
from policy.domain import LearnerKind
from policy.quality import Predictor
from policy.ridge import LinearPredictor
from policy.view import ModelRecord, PolicyView, RouterRecord
from policy.vowpal import FrozenVowpal

VIEW_VERSION = 1
"""Raise it with every change of what a view holds or of what its numbers mean."""


class ViewVersionError(ValueError):
    """A view that another version has written."""


def dump_view(view: PolicyView) -> bytes:
    """The view without its layout, which is made again: what `load_view` gives decides alike, to the last bit."""
    buffer = io.BytesIO()
    shapes = list(view.cost.own_shapes.values())
    arrays = {
        **prefixed("quality", view.quality.state()),
        "cost shared_shape": view.cost.shared_shape,
        "cost own_shapes": np.array(shapes, dtype=np.float64).reshape(len(shapes), COST_FEATURES),
        "typical_features": view.typical_features,
    }
    np.savez(buffer, allow_pickle=False, meta=json_array(_meta(view)), **arrays)
    return buffer.getvalue()


def load_view(state: bytes) -> PolicyView:
    """The inverse of `dump_view`. Raises ViewVersionError for what another version has written."""
    arrays = loaded(state)
    meta = json.loads(arrays["meta"].tobytes())
    if meta["version"] != VIEW_VERSION:
        raise ViewVersionError(f"the view has version {meta['version']}, this server reads {VIEW_VERSION}")
    cost = meta["cost"]
    return PolicyView(
        snapshot=meta["snapshot"],
        embedding_dimensions=meta["embedding_dimensions"],
        quality=_predictor(LearnerKind(meta["quality"]), part_of(arrays, "quality")),
        cost=CostPredictor(
            shared_shape=arrays["cost shared_shape"],
            own_shapes=dict(zip(cost["models"], arrays["cost own_shapes"], strict=True)),
            token_scales=cost["token_scales"],
            dollar_scales=cost["dollar_scales"],
        ),
        pacer_price=meta["pacer_price"],
        router=RouterRecord.restore(meta["router"]),
        models={key: ModelRecord.restore(record) for key, record in meta["models"].items()},
        typical_features=arrays["typical_features"],
        budget_usd_per_request=meta["budget_usd_per_request"],
        standing=None if meta["standing"] is None else Standing(**meta["standing"]),
    )


def _meta(view: PolicyView) -> dict[str, Any]:
    """What is no array. JSON keeps every float to its last bit, and the order of the models, which sums follow."""
    return {
        "version": VIEW_VERSION,
        "snapshot": view.snapshot,
        "embedding_dimensions": view.embedding_dimensions,
        "quality": _kind(view.quality),
        "cost": {
            "models": list(view.cost.own_shapes),
            "token_scales": dict(view.cost.token_scales),
            "dollar_scales": dict(view.cost.dollar_scales),
        },
        "pacer_price": view.pacer_price,
        "router": asdict(view.router),
        "models": {key: asdict(record) for key, record in view.models.items()},
        "budget_usd_per_request": view.budget_usd_per_request,
        "standing": None if view.standing is None else asdict(view.standing),
    }


def _kind(quality: Predictor) -> LearnerKind:
    return LearnerKind.VOWPAL_WABBIT if isinstance(quality, FrozenVowpal) else LearnerKind.RIDGE


def _predictor(kind: LearnerKind, state: ArrayState) -> Predictor:
    if kind is LearnerKind.VOWPAL_WABBIT:
        return FrozenVowpal.restored(state)
    return LinearPredictor.restored(state)
