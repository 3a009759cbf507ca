"""Answers of the official SDKs, as they come from a local stand-in that speaks the providers' APIs."""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from callers import PATIENCE_SECONDS, in_thread, reports_of
from pointsman.client import AsyncClient, Client, Decision, model_failure
from pointsman.client.base import BaseClient
from pointsman.v1 import router_service_pb2 as pb
from servers import Running

# Before it is imported: it would fetch a list of prices.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
openai = pytest.importorskip("openai", reason="the extra sdks is not installed")
anthropic = pytest.importorskip("anthropic", reason="the extra sdks is not installed")

pytestmark = pytest.mark.filterwarnings("ignore")

GUIDE = Path(__file__).parents[1] / "docs" / "python-client.md"
MESSAGES: Any = [{"role": "user", "content": "What is the capital of France?"}]
OF_OPENAI = pb.Usage(input_tokens=30, output_tokens=12, cached_input_tokens=20)
OF_ANTHROPIC = pb.Usage(input_tokens=35, output_tokens=12, cached_input_tokens=20)
CHAT_USAGE = {
    "prompt_tokens": 30,
    "completion_tokens": 12,
    "total_tokens": 42,
    "prompt_tokens_details": {"cached_tokens": 20},
}
RESPONSE = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1,
    "status": "completed",
    "model": "gpt",
    "output": [],
    "parallel_tool_calls": True,
    "tool_choice": "auto",
    "tools": [],
    "usage": {
        "input_tokens": 30,
        "output_tokens": 12,
        "total_tokens": 42,
        "input_tokens_details": {"cached_tokens": 20},
        "output_tokens_details": {"reasoning_tokens": 0},
    },
}
MESSAGE_USAGE = {"input_tokens": 10, "cache_read_input_tokens": 20, "cache_creation_input_tokens": 5}


def chat(**choice: Any) -> dict[str, Any]:
    return {"id": "chat_1", "object": "chat.completion", "created": 1, "model": "gpt", "choices": [choice]}


def chat_parts() -> list[dict[str, Any]]:
    parts = [chat(index=0, delta={"role": "assistant", "content": text}) for text in ("Pa", "ris")]
    parts += [chat(index=0, delta={}, finish_reason="stop"), {**chat(), "choices": [], "usage": CHAT_USAGE}]
    return [{**each, "object": "chat.completion.chunk"} for each in parts]


def message(stop_reason: str | None, output_tokens: int) -> dict[str, Any]:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude",
        "content": [{"type": "text", "text": "Paris"}] if stop_reason == "end_turn" else [],
        "stop_reason": stop_reason,
        "stop_sequence": None,
        "usage": {**MESSAGE_USAGE, "output_tokens": output_tokens},
    }


def message_parts() -> list[dict[str, Any]]:
    text = {"type": "text_delta", "text": "Paris"}
    return [
        {"type": "message_start", "message": message(None, 1)},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": text},
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {"output_tokens": 12},
        },
        {"type": "message_stop"},
    ]


class Provider(BaseHTTPRequestHandler):
    """Answers as OpenAI and Anthropic do; what the model is called says how."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if asked["model"].endswith("busy"):
            self._send(429, json.dumps({"error": {"message": "slow down", "type": "rate_limit_error"}}))
            return
        parts: list[dict[str, Any]] | None = None
        if self.path.endswith("/responses"):
            answer: dict[str, Any] = RESPONSE
        elif self.path.endswith("/messages"):
            answer = message("refusal" if asked["model"].endswith("shy") else "end_turn", 12)
            parts = message_parts()
        else:
            said = {"role": "assistant", "content": "Paris"}
            answer = {**chat(index=0, finish_reason="stop", message=said), "usage": CHAT_USAGE}
            parts = chat_parts()
        if asked.get("stream") and parts:
            events = [f"event: {each.get('type', 'part')}\ndata: {json.dumps(each)}\n\n" for each in parts]
            last = "" if "type" in parts[0] else "data: [DONE]\n\n"
            self._send(200, "".join(events) + last, "text/event-stream")
        else:
            self._send(200, json.dumps(answer))

    def _send(self, status: int, text: str, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *arguments: Any) -> None:
        """Says nothing."""


@pytest.fixture
def provider() -> Iterator[str]:
    """The address of a stand-in."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Provider) as serving:
        thread = threading.Thread(target=serving.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{serving.server_port}"
        serving.shutdown()
        thread.join()


@pytest.fixture
async def client(server: Running) -> AsyncIterator[Client]:
    await server.create_models(gpt={}, busy={})
    await server.update_router(policy="fixed:gpt")
    with Client(server.target, linger_seconds=0.0, timeout_seconds=PATIENCE_SECONDS) as made:
        yield made


def of_openai(provider: str) -> Any:
    return openai.OpenAI(base_url=f"{provider}/v1", api_key="none", max_retries=0)


def of_anthropic(provider: str) -> Any:
    return anthropic.Anthropic(base_url=provider, api_key="none", max_retries=0)


async def test_openais_chat_completions_and_responses(server: Running, client: Client, provider: str) -> None:
    def ask() -> list[Decision]:
        with of_openai(provider) as provided:
            with client.route("question") as first:
                first.record(provided.chat.completions.create(model=first.model, messages=MESSAGES))
            with client.route("question") as second:
                second.record(provided.responses.create(model=second.model, input="What?"))
        return [first, second]

    for decision in await in_thread(ask):
        (report,) = await reports_of(server, client, decision)
        assert (report.usage, report.error) == (OF_OPENAI, 0)
        assert report.latency.ToNanoseconds() > 0


async def test_openais_stream(server: Running, client: Client, provider: str) -> None:
    def ask() -> Decision:
        with of_openai(provider) as provided, client.route("question") as decision:
            parts = provided.chat.completions.create(
                model=decision.model, messages=MESSAGES, stream=True, stream_options={"include_usage": True}
            )
            text = "".join(part.choices[0].delta.content or "" for part in decision.stream(parts) if part.choices)
            assert text == "Paris"
        return decision

    (report,) = await reports_of(server, client, await in_thread(ask))
    assert (report.usage, report.HasField("latency")) == (OF_OPENAI, True)


async def test_anthropics_messages_whole_and_in_a_stream(server: Running, client: Client, provider: str) -> None:
    def ask() -> list[Decision]:
        with of_anthropic(provider) as provided:
            asked: Any = {"model": "claude", "max_tokens": 100, "messages": MESSAGES}
            with client.route("question") as first:
                first.record(provided.messages.create(**asked))
            with client.route("question") as second:
                for _ in second.stream(provided.messages.create(**asked, stream=True)):
                    pass
            with client.route("question") as third, provided.messages.stream(**asked) as parts:
                for _ in third.stream(parts):
                    pass
        return [first, second, third]

    for decision in await in_thread(ask):
        (report,) = await reports_of(server, client, decision)
        assert (report.usage, report.error) == (OF_ANTHROPIC, 0)


async def test_a_refusal_is_reported_with_what_it_cost(server: Running, client: Client, provider: str) -> None:
    def ask() -> Decision:
        with of_anthropic(provider) as provided, client.route("question") as decision:
            decision.record(provided.messages.create(model="shy", max_tokens=100, messages=MESSAGES))
        return decision

    (report,) = await reports_of(server, client, await in_thread(ask))
    assert (report.error, report.usage) == (pb.MODEL_ERROR_REFUSED, OF_ANTHROPIC)


async def test_a_provider_that_is_busy_is_left_for_the_fallback(
    server: Running, client: Client, provider: str
) -> None:
    await server.update_router(policy="fixed:busy")

    def ask() -> Decision:
        with of_openai(provider) as provided:
            decision = client.route("question")
            decision.call(lambda model: provided.chat.completions.create(model=model, messages=MESSAGES))
        return decision

    failed, served = await reports_of(server, client, await in_thread(ask))
    assert (failed.error, failed.served_model) == (pb.MODEL_ERROR_RATE_LIMITED, "")
    assert (served.usage, served.served_model) == (OF_OPENAI, "gpt")


async def test_the_asynchronous_sdks(server: Running, client: Client, provider: str) -> None:
    asynchronous: Any = openai.AsyncOpenAI(base_url=f"{provider}/v1", api_key="none", max_retries=0)
    async with AsyncClient(server.target, timeout_seconds=PATIENCE_SECONDS) as aclient, asynchronous as provided:
        async with aclient.route("question") as first:
            first.record(await provided.chat.completions.create(model=first.model, messages=MESSAGES))
        async with aclient.route("question") as second:
            parts = await provided.chat.completions.create(
                model=second.model, messages=MESSAGES, stream=True, stream_options={"include_usage": True}
            )
            assert [part async for part in second.stream(parts)]
        for decision in (first, second):
            (report,) = await reports_of(server, aclient, decision)
            assert report.usage == OF_OPENAI


async def test_litellm(server: Running, client: Client, provider: str) -> None:
    litellm = pytest.importorskip("litellm", reason="the extra sdks is not installed")

    def complete(decision: Decision, model: str, base: str, **more: Any) -> Any:
        return litellm.completion(
            model=model, messages=MESSAGES, api_base=base, api_key="none", num_retries=0, **more
        )

    def ask() -> list[Decision]:
        with client.route("question") as first:
            first.record(complete(first, "openai/gpt", f"{provider}/v1"))
        with client.route("question") as second:
            parts = complete(
                second, "openai/gpt", f"{provider}/v1", stream=True, stream_options={"include_usage": True}
            )
            for _ in second.stream(parts):
                pass
        with client.route("question") as third:
            third.record(complete(third, "anthropic/claude-3-5-haiku-latest", provider))
        return [first, second, third]

    usages = [(await reports_of(server, client, each))[0].usage for each in await in_thread(ask)]
    assert usages == [OF_OPENAI, OF_OPENAI, OF_ANTHROPIC]
    with pytest.raises(litellm.RateLimitError) as busy:
        await in_thread(
            litellm.completion,
            model="openai/busy",
            messages=MESSAGES,
            api_base=f"{provider}/v1",
            api_key="none",
            num_retries=0,
        )
    assert model_failure(busy.value) == "RATE_LIMITED"


async def test_the_examples_of_the_guide_run(
    server: Running, provider: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    await server.create_models(**{"gpt-4.1-mini": {}, "gpt-4.1": {}})
    defaults = BaseClient.__init__.__kwdefaults__
    monkeypatch.setitem(defaults, "timeout_seconds", PATIENCE_SECONDS)
    for name, value in (
        ("POINTSMAN_TARGET", server.target),
        ("OPENAI_BASE_URL", f"{provider}/v1"),
        ("OPENAI_API_KEY", "none"),
        ("ANTHROPIC_BASE_URL", provider),
        ("ANTHROPIC_API_KEY", "none"),
    ):
        monkeypatch.setenv(name, value)
    examples = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    for example in examples:
        await in_thread(exec, example, names)
    said = capsys.readouterr().out.splitlines()
    assert [line.removeprefix("gpt-4.1").removeprefix("-mini") for line in said] == [
        "Paris",
        " answers: Paris",
        "Paris",
    ]
    logged = await reports_of(server, names["client"], names["decision"])
    assert [each.reward for each in logged if each.HasField("reward")] == [0.9]
    assert [dict(each.signals) for each in logged if each.signals] == [{"thumb": 1.0}]
    await in_thread(names["client"].close)
    names["provider"].close()


def test_what_the_sdks_raise_without_a_provider_is_a_model_that_is_away() -> None:
    for away, call in (
        (of_openai("http://127.0.0.1:1"), lambda provided: provided.responses.create(model="gpt", input="What?")),
        (
            of_anthropic("http://127.0.0.1:1"),
            lambda provided: provided.messages.create(model="claude", max_tokens=9, messages=MESSAGES),
        ),
    ):
        with away as provided, pytest.raises(Exception, match="onnection") as caught:
            call(provided)
        assert model_failure(caught.value) == "UNAVAILABLE"
