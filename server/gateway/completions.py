"""POST /v1/chat/completions, /v1/responses and /v1/messages: a request, from its body to its answer's end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Mapping, MutableMapping
from typing import Any

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from server.gateway.conversation import Api, Conversation, read_conversation
from server.gateway.door import Door
from server.gateway.execution import Execution
from server.gateway.feedback import LastServed
from server.gateway.plan import Plan, Served
from server.gateway.planning import Planner, mark_response_id
from server.gateway.preferences import NAMES, read_preferences
from server.gateway.problems import ApiError
from server.gateway.signals import Signals

logger = logging.getLogger(__name__)

_EVENT_STREAM = "text/event-stream; charset=utf-8"
_SEND_SECONDS = 60.0


class Completions:
    """An ASGI application for one of the three."""

    def __init__(
        self,
        api: Api,
        door: Door,
        planner: Planner,
        execution: Execution,
        signals: Signals,
        served: LastServed,
    ) -> None:
        self._api = api
        self._door = door
        self._planner = planner
        self._execution = execution
        self._signals = signals
        self._served = served

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        sending = _Sending(send)
        try:
            self._door.admit(request)
            with self._door.place(), self._door.holding() as held:
                body = await self._door.read(request, held)
                await _while_connected(receive, self._answer(request, body, sending))
        except ClientDisconnect:
            return
        except ApiError as error:
            await self._refuse(error, scope, receive, sending)
        except Exception as error:
            # The text of an exception might quote the request.
            logger.error("a request failed: %s", type(error).__name__, exc_info=logger.isEnabledFor(logging.DEBUG))
            await self._refuse(ApiError(500, "internal error"), scope, receive, sending)

    async def _answer(self, request: Request, body: Any, sending: _Sending) -> None:
        talk = read_conversation(self._api, body)
        wishes = read_preferences(request.headers, talk.metadata)
        plan, talk = await self._planner.plan(talk, wishes)
        sending.headers = _headers(plan)
        session = wishes.session_id or talk.user
        self._signals.on_turn(plan, talk, session)
        served = await self._execution.serve(plan, talk)
        self._signals.on_served(plan, talk, session, served.model)
        self._served.keep(plan.decision_id, served.model)
        sending.headers = {**_headers(plan), **_served_headers(served)}
        if talk.stream:
            await self._stream(plan, talk, served, sending)
            return
        self._execution.report_answer(plan, served, talk)
        sending.deadline = plan.deadline
        await sending.whole(_shown(served.body, plan, served, talk))

    async def _stream(self, plan: Plan, talk: Conversation, served: Served, sending: _Sending) -> None:
        sending.deadline = plan.deadline
        parts = self._execution.parts(plan, talk, served)
        first = True
        async with contextlib.aclosing(parts):
            async for part in parts:
                if not sending.begun:
                    await sending.begin()
                if self._api == "chat":
                    shown = _chunk(part, plan, served, talk, first=first)
                    if shown is not None:
                        await sending.event(shown)
                        first = False
                else:
                    await sending.event(_event(part, plan, served, talk), name=str(part.get("type", "message")))
        await sending.end(done=self._api == "chat")

    async def _refuse(self, error: ApiError, scope: Scope, receive: Receive, sending: _Sending) -> None:
        if not sending.begun:
            body = error.message_body if self._api == "messages" else error.body
            response = JSONResponse(body, error.status, {**sending.headers, **error.headers})
            await response(scope, receive, sending.send)
            return
        with contextlib.suppress(ApiError):
            sending.deadline = time.monotonic() + _SEND_SECONDS
            if self._api == "chat":
                await sending.event(error.body)
            elif self._api == "messages":
                await sending.event(error.message_body, name="error")
            else:
                await sending.event({**error.event, "sequence_number": sending.count}, name="error")
            await sending.end(done=False)


class _Sending:
    """The way to the client: a slow reader is waited for until the deadline, and nothing is heaped up for it."""

    def __init__(self, send: Send) -> None:
        self.send = send
        self.headers: dict[str, str] = {}
        self.begun = False
        self.count = 0
        self.deadline = 0.0

    async def whole(self, body: Mapping[str, Any]) -> None:
        """A whole answer."""
        content = msgspec.json.encode(body)
        await self._start("application/json", {"content-length": str(len(content))})
        await self._put({"type": "http.response.body", "body": content})

    async def begin(self) -> None:
        """The beginning of a stream."""
        await self._start(_EVENT_STREAM, {"cache-control": "no-cache", "x-accel-buffering": "no"})

    async def event(self, value: Mapping[str, Any], name: str = "") -> None:
        """One event of a stream."""
        head = f"event: {name}\n".encode() if name else b""
        self.count += 1
        data = head + b"data: " + msgspec.json.encode(value) + b"\n\n"
        await self._put({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self, *, done: bool) -> None:
        """The end of a stream: with `done`, as a chat says that it is whole."""
        await self._put({"type": "http.response.body", "body": b"data: [DONE]\n\n" if done else b""})

    async def _start(self, content_type: str, headers: Mapping[str, str]) -> None:
        given = {"content-type": content_type, **headers, **self.headers}
        raw = [(name.encode("latin-1"), _latin(value)) for name, value in given.items()]
        self.begun = True
        await self._put({"type": "http.response.start", "status": 200, "headers": raw})

    async def _put(self, message: MutableMapping[str, Any]) -> None:
        try:
            async with asyncio.timeout(max(self.deadline - time.monotonic(), 0.001)):
                await self.send(message)
        except TimeoutError as error:
            raise ApiError(504, "the deadline has passed", code="timeout") from error


async def _while_connected(receive: Receive, work: Any) -> None:
    """Cancels the work when the client hangs up; then raises ClientDisconnect."""

    async def gone() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    tasks = [asyncio.ensure_future(work), asyncio.ensure_future(gone())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not tasks[0].done():
            raise ClientDisconnect
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    if isinstance(results[0], Exception):
        raise results[0]


def _headers(plan: Plan) -> dict[str, str]:
    if plan.away:
        return {"x-pointsman-away": plan.away}
    return {
        "x-pointsman-decision-id": plan.decision_id,
        "x-pointsman-router": plan.router,
        "x-pointsman-chosen-model": plan.chosen,
        "x-pointsman-propensity": repr(plan.probability),
        "x-pointsman-policy": plan.policy,
    }


def _served_headers(served: Served) -> dict[str, str]:
    return {"x-pointsman-model": served.model, "x-pointsman-attempts": str(served.attempts)}


def _metadata(plan: Plan, served: Served, talk: Conversation) -> dict[str, Any]:
    """The client's own, and by which decision it was served."""
    ours = {
        "pointsman_decision_id": plan.decision_id,
        "pointsman_model": served.model,
        "pointsman_propensity": repr(plan.probability) if plan.decision_id else "",
        "pointsman_away": plan.away,
    }
    theirs = {name: value for name, value in talk.metadata.items() if name not in NAMES}
    return {**theirs, **{name: value for name, value in ours.items() if value}}


def _shown(body: dict[str, Any], plan: Plan, served: Served, talk: Conversation) -> dict[str, Any]:
    shown = {**body, "model": served.model, "metadata": _metadata(plan, served, talk)}
    if talk.api == "responses" and isinstance(body.get("id"), str):
        shown["id"] = mark_response_id(body["id"], served.model)
    return shown


def _chunk(
    part: dict[str, Any], plan: Plan, served: Served, talk: Conversation, *, first: bool
) -> dict[str, Any] | None:
    """A part of a chat as the client is to see it; None for one that it did not ask for."""
    if not part.get("choices") and "usage" in part and not talk.wants_usage:
        return None
    shown = {**part, "model": served.model}
    if not talk.wants_usage:
        shown.pop("usage", None)
    if first:
        shown["metadata"] = _metadata(plan, served, talk)
    return shown


def _event(part: dict[str, Any], plan: Plan, served: Served, talk: Conversation) -> dict[str, Any]:
    """An event of a response or of a message as the client is to see it."""
    for name in ("response", "message"):
        if isinstance(part.get(name), dict):
            return {**part, name: _shown(part[name], plan, served, talk)}
    return part


def _latin(value: str) -> bytes:
    """A header's value; names of models may have other letters."""
    return value.encode("latin-1", "backslashreplace")
