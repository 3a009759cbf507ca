"""Health by the gRPC protocol, all of it: the package's own service knows no List."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from grpc_health.v1 import health, health_pb2

from server.services.status import Context


class HealthService(health.aio.HealthServicer):
    """What is asked of one service, watched, or asked of all at once."""

    def __init__(self) -> None:
        super().__init__()
        self._told: dict[str, bool] = {}

    async def tell(self, healthy: Mapping[str, bool]) -> None:
        """Says how each service is from here on; nothing counts any more once it shuts down."""
        status = health_pb2.HealthCheckResponse
        for service, well in healthy.items():
            if self._told.get(service) is not well:
                self._told[service] = well
                await self.set(service, status.SERVING if well else status.NOT_SERVING)

    # The types of the package are older than List.
    async def List(self, request: Any, context: Context) -> Any:
        """How all services are."""
        asked = {each: health_pb2.HealthCheckRequest(service=each) for each in sorted(self._told)}
        found = {each: await self.Check(check, context) for each, check in asked.items()}
        return health_pb2.HealthListResponse(statuses=found)  # type: ignore[attr-defined]
