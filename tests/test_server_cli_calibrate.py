"""`pointsman calibrate` on a real log."""

from __future__ import annotations

import asyncio
import json
import subprocess

import grpc
import pytest
from pointsman.v1 import router_service_pb2 as pb
from servers import POINTSMAN, Running, serving_process


def run(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(POINTSMAN), "calibrate", "--database-url", url, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


async def learn(target: str, url: str) -> None:
    """The large model is better on hard questions alone, and both have been tried on both."""
    async with grpc.aio.insecure_channel(target) as channel:
        running = Running(url, target, channel)
        await running.create_models(small={}, large={"prices": (10.0, 20.0, 0.0)})
        for number in range(160):
            hard = number % 4 == 0
            decision = await running.route(
                prompt="Prove it." if hard else "Say hello.",
                constraints=pb.Constraints(allowed_models=["large" if number % 8 < 4 else "small"]),
                input_tokens=100,
            )
            quality = 0.2 if hard and decision.model == "small" else 0.9
            await running.report(decision, reward=quality, usage=pb.Usage(input_tokens=100, output_tokens=50))
            await running.route(prompt="Prove it." if hard else "Say hello.", input_tokens=100)
        await running.settled()


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The log of a server that has learned and stopped."""
    found = f"sqlite:///{tmp_path_factory.mktemp('log') / 'p.db'}"
    with serving_process("--database-url", found) as (_, port):
        asyncio.run(learn(f"127.0.0.1:{port}", found))
    return found


def test_the_threshold_gives_the_share_that_is_asked_and_is_a_candidates_form(url: str) -> None:
    done = run(url, "--strong", "large", "--weak", "small", "--share", "0.25", "--json")
    found = json.loads(done.stdout)
    assert found["decisions"] == 160, "only those in which both could be chosen"
    (threshold,) = found["thresholds"]
    assert threshold["share"] == 0.25, "a quarter of the questions is hard"
    assert 0.0 < threshold["gap"] < 0.7
    assert threshold["quality"] > 0.8
    table = run(url, "--strong", "large", "--weak", "small").stdout
    assert "threshold:large:small:" in table
    assert "by the last 160 decisions" in table


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--strong", "large", "--weak", "tiny"), "--weak: routers/default has no model 'tiny'"),
        (("--strong", "large", "--weak", "large"), "must be another model than the strong one"),
        (("--strong", "large", "--weak", "small", "--share", "1"), "--share"),
        (("--strong", "large", "--weak", "small", "--router", "x"), "--router: there is no router 'x'"),
    ],
)
def test_what_cannot_be_calibrated_is_one_line(url: str, arguments: tuple[str, ...], said: str) -> None:
    done = run(url, *arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
