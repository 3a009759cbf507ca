"""Health by the gRPC protocol, all of it: the package's own service knows no List."""

from __future__ import annotations

from typing import Any

from grpc_health.v1 import health, health_pb2

from server.services.status import Context


class HealthService(health.aio.HealthServicer):
    """What is asked of one service, watched, or asked of all at once."""

    def __init__(self) -> None:
        super().__init__()
        self._services: set[str] = set()

    async def set(self, service: str, status: Any) -> None:
        """Says how the service is from here on; nothing counts any more once it shuts down."""
        self._services.add(service)
        await super().set(service, status)

    # The types of the package are older than List.
    async def List(self, request: Any, context: Context) -> Any:
        """How all services are."""
        asked = {each: health_pb2.HealthCheckRequest(service=each) for each in sorted(self._services)}
        found = {each: await self.Check(check, context) for each, check in asked.items()}
        return health_pb2.HealthListResponse(statuses=found)  # type: ignore[attr-defined]
