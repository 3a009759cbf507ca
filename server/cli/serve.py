"""pointsman serve: runs a server."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import Any

import click

from server.app import App
from server.cli.loading import load_settings
from server.config_file import read_config
from server.event_loop import ServingLoop
from server.garbage import give_back_memory, settle_memory
from server.logs import set_up_logs, tell
from server.settings import Role, Settings

# A request waits for the learner or the evaluation to let go of the interpreter: Python's own 5 ms are long.
_SWITCH_SECONDS = 0.001
# A look at all that is alive stops a server under full load for 150 to 360 ms, and finds some hundred objects.
_OLD_LOOKS = 1_000


@click.command()
@click.option("--config", type=click.Path(path_type=Path), help="YAML file of routers and models.")
@click.option("--host", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", type=int, help="Port to listen on; 0 takes a free one.  [default: 50051]")
@click.option("--http-port", help="Port of the console and JSON over HTTP, or off.  [default: 50080]")
@click.option("--database-url", help="SQLite or PostgreSQL.  [default: sqlite:///pointsman.db]")
@click.option(
    "--role",
    type=click.Choice([each.value for each in Role]),
    help="Whether to answer, to learn, or both.  [default: all]",
)
@click.option(
    "--learner-process", is_flag=True, default=None, help="Learn in a process of its own, started with this one."
)
@click.option("--until-input-ends", is_flag=True, hidden=True, help="Say nothing; end with the standard input.")
@click.option("--share-port", is_flag=True, default=None, help="Let other servers here listen on the port too.")
def serve(*, until_input_ends: bool, **given: Any) -> None:
    """Serve Route and ReportReward over gRPC, and learn.

    Every setting can also be given in the environment, as POINTSMAN_PORT and so on; the README lists them.
    """
    give_back_memory()
    settings = load_settings({key: value for key, value in given.items() if value is not None})
    # The learner's process of a server writes to that server's log.
    set_up_logs(settings.log_level, settings.log_format, Role.LEARNER.value if until_input_ends else "")
    with asyncio.Runner(loop_factory=ServingLoop) as runner:
        runner.run(_serve(settings, until_input_ends))


async def _serve(settings: Settings, until_input_ends: bool) -> None:
    sys.setswitchinterval(_SWITCH_SECONDS)
    declared = read_config(settings.config, settings.window_seconds_max) if settings.config else []
    app = App(settings, of_another=until_input_ends)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError):
            loop.add_signal_handler(number, stopping.set)
    if until_input_ends:
        loop.add_reader(sys.stdin.fileno(), _read, stopping)
    try:
        await app.start(declared)
        settle_memory(_OLD_LOOKS)
        if until_input_ends:
            await _first(stopping, app.died)
            if app.died.is_set():  # Nobody asks this process how it is: it ends, and whoever started it sees that.
                raise OSError("the learner has died")
            return
        if app.http_port:
            scheme = "https" if settings.tls_certificate else "http"
            tell(f"Console and JSON over HTTP on {scheme}://{settings.http_host}:{app.http_port}")
        tell(f"Pointsman listens on {settings.host}:{app.port}")
        await stopping.wait()
    finally:
        await app.stop()


async def _first(*events: asyncio.Event) -> None:
    tasks = [asyncio.create_task(each.wait()) for each in events]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for each in tasks:
        each.cancel()


def _read(stopping: asyncio.Event) -> None:
    """Whoever has started this process says nothing, and ends when it does."""
    if not os.read(sys.stdin.fileno(), 1024):
        stopping.set()
        asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
