"""The servers of a run: which there are, how they are started, killed and started again, and what they said."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from faults.database import Database
from faults.proxy import Proxy

_POINTSMAN = Path(sys.executable).parent / "pointsman"
_LISTENS = re.compile(r"listens on [^ ]*:(\d+)\s*$")
_START_SECONDS = 60.0
_AGAIN_SECONDS = 0.5
_STOP_SECONDS = 60.0


@dataclass(frozen=True)
class ServerSpec:
    """One server process. `answers` says whether clients may ask it; `arguments` are more of `pointsman serve`."""

    name: str
    arguments: tuple[str, ...] = ()
    answers: bool = True


def layout(roles: Sequence[str]) -> tuple[ServerSpec, ...]:
    """A server for each role. `all` is one that routes and learns, which every version of Pointsman is."""
    return tuple(
        ServerSpec(f"{role}-{number}", () if role == "all" else ("--role", role), role != "learner")
        for number, role in enumerate(roles)
    )


@dataclass
class Server:
    """A server process that is kept running: it is started again whenever it ends, as a supervisor would.

    `front` is the wire between the clients and it, `back` that between it and the database, if there is one.
    It may end by itself only before it listens, while the database cannot be reached; `broken` says when it did
    otherwise.
    """

    spec: ServerSpec
    folder: Path
    database: Database
    front: Proxy = field(default_factory=Proxy)
    back: Proxy | None = None
    starts: int = 0
    broken: list[str] = field(default_factory=list)
    _process: asyncio.subprocess.Process | None = None
    _expected: bool = False
    _stopping: bool = False
    _keeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Starts it, and keeps it running until `stop`."""
        await self.front.start()
        if self.database.port:
            self.back = Proxy(self.database.port)
            await self.back.start()
        self._keeper = asyncio.create_task(self._keep())

    async def stop(self) -> None:
        """Ends it in good order. What is wrong with how it ended is in `broken`."""
        self._stopping = True
        self.resume()
        process = self._process
        if process is not None and process.returncode is None:
            self.send(signal.SIGTERM)
        assert self._keeper is not None
        try:
            await asyncio.wait_for(asyncio.shield(self._keeper), _STOP_SECONDS)
        except TimeoutError:
            self.broken.append(f"{self.spec.name} did not end in {_STOP_SECONDS:.0f} s after SIGTERM: see its log")
            self.send(signal.SIGABRT)  # It leaves the stacks of its threads there.
        await self.front.stop()
        if self.back is not None:
            await self.back.stop()

    def abandon(self) -> None:
        """Kills it, where a run ends before its end."""
        self._stopping = True
        self._kill_left()
        if self._keeper is not None:
            self._keeper.cancel()

    def send(self, number: signal.Signals) -> bool:
        """Sends a signal; False if it does not run now. It is started again if that ends it."""
        process = self._process
        if process is None or process.returncode is not None:
            return False
        self._expected = self._expected or number in (signal.SIGKILL, signal.SIGTERM)
        with suppress(ProcessLookupError):
            process.send_signal(number)
        return True

    def resume(self) -> None:
        """Lets it go on if it was paused."""
        self.send(signal.SIGCONT)

    @property
    def listens(self) -> bool:
        """Whether it has said that it listens, and has not ended since."""
        return self.front.upstream != 0

    @property
    def log(self) -> Path:
        """What it has said, of all its lives."""
        return self.folder / f"{self.spec.name}.log"

    async def _keep(self) -> None:
        while not self._stopping:
            await self._live()
            if not self._stopping:
                await asyncio.sleep(_AGAIN_SECONDS)

    async def _live(self) -> None:
        """One life of the process."""
        self.starts += 1
        self._expected = False
        url = self.database.url(self.back.port if self.back else 0)
        with self.log.open("ab") as log:
            self._process = process = await asyncio.create_subprocess_exec(
                *(str(_POINTSMAN), "serve", "--port", "0", *self.spec.arguments),
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                env={
                    **os.environ,
                    "POINTSMAN_DATABASE_URL": url,
                    "POINTSMAN_SNAPSHOT_SECONDS": "1",
                    "POINTSMAN_EVALUATION_SECONDS": "2",
                    "POINTSMAN_LOG_LEVEL": "INFO",
                    "PYTHONFAULTHANDLER": "1",
                },
            )
            assert process.stderr is not None
            async for line in process.stderr:
                log.write(line)
                found = _LISTENS.search(line.decode(errors="replace"))
                if found:
                    self.front.upstream = int(found.group(1))
            code = await process.wait()
        listened, self.front.upstream = self.front.upstream, 0
        if self._expected or self._stopping:
            if code not in (0, -signal.SIGKILL, -signal.SIGTERM, 2):
                self.broken.append(f"{self.spec.name} ended with code {code} when it was to stop")
        elif listened or code != 2:
            self.broken.append(f"{self.spec.name} ended by itself with code {code} in life {self.starts}")

    def _kill_left(self) -> None:
        process = self._process
        if process is not None and process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
