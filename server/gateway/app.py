"""Wires a gateway and runs it: the one place that knows all its parts."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from pointsman.client import Connection
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from server.gateway.completions import Completions
from server.gateway.conversation import read_conversation
from server.gateway.decisions import Pointsman, PointsmanAwayError
from server.gateway.door import Door
from server.gateway.execution import Execution
from server.gateway.feedback import Feedback, LastServed
from server.gateway.judge import Judge
from server.gateway.outbox import Outbox
from server.gateway.planning import ROUTED, Planner
from server.gateway.problems import ApiError
from server.gateway.providers import Providers, read_targets
from server.gateway.settings import GatewayConfig, GatewaySettings
from server.gateway.signals import Signals
from server.gateway.traces import KeepTrace

logger = logging.getLogger(__name__)

_BACKLOG = 2048
# Longer than clients keep an idle connection (httpx: 5 seconds), so that none is closed as it is used again.
_IDLE_SECONDS = 75


class Gateway:
    """One process. Raises SettingError for a setting that is not as it should be."""

    def __init__(self, settings: GatewaySettings, config: GatewayConfig, connection: Connection) -> None:
        self._settings = settings
        self._config = config
        self._door = Door(settings)
        self._providers = Providers(read_targets(config.models))
        self._pointsman = Pointsman(connection, config.route_seconds)
        self.outbox = Outbox(self._pointsman, settings.reports_max)
        served = LastServed()
        signals = Signals(config, self.outbox.put)
        planner = Planner(config, self._pointsman, self.outbox.put)
        self.judge = Judge(config, self._providers, self.outbox.put)
        execution = Execution(config, self._providers, signals, self.judge, self.outbox.put)
        self._feedback = Feedback(self._pointsman, served, config.comments_file)
        parts = (self._door, planner, execution, signals, served)
        app = Starlette(
            routes=[
                Route("/v1/chat/completions", Completions("chat", *parts), methods=["POST"]),
                Route("/v1/responses", Completions("responses", *parts), methods=["POST"]),
                Route("/v1/messages", Completions("messages", *parts), methods=["POST"]),
                Route("/v1/messages/count_tokens", self._count_tokens, methods=["POST"]),
                Route("/v1/models", self._list_models),
                Route("/v1/models/{model:path}", self._get_model),
                Route("/v1/feedback", self._take_feedback, methods=["POST"]),
                Route("/v1/judges", self._show_judges),
                Route("/health", self._health),
            ],
            middleware=[Middleware(KeepTrace)],
            exception_handlers={
                ApiError: _refused,
                404: _no_such_path,
                405: _no_such_method,
                500: _internal,
            },
        )

        self._server = _Server(
            uvicorn.Config(
                app,
                lifespan="off",
                access_log=False,
                log_config=None,
                server_header=False,
                timeout_keep_alive=_IDLE_SECONDS,
                timeout_graceful_shutdown=max(1, int(settings.grace_seconds)),
            )
        )

    async def run(self, listening: socket.socket) -> None:
        """Serves until `stop`. Answers under way have their grace, then judges theirs, then reports."""
        self.outbox.start()
        self.judge.start()
        try:
            await self._server.serve(sockets=[listening])
        finally:
            await self.judge.stop(self._settings.grace_seconds)
            await self.outbox.stop(self._settings.grace_seconds)
            await self._pointsman.close()

    def stop(self) -> None:
        """Ends `run`."""
        self._server.should_exit = True

    async def _health(self, _request: Request) -> Response:
        return JSONResponse({"status": "ok", "requests": self._door.inside})

    async def _show_judges(self, request: Request) -> Response:
        self._door.admit(request)
        return JSONResponse({"object": "pointsman.judges", "routers": self.judge.summary()})

    async def _list_models(self, request: Request) -> Response:
        self._door.admit(request)
        names = await self._names()
        pages = {"has_more": False, "first_id": names[0], "last_id": names[-1]}
        return JSONResponse({"object": "list", "data": [_model(name) for name in names], **pages})

    async def _get_model(self, request: Request) -> Response:
        self._door.admit(request)
        name = request.path_params["model"]
        if name not in await self._names():
            raise ApiError(404, f"there is no model {name!r}", code="model_not_found", param="model")
        return JSONResponse(_model(name))

    async def _names(self) -> list[str]:
        """What may be asked for. Without Pointsman, what the gateway's file names."""
        try:
            routers, models = await self._pointsman.names(f"routers/{self._config.default_router}")
        except PointsmanAwayError:
            routers, models = list(self._config.routers), list(self._config.models)
        return [ROUTED, *(f"{ROUTED}/{each}" for each in routers), *models]

    async def _count_tokens(self, request: Request) -> Response:
        """By length, as Pointsman is told of them: the model that will be asked is not known yet."""
        self._door.admit(request)
        with self._door.place(), self._door.holding() as held:
            body = await self._door.read(request, held)
            asked = {"max_tokens": 1, **body} if isinstance(body, dict) else body
            return JSONResponse({"input_tokens": read_conversation("messages", asked).input_tokens})

    async def _take_feedback(self, request: Request) -> Response:
        self._door.admit(request)
        with self._door.place(), self._door.holding() as held:
            body = await self._door.read(request, held)
            return JSONResponse(await self._feedback.take(body))


class _Server(uvicorn.Server):
    """Leaves signals alone: uvicorn would raise them again once it is done, before the reports are sent."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Captures none."""
        yield


def listen(settings: GatewaySettings) -> socket.socket:
    """The socket that is served on. Raises OSError."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listening = socket.create_server((settings.host.strip("[]"), settings.port), family=family, backlog=_BACKLOG)
    # Connections inherit it. asyncio leaves it out for a socket made without its protocol's number, and the body
    # of an answer then waits up to 40 ms for the client's word that the headers are there.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def _model(name: str) -> dict[str, Any]:
    """As OpenAI's SDKs read it, and as Anthropic's."""
    theirs = {"type": "model", "display_name": name, "created_at": "1970-01-01T00:00:00Z", "lifecycle": "active"}
    return {"id": name, "object": "model", "created": 0, "owned_by": "pointsman", **theirs}


async def _refused(request: Request, error: Any) -> Response:
    return JSONResponse(_body(error, request), error.status, error.headers)


async def _no_such_path(request: Request, _error: Exception) -> Response:
    problem = ApiError(404, f"there is no {request.method} {request.url.path}", code="unknown_url")
    return JSONResponse(_body(problem, request), problem.status)


async def _no_such_method(request: Request, _error: Exception) -> Response:
    problem = ApiError(405, f"{request.url.path} does not take {request.method}", code="method_not_allowed")
    return JSONResponse(_body(problem, request), problem.status)


def _body(problem: ApiError, request: Request) -> dict[str, Any]:
    """In the form of the SDK that asks."""
    return problem.message_body if request.url.path.startswith("/v1/messages") else problem.body


async def _internal(request: Request, error: Exception) -> Response:
    logger.error("a request failed: %s", type(error).__name__)
    return JSONResponse(_body(ApiError(500, "internal error"), request), 500)
