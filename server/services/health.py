"""Health by the gRPC protocol, all of it: the package's own service knows no List."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from grpc_health.v1 import health, health_pb2

from server.errors import LimitExceededError
from server.services.status import Context, abort

WATCHES_MAX = 1024
"""Streams of Watch at a time. They last as long as their callers like, and nobody needs a key for one."""
_RETRY_SECONDS = 10.0


class HealthService(health.aio.HealthServicer):
    """What is asked of one service, watched, or asked of all at once."""

    def __init__(self) -> None:
        super().__init__()
        self._told: dict[str, bool] = {}
        self._watches = 0

    async def tell(self, healthy: Mapping[str, bool]) -> None:
        """Says how each service is from here on; nothing counts any more once it shuts down."""
        status = health_pb2.HealthCheckResponse
        for service, well in healthy.items():
            if self._told.get(service) is not well:
                self._told[service] = well
                await self.set(service, status.SERVING if well else status.NOT_SERVING)

    async def Watch(self, request: Any, context: Context) -> None:
        """How one service is, and each time that this changes. One stream too many is RESOURCE_EXHAUSTED."""
        if self._watches >= WATCHES_MAX:
            too_many = f"health is watched by {WATCHES_MAX} callers, which is all that may: Check takes any number"
            await abort(context, LimitExceededError("WATCHES_LIMITED", too_many, {}, _RETRY_SECONDS))
        self._watches += 1
        try:
            await super().Watch(request, context)
        finally:
            self._watches -= 1

    # The types of the package are older than List.
    async def List(self, request: Any, context: Context) -> Any:
        """How all services are."""
        asked = {each: health_pb2.HealthCheckRequest(service=each) for each in sorted(self._told)}
        found = {each: await self.Check(check, context) for each, check in asked.items()}
        return health_pb2.HealthListResponse(statuses=found)  # type: ignore[attr-defined]
