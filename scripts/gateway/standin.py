"""A provider that says the same to everyone as fast as it can: `python -m scripts.gateway.standin`."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from starlette.types import Receive, Scope, Send

from scripts.gateway.providers import serving

WORDS = ("All ", "is ", "well, ", "and ", "has ", "been ", "since ", "this ", "morning", ".")
_HEAD = {"id": "chatcmpl-1", "created": 1, "model": "stand-in"}
_USAGE = {"prompt_tokens": 100, "completion_tokens": len(WORDS), "total_tokens": 100 + len(WORDS)}


def _event(choices: list[dict[str, Any]], **more: Any) -> bytes:
    chunk = {**_HEAD, "object": "chat.completion.chunk", "choices": choices, **more}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def _said(delta: dict[str, Any], reason: str | None = None) -> bytes:
    return _event([{"index": 0, "delta": delta, "finish_reason": reason}])


_MESSAGE = {"role": "assistant", "content": "".join(WORDS)}
_WHOLE = json.dumps(
    {
        **_HEAD,
        "object": "chat.completion",
        "choices": [{"index": 0, "message": _MESSAGE, "finish_reason": "stop"}],
        "usage": _USAGE,
    }
).encode()
_EVENTS = (
    _said({"role": "assistant", "content": ""}),
    *(_said({"content": word}) for word in WORDS),
    _said({}, "stop"),
)
_LAST = b"data: [DONE]\n\n"


async def answer(_scope: Scope, receive: Receive, send: Send) -> None:
    """The ASGI application: a part of a stream is a write of its own, as with providers."""
    body = b""
    more = True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    asked = json.loads(body)
    if not asked.get("stream"):
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(_WHOLE)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": _WHOLE})
        return
    headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for event in _EVENTS:
        await send({"type": "http.response.body", "body": event, "more_body": True})
    if (asked.get("stream_options") or {}).get("include_usage"):
        await send({"type": "http.response.body", "body": _event([], usage=_USAGE), "more_body": True})
    await send({"type": "http.response.body", "body": _LAST})


async def _main() -> None:
    async with serving(answer) as url:
        print(f"listens on {url}", file=sys.stderr, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_main())
