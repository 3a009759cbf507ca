"""Makes a row of a file into an imported decision on the wire."""

from __future__ import annotations

from hashlib import blake2b

import msgspec
from pointsman.v1 import router_service_pb2 as pb

from policy.domain import InvalidFieldError
from server.rows.row import Row
from server.services.outcomes import ERROR_VALUES
from server.services.times import duration, timestamp

_TEXTS = ("request_id", "session_id", "prompt", "model", "incumbent_model")
_TOKENS = ("input_tokens", "output_tokens", "cached_input_tokens")


def imported_decision(number: int, row: Row, router_id: str) -> pb.ImportedDecision:
    """The row on the wire. Raises InvalidFieldError for one that says what cannot be imported.

    A row without a request_id gets one made of its number and its content, so that importing the same file
    again, or the file when it has grown, takes no row twice. A decision that was not drawn, since it was sticky or
    only exploited, is one without a propensity: it teaches, and enters no evaluation.
    """
    if row.router not in {None, router_id}:
        raise InvalidFieldError("router", f"is {row.router!r}: this is an import into {router_id!r} (--router)")
    if row.served_model not in {None, "", row.model}:
        raise InvalidFieldError(
            "served_model", f"must be the model {row.model!r}: no other's answer can be imported"
        )
    message = pb.ImportedDecision(
        embedding=row.embedding or (),
        features=row.features or (),
        numeric_features=row.given_numeric,
        categorical_features=row.given_categorical,
    )
    for name in _TEXTS:
        setattr(message, name, str(getattr(row, name) or ""))
    message.request_id = message.request_id or _derived_id(number, row)
    drawn = not (row.sticky or row.exploit_only)
    if drawn and row.propensity is not None:
        message.propensity = row.propensity
    for each in row.given_candidates:
        propensity = each.propensity if drawn else None
        message.candidates.append(pb.ImportedCandidate(model=each.model, propensity=propensity))
    _add_outcome(message, row)
    time_us = row.time_us
    if time_us is not None:
        message.event_time.CopyFrom(timestamp(time_us))
    return message


def _add_outcome(message: pb.ImportedDecision, row: Row) -> None:
    if row.reward is not None:
        message.reward = row.reward
    for name in _TOKENS:
        tokens = getattr(row, name)
        if tokens is not None:
            setattr(message.usage, name, int(tokens))
    if row.cost_usd is not None:
        message.usage.cost_usd = row.cost_usd
    if row.latency_seconds is not None:
        message.latency.CopyFrom(duration(row.latency_seconds))
    if row.error is not None:
        message.error = ERROR_VALUES[row.error]


def _derived_id(number: int, row: Row) -> str:
    content = b"%d " % number + msgspec.json.encode(row)
    return f"import-{blake2b(content, digest_size=16).hexdigest()}"
