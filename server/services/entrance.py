"""Where every call comes in: what is served, behind the gatekeeper and the meter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import grpc

from server.services.call_meter import CallMeter
from server.services.gatekeeper import Gatekeeper, Handler


class Entrance(grpc.GenericRpcHandler):
    """Services are added to it as to a server, and it is added to the server.

    As interceptors, gatekeeper and meter would each be awaited anew for every call: a twentieth of what it takes.
    """

    def __init__(self, gatekeeper: Gatekeeper, meter: CallMeter) -> None:
        self._gatekeeper = gatekeeper
        self._meter = meter
        self._services: list[grpc.GenericRpcHandler] = []

    def add_generic_rpc_handlers(self, services: Sequence[grpc.GenericRpcHandler]) -> None:
        """Serves these, too."""
        self._services += services

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Generated code says here once more what it has said there."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Handler | None:
        """The handler of one call, in whose task gRPC asks for it; None if there is none: it is UNIMPLEMENTED."""
        return self._meter.metered(
            self._gatekeeper.admitted(handler_call_details, self._find), handler_call_details.method
        )

    def _find(self, details: grpc.HandlerCallDetails) -> Handler | None:
        found = (each.service(details) for each in self._services)
        return next((each for each in found if each is not None), None)
