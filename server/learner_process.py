"""The learner of one server in a process of its own, so that answers do not share an interpreter with it."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Callable, Mapping

from server.settings import Role, Settings

logger = logging.getLogger(__name__)

_AGAIN_SECONDS = 1.0
_STOP_SECONDS = 5.0
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
        self._stopping = False

    @property
    def pid(self) -> int | None:
        """That of the process; None while there is none."""
        return None if self._process is None else self._process.pid

    async def run(self) -> None:
        """Watches over it."""
        while not self._stopping:
            # Signals of the terminal are for this process, which lets the other end when it has answered all.
            process = self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "server.cli.main", "serve", "--until-input-ends"),
                stdin=asyncio.subprocess.PIPE,
                env=_environment(self._settings),
                start_new_session=True,
            )
            self._on_change()
            code = await process.wait()
            self._process = None
            self._on_change()
            if not self._stopping:
                logger.error("the learner's process has ended with %d, and is started again", code)
                await asyncio.sleep(_AGAIN_SECONDS)

    async def stop(self) -> None:
        """Lets it learn what is in the log, save it, and end."""
        self._stopping = True
        process = self._process
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), self._settings.grace_seconds + _STOP_SECONDS)
        except TimeoutError:
            logger.warning("the learner's process does not end, and is killed: it will learn the rest again")
            process.kill()
            await process.wait()


def _environment(settings: Settings) -> Mapping[str, str]:
    """The environment with all settings in it, as this process has them, but for what is its own."""
    passed = settings.model_dump(mode="json", exclude=set(_NOT_PASSED_ON), exclude_none=True)
    passed |= _OWN
    if settings.learner_metrics_port is not None:
        passed["metrics_port"] = settings.learner_metrics_port
    given = {f"POINTSMAN_{name.upper()}": str(value) for name, value in passed.items()}
    others = {name: value for name, value in os.environ.items() if not name.upper().startswith("POINTSMAN_")}
    return others | given
