"""The learner of one server in a process of its own, so that answers do not share an interpreter with it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from server.settings import Role, Settings

logger = logging.getLogger(__name__)

_AGAIN_SECONDS = 1.0
# One that ends sooner than this is started again more and more rarely: it may be for a reason that stays.
_SOON_SECONDS = 60.0
_AGAIN_SECONDS_MAX = 10.0
_STOP_SECONDS = 5.0
# One whose server was killed may still be saving what it has learned, with its port.
_PORT_SECONDS = 5.0
_PORT_LOOK_SECONDS = 0.1
_CODE = Path(__file__).resolve().parents[1]
# What is the answering server's alone: the other learns, and answers nobody.
_OWN = {
    "role": Role.LEARNER.value,
    "host": "127.0.0.1",
    "port": "0",
    "http_port": "off",
    "learner_process": "false",
    "share_port": "false",
}
_NOT_PASSED_ON = ("config", "metrics_port", "tls_certificate", "tls_key", "tls_client_ca", "learner_metrics_port")


class LearnerProcess:
    """Starts it, and again whenever it has ended by itself, until `stop`. It ends with its standard input, and so
    with this process, however that ends. `on_change` is called when it has begun or ended.
    """

    def __init__(self, settings: Settings, on_change: Callable[[], object]) -> None:
        self._settings = settings
        self._on_change = on_change
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = asyncio.Event()
        self._starting = asyncio.Lock()

    @property
    def pid(self) -> int | None:
        """That of the process; None while there is none."""
        return None if self._process is None else self._process.pid

    async def require_port(self) -> None:
        """Raises OSError if where its metrics are to be answered is taken, and stays so for some seconds: it would
        end at once, and be started again for ever.
        """
        host, port = self._settings.metrics_host, self._settings.learner_metrics_port
        if not port:
            return
        until = asyncio.get_running_loop().time() + _PORT_SECONDS
        while not _is_free(host, port):
            if asyncio.get_running_loop().time() >= until:
                raise OSError(
                    f"learner_metrics_port (POINTSMAN_LEARNER_METRICS_PORT): cannot listen on {host}:{port}: it "
                    "is taken by another server, or no address of this machine"
                )
            await asyncio.sleep(_PORT_LOOK_SECONDS)

    async def run(self) -> None:
        """Watches over it."""
        loop = asyncio.get_running_loop()
        pause = _AGAIN_SECONDS
        while not self._stopping.is_set():
            began = loop.time()
            why = await self._live()
            if self._stopping.is_set():
                return
            if loop.time() - began >= _SOON_SECONDS:
                pause = _AGAIN_SECONDS
            logger.error("the learner's process %s, and is started again in %.0f s", why, pause)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)
            pause = min(2 * pause, _AGAIN_SECONDS_MAX)

    async def _live(self) -> str:
        """Starts it and waits for its end; says what became of it."""
        try:
            process = await self._start()
        except OSError as error:
            return f"cannot be started: {error}"
        if process is None:
            return "was not to be started any more"
        self._on_change()
        code = await process.wait()
        self._process = None
        self._on_change()
        return f"has ended with {code}"

    async def _start(self) -> asyncio.subprocess.Process | None:
        """None if it has been stopped: a stop waits for a start, or the process would be left behind."""
        async with self._starting:
            if self._stopping.is_set():
                return None
            # Signals of the terminal are for this process, which lets the other end when it has answered all.
            # Its code is what runs here, and not, by -P, what is called the same in the folder that we are in.
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "server.cli.main", "serve", "--until-input-ends"),
                stdin=asyncio.subprocess.PIPE,
                env=_environment(self._settings),
                start_new_session=True,
            )
            return self._process

    def let_end(self) -> None:
        """Does not start it again when it ends: whoever stops this server may have told both, as systemd does."""
        self._stopping.set()

    async def stop(self) -> None:
        """Lets it learn what is in the log, save it, and end."""
        self.let_end()
        async with self._starting:
            process = self._process
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), self._settings.grace_seconds + _STOP_SECONDS)
        except TimeoutError:
            logger.warning("the learner's process does not end, and is killed: it will learn the rest again")
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def _is_free(host: str, port: int) -> bool:
    """Whether one could listen there."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        socket.create_server((host, port), family=family).close()
    except OSError:
        return False
    return True


def _environment(settings: Settings) -> Mapping[str, str]:
    """The environment with all settings in it, as this process has them, but for what is its own."""
    passed = settings.model_dump(mode="json", exclude=set(_NOT_PASSED_ON), exclude_none=True)
    passed |= _OWN
    if settings.learner_metrics_port is not None:
        passed["metrics_port"] = settings.learner_metrics_port
    given = {f"POINTSMAN_{name.upper()}": str(value) for name, value in passed.items()}
    others = {name: value for name, value in os.environ.items() if not name.upper().startswith("POINTSMAN_")}
    paths = [str(_CODE), *filter(None, [others.get("PYTHONPATH")])]
    return others | given | {"PYTHONPATH": os.pathsep.join(paths)}
