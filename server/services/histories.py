"""The history of a router on the wire."""

from __future__ import annotations

from collections.abc import Mapping

from pointsman.v1 import registry_service_pb2 as pb

from server.services.names import router_name
from server.services.times import duration, seconds, time_us_of, timestamp
from server.storage.history_store import MINUTE_US, Counts
from server.usecases.get_history import History


def asked_for(request: pb.GetHistoryRequest) -> tuple[int | None, int | None, int | None]:
    """When the request wants the history to begin and to end, and how long its buckets, in microseconds.

    What is not set is None. Raises InvalidFieldError.
    """
    start_us = time_us_of("start_time", request.start_time) if request.HasField("start_time") else None
    end_us = time_us_of("end_time", request.end_time) if request.HasField("end_time") else None
    bucket_us = round(seconds(request.bucket) * 1e6) if request.HasField("bucket") else None
    return start_us, end_us, bucket_us


def history_to_proto(router_id: str, history: History) -> pb.History:
    """The history as it is sent."""
    return pb.History(
        router=router_name(router_id),
        start_time=timestamp(history.start_minute * MINUTE_US),
        end_time=timestamp(history.end_minute * MINUTE_US),
        bucket=duration(history.bucket_minutes * 60.0),
        buckets=[_bucket(minute, models) for minute, models in history.buckets.items()],
        position=str(history.counted),
    )


def _bucket(minute: int, models: Mapping[str, Counts]) -> pb.HistoryBucket:
    return pb.HistoryBucket(
        start_time=timestamp(minute * MINUTE_US),
        models=[
            pb.ModelHistory(
                model=model,
                decision_count=each.decisions,
                exploration_count=each.explorations,
                reward_count=each.rewards,
                reward_sum=each.reward_sum,
                cost_usd=each.cost_usd,
                error_count=each.errors,
                closed_count=each.closed,
                missing_count=each.missing,
                late_count=each.late,
            )
            for model, each in models.items()
        ],
    )
