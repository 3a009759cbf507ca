"""Imported decisions on the wire."""

from __future__ import annotations

from pointsman.v1 import router_service_pb2 as pb

from policy.domain import InvalidFieldError
from server.services.names import short_model
from server.services.outcomes import error_of, event_time_us_of, usage_of
from server.services.times import seconds
from server.usecases.import_decisions import ImportCommand


def import_command(router_id: str, row: pb.ImportedDecision) -> ImportCommand | InvalidFieldError:
    """The row as the use case takes it, or why that is not one."""
    try:
        return _command(router_id, row)
    except InvalidFieldError as refusal:
        return refusal


def _command(router_id: str, row: pb.ImportedDecision) -> ImportCommand:
    return ImportCommand(
        request_id=row.request_id,
        model=short_model(router_id, row.model),
        prompt=row.prompt,
        embedding=row.embedding,
        features=row.features,
        numeric_features=dict(row.numeric_features),
        categorical_features=dict(row.categorical_features),
        propensity=row.propensity if row.HasField("propensity") else None,
        candidates=[
            (short_model(router_id, each.model), each.propensity if each.HasField("propensity") else None)
            for each in row.candidates
        ],
        reward=row.reward if row.HasField("reward") else None,
        usage=usage_of(row.usage) if row.HasField("usage") else None,
        latency_seconds=seconds(row.latency) if row.HasField("latency") else None,
        error=error_of(row.error),
        session_id=row.session_id,
        incumbent_model=short_model(router_id, row.incumbent_model),
        event_time_us=event_time_us_of(row.event_time) if row.HasField("event_time") else None,
    )
