"""The blocks of the documents that call models by other people's SDKs, run against stand-ins and a real server."""

from __future__ import annotations

import ast
import asyncio
import json
import os
from pathlib import Path
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import httpx
import pytest
from blocks import ROOT, Block, blocks
from callers import PATIENCE_SECONDS
from pointsman.client.base import BaseClient
from servers import Running, eventually
from standins import running_gateway, running_standin

litellm = pytest.importorskip("litellm", reason="the extra gateway is not installed")
anthropic = pytest.importorskip("anthropic", reason="the extra sdks is not installed")

pytestmark = pytest.mark.filterwarnings("ignore")


def the_block(document: str, begins: str) -> Block:
    (found,) = [each for each in blocks(ROOT / document) if each.text.startswith(begins)]
    return found


async def run(text: str, names: dict[str, Any]) -> None:
    """Runs a program that may await at its top."""
    code = compile(text, "block", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    made = eval(code, names)
    if made is not None:
        await made


async def test_anthropics_sdk_is_pointed_at_the_gateway(server: Running, tmp_path: Path) -> None:
    await server.create_models(small={}, large={})
    block = the_block("docs/gateway.md", "client = anthropic.Anthropic(")
    async with running_standin() as provider, running_gateway(server, provider, tmp_path) as gate:
        program = block.text.replace("http://127.0.0.1:8080", gate.url)
        names: dict[str, Any] = {"anthropic": anthropic}
        await asyncio.to_thread(exec, program, names)
        assert len(provider.calls) == 1
        await asyncio.to_thread(names["client"].close)


async def test_the_gateway_refuses_a_preference_as_the_document_shows(server: Running, tmp_path: Path) -> None:
    await server.create_models(small={}, large={})
    shown = json.loads(the_block("docs/gateway.md", '{"error"').text)
    asked = {"model": "pointsman", "messages": [{"role": "user", "content": "Is all well?"}]}
    async with running_standin() as provider, running_gateway(server, provider, tmp_path) as gate:
        async with httpx.AsyncClient() as client:
            said = await client.post(
                f"{gate.url}/v1/chat/completions", json=asked, headers={"x-pointsman-max-latency": "soon"}
            )
        assert (said.status_code, said.json()) == (400, shown)
        assert provider.calls == []


async def test_litellms_router_asks_pointsman(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    await server.create_models(**{"gpt-4.1": {}, "claude-sonnet-4": {}})
    block = the_block("docs/litellm.md", "import litellm")
    monkeypatch.setitem(BaseClient.__init__.__kwdefaults__, "timeout_seconds", PATIENCE_SECONDS)
    async with running_standin() as provider:
        for name, value in (
            ("POINTSMAN_TARGET", server.target),
            ("OPENAI_API_BASE", f"{provider.url}/v1"),
            ("OPENAI_API_KEY", "none"),
            ("ANTHROPIC_API_BASE", provider.url),
            ("ANTHROPIC_API_KEY", "none"),
        ):
            monkeypatch.setenv(name, value)
        names: dict[str, Any] = {}
        await run(block.text, names)
        try:
            assert names["response"].choices[0].message.content == "All is well."

            async def decided() -> bool:
                return (await server.get_router()).statistics.decision_count == 1

            await eventually(decided)
        finally:
            strategy = names["strategy"]
            litellm.logging_callback_manager.remove_callback_from_list_by_object(litellm.callbacks, strategy)
            await strategy._client.close()
