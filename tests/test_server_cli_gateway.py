"""`pointsman gateway` as a process: what it says when it cannot start, and that other SDKs are served."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
from servers import POINTSMAN, Running
from standins import StandIn, running_standin

_NODE_SCRIPT = """
import OpenAI from "openai";
const client = new OpenAI({ baseURL: process.env.BASE_URL, apiKey: "unused", maxRetries: 0 });
const messages = [{ role: "user", content: "Is all well?" }];
const whole = await client.chat.completions.create({ model: "pointsman", messages });
const stream = await client.chat.completions.create({ model: "pointsman", messages, stream: true });
let text = "";
for await (const chunk of stream) text += chunk.choices[0]?.delta?.content ?? "";
const response = await client.responses.create({ model: "pointsman", input: "Is all well?" });
console.log(JSON.stringify([whole.choices[0].message.content, text, response.output_text]));
"""


def gateway_file(folder: Path, provider: StandIn | None = None, **given: Any) -> Path:
    """A gateway's file with one model, of the stand-in."""
    file = folder / "gateway.yaml"
    url = provider.url if provider else "http://127.0.0.1:1"
    model = {"litellm_model": "openai/small", "api_base": f"{url}/v1", "api_key_env": "SMALL_KEY"}
    file.write_text(
        json.dumps({"default_model": "small", "route_seconds": 5, "models": {"small": model}, **given})
    )
    return file


@contextmanager
def gateway_process(*arguments: str, **environment: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """`pointsman gateway` on a free port, and that port; killed at the end if it still runs."""
    process = subprocess.Popen(
        [str(POINTSMAN), "gateway", "--port", "0", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, "SMALL_KEY": "sk-of-the-provider", **environment},
    )
    assert process.stderr is not None
    try:
        said = b""
        for line in process.stderr:
            said += line
            found = re.search(rb"listens on [^ ]*:(\d+)\s*$", line)
            if found:
                yield process, int(found.group(1))
                return
        raise AssertionError(f"the gateway did not start: {said.decode()}")
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stderr.close()


def refused(*arguments: str, **environment: str) -> str:
    """What the command says when it does not start."""
    done = subprocess.run(
        [str(POINTSMAN), "gateway", "--port", "0", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.strip().splitlines()
    return line


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("models: {a: {api_bass: x}}", "models.a.api_bass: there is no such field"),
        ("models: {a: {api_key_env: NOT_THERE}}", "models.a.api_key_env: the variable NOT_THERE is not set"),
        ("routers: {a: {checks: {pattern: '('}}}", "routers.a.checks.pattern: is no regular expression"),
        ("routers: {a: {judge: {model: x, share: 1, cost_usd_per_day_max: 1}}}", "judge_books_file: is needed"),
        ("routers: {a: {judge: {model: x, share: 2}}}", "routers.a.judge.share: Input should be less than"),
        ("routers: {a: {checks: {json_schema: {type: 7}}}}", "routers.a.checks.json_schema: is no JSON Schema"),
        ("[1", "is no YAML"),
    ],
)
def test_a_file_that_is_wrong_is_refused_in_one_line_that_says_where(
    tmp_path: Path, content: str, said: str
) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text(content)
    assert said in refused("--config", str(file))


def test_other_machines_are_not_served_without_a_key() -> None:
    assert "POINTSMAN_GATEWAY_API_KEY" in refused("--host", "0.0.0.0")


def test_a_key_is_not_sent_where_others_could_read_it() -> None:
    said = refused("--target", "10.0.0.1:50051", POINTSMAN_API_KEY="sk-of-pointsman")
    assert "POINTSMAN_TLS" in said
    assert "sk-of-pointsman" not in said


def test_without_its_packages_it_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['litellm'] = None; sys.argv = ['pointsman', 'gateway', '--port', '0']\n"
        "from server.cli.main import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "pip install 'pointsman[gateway]'" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_the_other_commands_load_none_of_its_packages() -> None:
    code = "import sys, server.cli.main; print({'litellm', 'starlette'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


async def test_a_process_serves_and_sends_its_reports_before_it_ends(server: Running, tmp_path: Path) -> None:
    await server.create_models(small={})
    async with running_standin() as provider:
        file = gateway_file(tmp_path, provider)
        with gateway_process("--config", str(file), "--target", server.target) as (process, port):
            async with openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="unused") as client:
                answer = await client.chat.completions.create(
                    model="pointsman", messages=[{"role": "user", "content": "Is all well?"}]
                )
            process.send_signal(signal.SIGTERM)
            # Not in this loop, in which the server runs that the reports go to.
            assert await asyncio.to_thread(process.wait, 60) == 0
            assert process.stderr is not None
            assert b"sk-of-the-provider" not in process.stderr.read()
    settled = await server.settled()
    assert answer.choices[0].message.content == "All is well."
    assert settled.statistics.decision_count == 1
    assert provider.keys == ["Bearer sk-of-the-provider"]


async def test_the_node_sdk_is_served(server: Running, tmp_path: Path) -> None:
    """Its package is looked for in POINTSMAN_TEST_NODE_MODULES, so that no test installs anything."""
    node, modules = shutil.which("node"), os.environ.get("POINTSMAN_TEST_NODE_MODULES", "")
    if node is None or not (Path(modules) / "openai").is_dir():
        pytest.skip("needs node, and its openai package in the folder that POINTSMAN_TEST_NODE_MODULES names")
    await server.create_models(small={})
    (tmp_path / "node_modules").symlink_to(modules)
    (tmp_path / "run.mjs").write_text(_NODE_SCRIPT)
    async with running_standin() as provider:
        file = gateway_file(tmp_path, provider)
        with gateway_process("--config", str(file), "--target", server.target) as (_process, port):
            ran = await asyncio.create_subprocess_exec(
                node,
                "run.mjs",
                cwd=tmp_path,
                env={**os.environ, "BASE_URL": f"http://127.0.0.1:{port}/v1"},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            out, err = await ran.communicate()
    assert ran.returncode == 0, err.decode()
    assert json.loads(out) == ["All is well."] * 3
