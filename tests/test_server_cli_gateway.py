"""`pointsman gateway` as a process: what it says when it cannot start, and that other SDKs are served."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
from builds import built, run_checked
from servers import POINTSMAN, Running, killed_at_the_end
from standins import StandIn, running_standin


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
    with killed_at_the_end(process) as port:
        yield process, port


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
        ("request_seconds: .inf", "request_seconds: Input should be a finite number"),
        ("attempt_seconds: .nan", "attempt_seconds: Input should be a finite number"),
        ("stall_seconds: 1.0e+300", "stall_seconds: Input should be less than or equal to 86400"),
        ("[1", "is no YAML"),
    ],
)
def test_a_file_that_is_wrong_is_refused_in_one_line_that_says_where(
    tmp_path: Path, content: str, said: str
) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text(content)
    assert said in refused("--config", str(file))


@pytest.mark.parametrize("text", ["inf", "nan"])
def test_a_setting_that_is_no_finite_number_is_named(text: str) -> None:
    assert "POINTSMAN_GATEWAY_GRACE_SECONDS" in refused(POINTSMAN_GATEWAY_GRACE_SECONDS=text)


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


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("sdk", ["openai", "anthropic"])
async def test_an_sdk_in_node_runs_its_examples_with_only_another_base_url(
    sdk: str, server: Running, tmp_path: Path
) -> None:
    """Whole answers, streams, tools and their results, JSON, a refusal and the list of models, with a key."""
    folder = await asyncio.to_thread(built, sdk, ("node", "npm"))
    await server.create_models(small={"capabilities": ["tools", "json"]})
    async with running_standin() as provider:
        file = gateway_file(tmp_path, provider)
        with gateway_process(
            "--config", str(file), "--target", server.target, POINTSMAN_GATEWAY_API_KEY="sesame"
        ) as (_process, port):
            # Not in this loop, in which the server and the stand-in run.
            said = await asyncio.to_thread(
                run_checked,
                ["node", "client.mjs"],
                folder,
                GATEWAY=f"http://127.0.0.1:{port}",
                GATEWAY_KEY="sesame",
            )
    told = json.loads(said.splitlines()[-1])
    assert set(told.pop("texts")) == {"All is well."}
    assert len(told.pop("decision")) == 32
    assert told == {
        "tools": ["Paris", "Paris"],
        "json": {"city": "Paris"},
        "refused": True,
        "models": ["pointsman", "pointsman/default", "small"],
    }
    results = [each["messages"][-1] for each in provider.calls if each.get("tools")]
    assert [each.get("content") for each in results if each["role"] == "tool"] == ["Sunny.", "Sunny."]
