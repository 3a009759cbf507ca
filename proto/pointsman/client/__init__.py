"""The Python client: which model to call, and what came of it, in a few words. See docs/python-client.md.

It takes grpcio and protobuf, and no provider's SDK.
"""

from pointsman.client.asynchronous import AsyncClient
from pointsman.client.blocking import Client
from pointsman.client.connection import Connection
from pointsman.client.decision import AsyncDecision, Decision
from pointsman.client.failures import ModelFailure, RouteError, model_failure
from pointsman.client.outbox import ReportCounts
from pointsman.client.usage import Usage, usage_from

__all__ = [
    "AsyncClient",
    "AsyncDecision",
    "Client",
    "Connection",
    "Decision",
    "ModelFailure",
    "ReportCounts",
    "RouteError",
    "Usage",
    "model_failure",
    "usage_from",
]
