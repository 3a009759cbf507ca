"""What both clients do alike: settings, the outbox, and what happens where Pointsman gives no decision."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from functools import partial
from typing import Unpack

import grpc

from pointsman.client.connection import Connection
from pointsman.client.failures import ModelFailure, RouteError, model_failure
from pointsman.client.messages import ReportOptions, RouteOptions, report_request, route_request
from pointsman.client.outbox import Outbox, ReportCounts
from pointsman.client.outcome import Classify
from pointsman.v1 import router_service_pb2 as pb
from pointsman.v1.router_service_pb2_grpc import RouterServiceStub

logger = logging.getLogger("pointsman.client")


class BaseClient:
    """Reports, which both clients send by the same thread, and the defaults."""

    def __init__(
        self,
        target: str | None = None,
        *,
        connection: Connection | None = None,
        router: str = "",
        default_model: str | Sequence[str] = (),
        timeout_seconds: float = 1.0,
        queue_max: int = 10_000,
        linger_seconds: float = 0.1,
        classify: Classify | None = None,
    ) -> None:
        """Reads the environment unless a `connection` is given; see `Connection.from_environment`.

        `router` decides where `route` names none. `default_model`, or several in the order to try them, stand in
        where there is no decision within `timeout_seconds`. At most `queue_max` reports wait to be sent, each
        about `linger_seconds` for others to go with it. `classify` says what an exception is; where it says
        None, `model_failure` does. Raises ValueError for a setting that will not do, and OSError for a file that
        cannot be read.
        """
        for name, value in (("timeout_seconds", timeout_seconds), ("queue_max", queue_max)):
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be above 0, not {value}")
        if target is not None and connection is not None:
            raise ValueError("target is part of the connection: give one of them")
        self.connection = connection or Connection.from_environment(target)
        self._router = router
        self._defaults = (default_model,) if isinstance(default_model, str) else tuple(default_model)
        self._timeout_seconds = timeout_seconds
        self._classify = model_failure if classify is None else partial(_first_of, classify)
        self._channel = self.connection.channel()
        self._stub = RouterServiceStub(self._channel)
        self._outbox = Outbox(self._send_batch, queue_max, linger_seconds)
        self._unreachable = False

    @property
    def counts(self) -> ReportCounts:
        """What became of the reports so far."""
        return self._outbox.counts

    def report(self, decision_id: str, **options: Unpack[ReportOptions]) -> None:
        """Queues what is known of a decision, now or days later; never waits, never raises.

        If a fallback served, say so: `served_model=decision.model`. What the server refuses is counted and logged.
        """
        try:
            report = report_request(decision_id, options)
        except (TypeError, ValueError) as error:
            self._outbox.refuse(str(error))
        else:
            self._outbox.put(report)

    def _send_batch(
        self, request: pb.BatchReportRewardsRequest, timeout_seconds: float
    ) -> pb.BatchReportRewardsResponse:
        return self._stub.BatchReportRewards(request, timeout=timeout_seconds, metadata=self.connection.metadata)

    def _request(self, prompt: str, options: RouteOptions) -> pb.RouteRequest:
        return route_request(prompt, options if options.get("router") else {**options, "router": self._router})

    def _decided(self, response: pb.RouteResponse) -> tuple[str, ...]:
        """The models to try."""
        if self._unreachable:
            self._unreachable = False
            logger.info("%s decides again", self.connection.target)
        return (response.model, *response.fallback_models)

    def _stand_in(self, error: grpc.RpcError, options: RouteOptions) -> tuple[tuple[str, ...], RouteError]:
        """The default models that the request allows, and why they are needed.

        Raises RouteError without any, or for a request that is at fault itself.
        """
        problem = RouteError.of(error)
        allowed, denied = options.get("allowed_models"), options.get("denied_models") or ()
        models = tuple(each for each in self._defaults if each not in denied and (not allowed or each in allowed))
        if not models or problem.is_the_callers:
            raise problem from error
        if not self._unreachable:
            self._unreachable = True
            logger.warning("%s gives no decision, %s stands in: %s", self.connection.target, models[0], problem)
        return models, problem


def _first_of(classify: Classify, error: BaseException) -> ModelFailure | None:
    return classify(error) or model_failure(error)
