"""A server whose learner is a process of its own, which is watched over, and ends with the server."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from engines import BOTH_ENGINES
from grpc_health.v1 import health_pb2
from pointsman.v1 import router_service_pb2 as pb
from servers import POINTSMAN, Running, eventually, serving_process
from test_roles import LEARNER, LIVE_POLICY, MODELS, NOT_SERVING, SERVING, bad_traffic, learned, require_sound

from server.storage.engine import open_engine
from server.storage.reader import LogReader

pytestmark = [
    BOTH_ENGINES,
    pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="no /proc, which tells a process's children"),
]


SIGNALS = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
Serve = Callable[..., Any]
# While the file "faulty" is there, the learner dies of the next record that it learns.
FAULT = """
import pathlib, sys

if "--until-input-ends" in sys.orig_argv:
    from server.learner_fold import LearnerFold

    faulty, advance = pathlib.Path(__file__).with_name("faulty"), LearnerFold.advance

    def advance_or_fail(*given):
        if (advanced := advance(*given)) and faulty.exists():
            raise RuntimeError("a fault of ours")
        return advanced

    LearnerFold.advance = advance_or_fail
"""


# Says that there was a learner's process, however short it has lived.
WITNESS = """
import pathlib, sys

if "--until-input-ends" in sys.orig_argv:
    pathlib.Path(__file__).with_name("begun").touch()
"""


@pytest.fixture
async def begin(url: str) -> AsyncIterator[Serve]:
    """Starts a server, one after the other on the test's database."""
    async with AsyncExitStack() as stack:

        async def start(cwd: Path | None = None, **more: str) -> tuple[subprocess.Popen[bytes], Running]:
            given = {"POINTSMAN_DATABASE_URL": url, "POINTSMAN_SNAPSHOT_SECONDS": "1", **more}
            context = serving_process("--learner-process", cwd=cwd, **given)
            process, port = await asyncio.to_thread(stack.enter_context, context)
            target = f"127.0.0.1:{port}"
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(target))
            return process, Running(url, target, channel)

        yield start


def child_of(process: subprocess.Popen[bytes]) -> int | None:
    """The learner's process, None while there is none."""
    files = Path(f"/proc/{process.pid}/task").glob("*/children")
    found = [int(each) for file in files for each in file.read_text().split()]
    return found[0] if found else None


def lives(pid: int) -> bool:
    """Whether there is such a process, and it has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def traffic(server: Running, count: int, name: str) -> None:
    """Decisions with a reward each."""
    for number in range(count):
        decision = await server.route(prompt=f"{name} {number}")
        report = {"report_id": "r", "reward": 1.0 if decision.model == "good" else 0.0}
        assert await server.report(decision, **report) == pb.DISPOSITION_RECORDED


async def test_a_learner_that_is_killed_is_started_again_and_goes_on_where_it_was(begin: Serve, url: str) -> None:
    process, server = await begin()
    await server.create_models(**MODELS)
    await server.health_is(SERVING)
    await server.health_is(SERVING, LEARNER)
    await traffic(server, 20, "before")
    assert await learned(server) == (20, 20)
    killed = child_of(process)
    assert killed is not None
    os.kill(killed, signal.SIGKILL)
    await server.health_is(NOT_SERVING, LEARNER)
    await server.health_is(SERVING)
    await traffic(server, 20, "after")
    await server.health_is(SERVING, LEARNER)
    assert child_of(process) not in (None, killed)
    assert await learned(server) == (40, 40)
    await asyncio.to_thread(require_sound, url, 40)


async def test_it_ends_with_a_server_that_is_killed_and_the_next_one_learns_the_rest(
    begin: Serve, url: str
) -> None:
    process, server = await begin()
    await server.create_models(**MODELS)
    await server.health_is(SERVING)
    await traffic(server, 30, "before")
    child = child_of(process)
    assert child is not None
    process.send_signal(signal.SIGKILL)
    await asyncio.to_thread(process.wait)

    async def ended() -> bool:
        return not lives(child)

    await eventually(ended)
    _, again = await begin()
    await again.health_is(SERVING)
    assert await learned(again) == (30, 30)
    await asyncio.to_thread(require_sound, url, 30)


async def test_a_server_that_is_stopped_lets_it_save_what_it_has_learned(begin: Serve, url: str) -> None:
    process, server = await begin()
    await server.create_models(**MODELS)
    await server.health_is(SERVING)
    await traffic(server, 10, "before")
    child = child_of(process)
    assert child is not None
    process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(process.wait) == 0
    assert not lives(child)
    engine = open_engine(url)
    reader = LogReader(engine)
    (snapshot,) = reader.latest_snapshots()
    head = reader.head()
    engine.dispose()
    assert head - snapshot.seq <= 2  # But for the snapshot's own record, and that of the evaluation.
    await asyncio.to_thread(require_sound, url, 10)


async def test_a_learner_that_died_of_a_fault_of_ours_ends_and_is_started_again(
    begin: Serve, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(FAULT)
    paths = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    _, server = await begin(PYTHONPATH=paths)
    await server.create_models(**MODELS)
    await server.health_is(SERVING, LEARNER)
    (tmp_path / "faulty").touch()
    await traffic(server, 5, "of it")
    await server.health_is(NOT_SERVING, LEARNER)
    await server.health_is(SERVING)
    (tmp_path / "faulty").unlink()
    assert await learned(server) == (5, 5)
    await server.health_is(SERVING, LEARNER)


async def test_what_its_evaluation_has_found_is_in_the_servers_health_and_stays_when_both_are_started_again(
    begin: Serve,
) -> None:
    process, server = await begin(POINTSMAN_EVALUATION_SECONDS="0.5")
    await server.create_models(**MODELS)
    await server.update_router(policy="uniform")
    await server.health_is(SERVING)
    await server.health_is(SERVING, LIVE_POLICY)
    await bad_traffic(server)
    await server.health_is(NOT_SERVING, LIVE_POLICY)
    await server.health_is(SERVING)
    process.send_signal(signal.SIGKILL)
    await asyncio.to_thread(process.wait)
    _, again = await begin(POINTSMAN_EVALUATION_SECONDS="0.5")
    await again.health_is(NOT_SERVING, LIVE_POLICY)
    await again.update_router(policy="fixed:good")
    await again.health_is(SERVING, LIVE_POLICY)


async def test_it_is_our_code_that_it_runs_whatever_is_in_the_folder_where_it_is_started(
    begin: Serve, tmp_path: Path
) -> None:
    (tmp_path / "server.py").write_text("raise RuntimeError('the code of someone else')")
    _, server = await begin(cwd=tmp_path)
    await server.create_models(**MODELS)
    await server.health_is(SERVING, LEARNER)


@pytest.mark.parametrize("port", ["PORT", "HTTP_PORT", "METRICS_PORT", "LEARNER_METRICS_PORT"])
def test_a_server_whose_port_is_taken_refuses_without_having_started_one(tmp_path: Path, port: str) -> None:
    (tmp_path / "sitecustomize.py").write_text(WITNESS)
    paths = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    given = {"POINTSMAN_DATABASE_URL": f"sqlite:///{tmp_path / 'p.db'}", "PYTHONPATH": paths}
    free = {"POINTSMAN_PORT": "0", "POINTSMAN_HTTP_PORT": "0"}
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        ended = subprocess.run(
            [str(POINTSMAN), "serve", "--learner-process"],
            env={**os.environ, **given, **free, f"POINTSMAN_{port}": str(number)},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    assert (ended.returncode, f"127.0.0.1:{number}" in ended.stderr) == (2, True), ended.stderr
    assert ("POINTSMAN_LEARNER_METRICS_PORT" in ended.stderr) == (port == "LEARNER_METRICS_PORT")
    assert not (tmp_path / "begun").exists()


@SIGNALS
async def test_told_to_stop_together_with_its_server_it_is_not_started_again(begin: Serve, number: int) -> None:
    process, server = await begin(POINTSMAN_GRACE_SECONDS="2")
    await server.health_is(SERVING, LEARNER)
    child = child_of(process)
    assert child is not None
    in_flight = server.health.Watch(health_pb2.HealthCheckRequest())
    await in_flight.read()
    process.send_signal(number)
    os.kill(child, number)
    assert await asyncio.to_thread(process.wait) == 0
    assert not lives(child)
    assert process.stderr is not None
    assert await asyncio.to_thread(process.stderr.read) == b""
    in_flight.cancel()
