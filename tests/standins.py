"""Stand-ins for providers: they speak their HTTP APIs on loopback, and fail or stall on demand."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from anyio.from_thread import start_blocking_portal
from pointsman.client import Connection
from pointsman.v1 import router_service_pb2 as pb
from servers import Running, eventually
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from scripts.gateway.providers import serving
from server.gateway.app import Gateway, listen
from server.gateway.settings import GatewaySettings, read_gateway_config

USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
WORDS = ["All ", "is ", "well."]
JSON = '{"city": "Paris"}'
# LiteLLM silences these when it is first imported, which pytest undoes for each test.
LITELLM_SILENCED = [
    pytest.mark.filterwarnings("ignore:.*ReadOnly:UserWarning"),
    pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@dataclass
class StandIn:
    """A provider. `modes` says how each model behaves: ok if it is not there, else a status, stall, stall_middle,
    break_begin, break_middle, overloaded_middle (Anthropic's alone), or flood: 64 MB in parts of 64 kB, which
    `flooded` counts. A tool is called where there are any, but not on its own result; JSON is answered where a
    chat asks for it.
    """

    url: str = ""
    modes: dict[str, str] = field(default_factory=dict)
    answers: dict[str, str] = field(default_factory=dict)
    calls: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    hung_up: int = 0
    flooded: int = 0
    fetched: int = 0

    def app(self) -> Starlette:
        routes = [
            Route("/v1/chat/completions", self._chat, methods=["POST"]),
            Route("/v1/responses", self._responses, methods=["POST"]),
            Route("/v1/messages", self._messages, methods=["POST"]),
            Route("/secret.png", self._secret),
        ]
        return Starlette(routes=routes)

    async def _secret(self, _request: Request) -> Response:
        self.fetched += 1
        return Response(b"a secret", media_type="image/png")

    async def _begin(self, request: Request) -> tuple[dict[str, Any], str, Response | None]:
        body = await request.json()
        self.calls.append(body)
        self.keys.append(request.headers.get("authorization", "") or request.headers.get("x-api-key", ""))
        mode = self.modes.get(body["model"], "ok")
        if mode.isdigit():
            error = {"message": f"the provider says {mode}", "type": "x", "param": None, "code": None}
            return body, mode, JSONResponse({"type": "error", "error": error}, int(mode))
        if mode == "stall":
            await self._until_gone(request)
        return body, mode, None

    async def _until_gone(self, request: Request) -> None:
        """Says nothing until the caller hangs up."""
        try:
            while not await request.is_disconnected():
                await asyncio.sleep(0.005)
        finally:
            self.hung_up += 1

    def _text(self, body: dict[str, Any]) -> str:
        if "response_format" in body:
            return JSON
        return self.answers.get(body["model"], "".join(WORDS))

    async def _chat(self, request: Request) -> Response:
        body, mode, refused = await self._begin(request)
        if refused is not None:
            return refused
        if body.get("stream"):
            return StreamingResponse(self._chunks(body, mode, request), media_type="text/event-stream")
        message: dict[str, Any] = {"role": "assistant", "content": self._text(body)}
        reason = "stop"
        if _calls_a_tool(body):
            message = {"role": "assistant", "content": None, "tool_calls": [_call(body)]}
            reason = "tool_calls"
        return JSONResponse(
            {
                **_head(body, "chat.completion"),
                "choices": [{"index": 0, "message": message, "finish_reason": reason}],
                "usage": USAGE,
            }
        )

    async def _chunks(self, body: dict[str, Any], mode: str, request: Request) -> AsyncIterator[str]:
        head = _head(body, "chat.completion.chunk")

        def chunk(delta: dict[str, Any], reason: str | None = None) -> str:
            choice = {"index": 0, "delta": delta, "finish_reason": reason}
            return f"data: {json.dumps({**head, 'choices': [choice]})}\n\n"

        yield chunk({"role": "assistant", "content": ""})
        if mode == "flood":
            for _ in range(1000):
                self.flooded += 1
                yield chunk({"content": "x" * 65_536})
        if mode == "break_begin":
            raise ConnectionResetError
        if _calls_a_tool(body):
            call = _call(body)
            first, rest = call["function"]["arguments"][:4], call["function"]["arguments"][4:]
            begun = {**call, "index": 0, "function": {**call["function"], "arguments": first}}
            yield chunk({"tool_calls": [begun]})
            if mode == "stall_middle":
                await self._until_gone(request)
                return
            yield chunk({"tool_calls": [{"index": 0, "function": {"arguments": rest}}]})
            yield chunk({}, "tool_calls")
        else:
            for number, word in enumerate(WORDS):
                if number == 2 and mode == "break_middle":
                    raise ConnectionResetError
                if number == 2 and mode == "stall_middle":
                    await self._until_gone(request)
                    return
                yield chunk({"content": word})
            yield chunk({}, "stop")
        if body.get("stream_options", {}).get("include_usage"):
            yield f"data: {json.dumps({**head, 'choices': [], 'usage': USAGE})}\n\n"
        yield "data: [DONE]\n\n"

    async def _responses(self, request: Request) -> Response:
        body, mode, refused = await self._begin(request)
        if refused is not None:
            return refused
        whole = _response(body, self._text(body))
        if not body.get("stream"):
            return JSONResponse(whole)
        return StreamingResponse(_events(whole, mode), media_type="text/event-stream")

    async def _messages(self, request: Request) -> Response:
        body, mode, refused = await self._begin(request)
        if refused is not None:
            return refused
        whole = _message(body, self._text(body))
        if not body.get("stream"):
            return JSONResponse(whole)
        events = _message_events(whole, mode, lambda: self._until_gone(request))
        return StreamingResponse(events, media_type="text/event-stream")


def _head(body: dict[str, Any], kind: str) -> dict[str, Any]:
    return {"id": "chatcmpl-1", "object": kind, "created": 1, "model": body["model"]}


def _calls_a_tool(body: dict[str, Any]) -> bool:
    if not body.get("tools"):
        return False
    last = body["messages"][-1]
    parts = last["content"] if isinstance(last["content"], list) else []
    return last["role"] != "tool" and all(each["type"] != "tool_result" for each in parts)


def _call(body: dict[str, Any]) -> dict[str, Any]:
    name = body["tools"][0]["function"]["name"]
    return {"id": "call_1", "type": "function", "function": {"name": name, "arguments": '{"city": "Paris"}'}}


def _response(body: dict[str, Any], text: str) -> dict[str, Any]:
    content = {"type": "output_text", "text": text, "annotations": []}
    message = {"id": "m1", "type": "message", "role": "assistant", "status": "completed", "content": [content]}
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "model": body["model"],
        "output": [message],
        "parallel_tool_calls": True,
        "previous_response_id": body.get("previous_response_id"),
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "usage": {
            "input_tokens": 11,
            "output_tokens": 7,
            "total_tokens": 18,
            "input_tokens_details": {"cached_tokens": 4},
            "output_tokens_details": {"reasoning_tokens": 0},
        },
    }


async def _events(whole: dict[str, Any], mode: str) -> AsyncIterator[str]:
    begun = {**whole, "status": "in_progress", "output": [], "usage": None}
    item = {"item_id": "m1", "output_index": 0, "content_index": 0}
    message = whole["output"][0]
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": begun},
        {"type": "response.output_item.added", "output_index": 0, "item": {**message, "content": []}},
    ]
    events += [{"type": "response.output_text.delta", **item, "delta": word, "logprobs": []} for word in WORDS]
    events += [{"type": "response.output_item.done", "output_index": 0, "item": message}]
    events += [{"type": "response.completed", "response": whole}]
    for number, event in enumerate(events):
        if number == 4 and mode == "break_middle":
            raise ConnectionResetError
        yield f"event: {event['type']}\ndata: {json.dumps({**event, 'sequence_number': number})}\n\n"


def _message(body: dict[str, Any], text: str) -> dict[str, Any]:
    block: dict[str, Any] = {"type": "text", "text": text}
    if _calls_a_tool(body):
        block = {"type": "tool_use", "id": "toolu_1", "name": body["tools"][0]["name"], "input": {"city": "Paris"}}
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": body["model"],
        "content": [block],
        "stop_reason": "tool_use" if _calls_a_tool(body) else "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 7, "cache_read_input_tokens": 4, "output_tokens": 7},
    }


async def _message_events(
    whole: dict[str, Any], mode: str, until_gone: Callable[[], Awaitable[None]]
) -> AsyncIterator[str]:
    (block,) = whole["content"]
    at = {"index": 0}
    if block["type"] == "text":
        begun = {**block, "text": ""}
        deltas = [{"type": "text_delta", "text": word} for word in WORDS]
    else:
        begun = {**block, "input": {}}
        written = json.dumps(block["input"])
        deltas = [{"type": "input_json_delta", "partial_json": each} for each in (written[:4], written[4:])]
    usage = whole["usage"]
    events: list[dict[str, Any]] = [
        {
            "type": "message_start",
            "message": {**whole, "content": [], "stop_reason": None, "usage": {**usage, "output_tokens": 1}},
        },
        {"type": "content_block_start", **at, "content_block": begun},
        {"type": "ping"},
        *({"type": "content_block_delta", **at, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", **at},
        {
            "type": "message_delta",
            "delta": {"stop_reason": whole["stop_reason"], "stop_sequence": None},
            "usage": {"output_tokens": usage["output_tokens"]},
        },
        {"type": "message_stop"},
    ]
    for number, event in enumerate(events):
        if number == 5 and mode == "overloaded_middle":
            error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
            yield f"event: error\ndata: {json.dumps(error)}\n\n"
            return
        if number == 5 and mode == "break_middle":
            raise ConnectionResetError
        if number == 5 and mode == "stall_middle":
            await until_gone()
            return
        yield f"event: {event['type']}\ndata: {json.dumps(event)}\n\n"


@asynccontextmanager
async def running_standin() -> AsyncIterator[StandIn]:
    """A stand-in that serves."""
    standin = StandIn()
    async with serving(standin.app()) as standin.url:
        yield standin


@contextmanager
def standin_aside() -> Iterator[StandIn]:
    """A stand-in that serves in a thread of its own, for those who have no event loop."""
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(running_standin()) as standin:
        yield standin


@dataclass
class Gate:
    """A gateway that serves, and what is behind it."""

    url: str
    gateway: Gateway
    provider: StandIn
    pointsman: Running

    async def decision(self, decision_id: str, reports: int = 0) -> Any:
        """The decision as Pointsman has it, once it has so many reports and nothing is on its way."""
        await self.gateway.outbox.idle()

        async def read() -> Any:
            found = await self.pointsman.router.GetDecision(pb.GetDecisionRequest(decision_id=decision_id))
            return found.decision if len(found.decision.reports) >= reports else None

        return await eventually(read)


@asynccontextmanager
async def running_gateway(
    pointsman: Running, provider: StandIn, folder: Path, *, target: str | None = None, **given: Any
) -> AsyncIterator[Gate]:
    """A gateway in this event loop; `settings` are the process's, the rest is in its file."""
    settings = GatewaySettings(host="127.0.0.1", port=0, **given.pop("settings", {}))
    models = {
        name: {
            "litellm_model": f"openai/{name}",
            "api_base": f"{provider.url}/v1",
            "api_key_file": str(folder / "key"),
        }
        for name in ("small", "large", "judge")
    }
    models["claude"] = {
        "litellm_model": "anthropic/claude",
        "api_base": provider.url,
        "api_key_file": str(folder / "key"),
    }
    (folder / "key").write_text("sk-provider-secret")
    file = folder / "gateway.yaml"
    content = {"default_model": "large", "route_seconds": 5.0, "models": models, **given}
    file.write_text(yaml.safe_dump(content))
    connection = Connection(target or pointsman.target)
    gateway = Gateway(settings, read_gateway_config(file), connection)
    with listen(settings) as listening:
        task = asyncio.create_task(gateway.run(listening))
        try:
            yield Gate(f"http://127.0.0.1:{listening.getsockname()[1]}", gateway, provider, pointsman)
        finally:
            gateway.stop()
            await task
