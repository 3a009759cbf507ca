"""Every call that is served, a request of each, and who may make it, said apart from what the server goes by."""

from __future__ import annotations

from typing import Any

from grpc_health.v1 import health_pb2
from pointsman.v1 import policy_service_pb2, registry_service_pb2, router_service_pb2

from server.services.access import METHODS

REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
HEALTH = [
    f"/grpc.health.v1.Health/{each.name}"
    for each in health_pb2.DESCRIPTOR.services_by_name["Health"].methods_by_name.values()
]
SERVICES = [
    *router_service_pb2.DESCRIPTOR.services_by_name.values(),
    *registry_service_pb2.DESCRIPTOR.services_by_name.values(),
    *policy_service_pb2.DESCRIPTOR.services_by_name.values(),
]
REQUESTS: dict[str, Any] = {
    f"/{service.full_name}/{method.name}": method.input_type._concrete_class
    for service in SERVICES
    for method in service.methods
}
STREAMS = {
    f"/{service.full_name}/{method.name}"
    for service in (*SERVICES, health_pb2.DESCRIPTOR.services_by_name["Health"])
    for method in service.methods
    if method.client_streaming or method.server_streaming
}
OPEN_TO: dict[str, set[str]] = {
    "route": {"Route", "ActivateDecision", "GetDecision"},
    "report": {"ReportReward", "BatchReportRewards", "ActivateDecision"},
}
DATA_PLANE = {"Route", "ReportReward", "BatchReportRewards", "ActivateDecision"}
NO_ROUTER_IN_THE_REQUEST = {
    *("ReportReward", "BatchReportRewards", "ActivateDecision", "GetDecision", "ListRouters"),
}


def may(scope: str, method: str) -> bool:
    """Said here again, apart from the table that the server goes by."""
    name = method.rpartition("/")[2]
    return name not in DATA_PLANE if scope == "administer" else name in OPEN_TO[scope]


def message_naming(method: str, router: str) -> Any:
    """A request that names the router where the method takes one."""
    request = REQUESTS[method]()
    *parents, last = METHODS[method].router.split(".")
    message = request
    for each in parents:
        message = getattr(message, each)
    setattr(message, last, router if last == "router_id" else f"routers/{router}")
    return request


def naming(method: str, router: str) -> bytes:
    """The same as it is sent."""
    return bytes(message_naming(method, router).SerializeToString())
