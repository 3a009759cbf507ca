"""Stand-ins for the providers: they speak OpenAI's HTTP API on loopback and answer from a replay file."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from server.replay.file import ReplayFile

JUDGE = "the-judge"
JUDGE_USD_PER_MILLION = {"input_usd_per_million_tokens": 0.1, "output_usd_per_million_tokens": 0.4}
_MARK = re.compile(r"answer (\d+) of (\S+)")
_CHARACTERS_PER_TOKEN = 4


class Providers:
    """All models of the file, and a judge. The judge says the true quality of the answer that it is shown and a
    normal noise, cut to [0, 1]: it knows the answer by its text.
    """

    def __init__(self, file: ReplayFile, judge_noise: float, seed: int) -> None:
        self._file = file
        self._rows: Mapping[str, int] = {row.prompt: index for index, row in enumerate(file.rows)}
        self._noise = judge_noise
        self._random = np.random.default_rng(seed)

    def app(self) -> Starlette:
        """The ASGI application."""
        return Starlette(routes=[Route("/v1/chat/completions", self._answer, methods=["POST"])])

    async def _answer(self, request: Request) -> Response:
        body = await request.json()
        model, asked = body["model"], body["messages"][-1]["content"]
        if model == JUDGE:
            given = sum(len(each["content"]) for each in body["messages"]) // _CHARACTERS_PER_TOKEN
            return JSONResponse(
                _completion(model, self._verdict(asked), {"prompt_tokens": given, "completion_tokens": 8})
            )
        row = self._rows[asked]
        outcome = self._file.rows[row].outcomes[model]
        usage = {
            "prompt_tokens": outcome.input_tokens or 1,
            "completion_tokens": outcome.output_tokens or 1,
            "cost": outcome.cost_usd,
        }
        return JSONResponse(_completion(model, f"answer {row} of {model}", usage))

    def _verdict(self, shown: str) -> str:
        row, model = _MARK.findall(shown)[-1]
        quality = self._file.rows[int(row)].outcomes[model].quality
        return json.dumps({"score": float(np.clip(quality + self._random.normal(0.0, self._noise), 0.0, 1.0))})


def _completion(model: str, text: str, usage: dict[str, Any]) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    total = usage["prompt_tokens"] + usage["completion_tokens"]
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {**usage, "total_tokens": total},
    }


@asynccontextmanager
async def serving(app: ASGIApp) -> AsyncIterator[str]:
    """The application on a free port of loopback; its address."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        # As providers have it: an answer does not wait for the word that its headers are there.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_config=None, timeout_graceful_shutdown=1))
        task = asyncio.create_task(server.serve(sockets=[listening]))
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            await task
