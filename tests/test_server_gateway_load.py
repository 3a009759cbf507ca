"""A gateway under load: many streams at once, slow readers, large bodies, and nothing left behind."""

from __future__ import annotations

import asyncio
import contextlib
import json
import tracemalloc
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from servers import Running, eventually
from standins import Gate, StandIn, running_gateway, running_standin

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*ReadOnly:UserWarning"),
    pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning"),
]

QUESTION: Any = [{"role": "user", "content": "What is the capital of France?"}]
STREAMS = 500


async def test_five_hundred_streams_at_once_are_all_answered(server: Running, tmp_path: Path) -> None:
    await server.create_models(small={}, large={})
    async with (
        running_standin() as provider,
        running_gateway(server, provider, tmp_path) as gate,
        openai.AsyncOpenAI(
            base_url=f"{gate.url}/v1",
            api_key="unused",
            max_retries=0,
            http_client=openai.DefaultAsyncHttpxClient(limits=httpx.Limits(max_connections=None), timeout=240),
        ) as client,
    ):

        async def ask() -> str:
            try:
                stream = await client.chat.completions.create(model="pointsman", messages=QUESTION, stream=True)
                return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
            except openai.APIError as error:
                return repr(error)

        answers = Counter(await asyncio.gather(*(ask() for _ in range(STREAMS))))
        assert answers == {"All is well.": STREAMS}
        assert gate.gateway._door.inside == 0


@asynccontextmanager
async def hanging_up(times: int) -> AsyncIterator[tuple[StandIn, list[int]]]:
    """A provider that closes so many connections once it has read a request, and answers after that."""
    met: list[int] = []

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(int(length.partition(b":")[2]))
            met.append(len(met))
            if len(met) > times:
                message = {"role": "assistant", "content": "At last."}
                choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
                usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
                body = {"id": "x", "object": "chat.completion", "created": 1, "model": "small"}
                content = json.dumps({**body, "choices": choices, "usage": usage}).encode()
                head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(content)}"
                writer.write(head.encode() + b"\r\n\r\n" + content)
                await writer.drain()
        writer.close()

    async with await asyncio.start_server(meet, "127.0.0.1", 0) as server:
        yield StandIn(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"), met


@pytest.mark.parametrize(("times", "answered"), [(2, True), (9, False)])
async def test_a_connection_that_was_closed_before_it_brought_an_answer_is_replaced(
    server: Running, tmp_path: Path, times: int, answered: bool
) -> None:
    await server.create_models(small={})
    async with (
        hanging_up(times) as (provider, met),
        running_gateway(server, provider, tmp_path) as gate,
        openai.AsyncOpenAI(base_url=f"{gate.url}/v1", api_key="unused", max_retries=0) as client,
    ):
        if answered:
            raw = await client.chat.completions.with_raw_response.create(model="pointsman", messages=QUESTION)
            assert raw.parse().choices[0].message.content == "At last."
            assert raw.headers["x-pointsman-attempts"] == "1"
            decision = await gate.decision(raw.headers["x-pointsman-decision-id"], reports=1)
            assert [each.report.error for each in decision.reports] == [0]
        else:
            with pytest.raises(openai.InternalServerError, match="UNAVAILABLE"):
                await client.chat.completions.create(model="pointsman", messages=QUESTION)
        assert len(met) == 3


def large(size: int) -> bytes:
    body = {"model": "pointsman", "messages": [{"role": "user", "content": ""}]}
    room = size - len(json.dumps(body))
    body["messages"] = [{"role": "user", "content": "x" * room}]
    return json.dumps(body).encode()


async def test_a_body_of_20_megabytes_is_taken_and_a_larger_one_is_not_held(
    server: Running, tmp_path: Path
) -> None:
    await server.create_models(small={})
    most = 20 << 20
    async with (
        running_standin() as provider,
        running_gateway(server, provider, tmp_path) as gate,
        httpx.AsyncClient(base_url=gate.url, timeout=120) as client,
    ):
        taken = await client.post("/v1/chat/completions", content=large(most))
        assert taken.status_code == 200, taken.text
        held = 0

        async def endless() -> AsyncIterator[bytes]:
            nonlocal held
            for _ in range(100):
                held = max(held, gate.gateway._door.bytes_held)
                yield b" " * (1 << 20)

        with contextlib.suppress(httpx.WriteError):  # The answer may come while the body is still on its way.
            refused = await client.post("/v1/chat/completions", content=endless())
            assert (refused.status_code, refused.json()["error"]["code"]) == (413, "request_too_large")
        assert held <= most + (1 << 20)
        await nobody_inside(gate)


async def nobody_inside(gate: Gate) -> None:
    async def empty() -> bool:
        return gate.gateway._door.inside == 0 and gate.gateway._door.bytes_held == 0

    await eventually(empty)


async def test_many_large_bodies_at_once_are_bounded_together(server: Running, tmp_path: Path) -> None:
    await server.create_models(small={})
    settings = {"bodies_bytes_max": 3 << 20}
    async with (
        running_standin() as provider,
        running_gateway(server, provider, tmp_path, settings=settings) as gate,
        httpx.AsyncClient(base_url=gate.url, timeout=120) as client,
    ):
        provider.modes.update(small="stall", large="stall")
        asked = [
            asyncio.ensure_future(client.post("/v1/chat/completions", content=large(1 << 20))) for _ in range(3)
        ]

        async def inside() -> bool:
            return len(provider.calls) == 3

        await eventually(inside)
        refused = await client.post("/v1/chat/completions", content=large(1 << 20))
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "busy")
        for each in asked:
            each.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
        await nobody_inside(gate)


async def test_a_slow_reader_is_waited_for_and_nothing_is_heaped_up_for_it(
    server: Running, tmp_path: Path
) -> None:
    """The answer has 64 MB; the client reads none of it, and the gateway holds back the provider."""
    await server.create_models(small={})
    async with (
        running_standin() as provider,
        running_gateway(server, provider, tmp_path) as gate,
        httpx.AsyncClient(base_url=gate.url, timeout=120) as client,
    ):
        provider.modes["small"] = "flood"
        body = {"model": "pointsman", "messages": QUESTION, "stream": True}
        tracemalloc.start()
        try:
            async with client.stream("POST", "/v1/chat/completions", json=body) as response:
                assert response.status_code == 200

                async def held_back() -> bool:
                    before = provider.flooded
                    await asyncio.sleep(0.3)
                    return before == provider.flooded

                await eventually(held_back)
                assert 0 < provider.flooded < 1000
                assert tracemalloc.get_traced_memory()[0] < 32 << 20
        finally:
            tracemalloc.stop()
        await nobody_inside(gate)


async def test_clients_that_hang_up_leave_no_task_behind(server: Running, tmp_path: Path) -> None:
    await server.create_models(small={}, large={})
    async with (
        running_standin() as provider,
        running_gateway(server, provider, tmp_path) as gate,
        httpx.AsyncClient(base_url=gate.url, timeout=120, limits=httpx.Limits(max_connections=None)) as client,
    ):
        provider.modes.update(small="stall_middle", large="stall_middle")
        before = len(asyncio.all_tasks())

        async def leave() -> None:
            body = {"model": "pointsman", "messages": QUESTION, "stream": True}
            async with client.stream("POST", "/v1/chat/completions", json=body) as response:
                async for line in response.aiter_lines():
                    if "is " in line:
                        return

        await asyncio.gather(*(leave() for _ in range(40)))
        await nobody_inside(gate)

        async def all_gone() -> bool:
            return provider.hung_up == 40 and len(asyncio.all_tasks()) <= before + 2

        await eventually(all_gone)
