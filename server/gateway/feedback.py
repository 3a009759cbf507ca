"""POST /v1/feedback: what a user thinks of an answer becomes the decision's reward."""

from __future__ import annotations

import asyncio
import json
import time
from collections import OrderedDict
from pathlib import Path
from typing import Any

from pointsman.v1 import router_service_pb2 as pb

from server.gateway.decisions import Pointsman
from server.gateway.problems import ApiError, bad_field

_DECISIONS_MAX = 50_000
_FIELDS = frozenset(("decision_id", "score", "thumb", "comment", "feedback_id"))
_THUMBS = {"up": 1.0, "down": 0.0}
_ID_MAX = 100
_COMMENT_MAX = 10_000


class LastServed:
    """Which model served a decision, of the last so many."""

    def __init__(self) -> None:
        self._models: OrderedDict[str, str] = OrderedDict()

    def keep(self, decision_id: str, model: str) -> None:
        """Remembers it."""
        if decision_id:
            self._models[decision_id] = model
            if len(self._models) > _DECISIONS_MAX:
                self._models.popitem(last=False)

    def model(self, decision_id: str) -> str | None:
        """None if it is not known here: another process served it, or it is long ago."""
        return self._models.get(decision_id)


class Feedback:
    """Reports rewards, and keeps comments if there is a file for them."""

    def __init__(self, pointsman: Pointsman, served: LastServed, comments_file: Path | None) -> None:
        self._pointsman = pointsman
        self._served = served
        self._comments_file = comments_file

    async def take(self, body: Any) -> dict[str, Any]:
        """Gives the answer's body. Raises ApiError naming the field."""
        decision_id, score, feedback_id, comment = _read(body)
        model = self._served.model(decision_id) or _server_of(await self._pointsman.decision(decision_id))
        report = pb.ReportRewardRequest(
            decision_id=decision_id,
            report_id=f"feedback-{feedback_id}" if feedback_id else "",
            reward=score,
            served_model=model,
        )
        report.signals["feedback"] = score
        disposition = await self._pointsman.report(report)
        kept = False
        if comment and self._comments_file is not None and disposition != "DUPLICATE":
            kept = True
            row = {"time": time.time(), "decision_id": decision_id, "model": model, "score": score}
            await asyncio.to_thread(_append, self._comments_file, {**row, "comment": comment})
        return {
            "object": "pointsman.feedback",
            "decision_id": decision_id,
            "model": model,
            "disposition": disposition.lower(),
            "comment_kept": kept,
        }


def _append(path: Path, row: dict[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _read(body: Any) -> tuple[str, float, str, str]:
    if not isinstance(body, dict):
        raise ApiError(400, "the body must be a JSON object", code="invalid_json")
    for name in body:
        if name not in _FIELDS:
            raise ApiError(400, f"there is no field {name!r}", code="unknown_parameter", param=name)
    decision_id = body.get("decision_id")
    if not isinstance(decision_id, str) or not decision_id:
        raise bad_field("decision_id", "must be that of an answer, as in its x-pointsman-decision-id")
    texts = [_text(body, name, most) for name, most in (("feedback_id", _ID_MAX), ("comment", _COMMENT_MAX))]
    return decision_id, _score(body), texts[0], texts[1]


def _score(body: dict[str, Any]) -> float:
    score, thumb = body.get("score"), body.get("thumb")
    if (score is None) == (thumb is None):
        raise bad_field("score", "give either score, from 0 to 1, or thumb, 'up' or 'down'")
    if thumb is not None:
        if thumb not in _THUMBS:
            raise bad_field("thumb", "must be 'up' or 'down'")
        return _THUMBS[thumb]
    if not isinstance(score, int | float) or isinstance(score, bool) or not 0 <= score <= 1:
        raise bad_field("score", "must be a number from 0 to 1")
    return float(score)


def _text(body: dict[str, Any], name: str, most: int) -> str:
    value = body.get(name)
    if value is not None and (not isinstance(value, str) or len(value) > most):
        raise bad_field(name, f"must be a text of at most {most} characters")
    return value or ""


def _server_of(decision: pb.Decision) -> str:
    """The model that gave the answer: that of the last report of a call that worked, else the chosen one."""
    for report in reversed(decision.reports):
        told = report.report
        if not told.error and (told.HasField("usage") or told.HasField("latency")):
            return report.model
    return decision.model
