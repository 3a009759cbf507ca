"""The faults: which there are, how each is done and undone, and in which order a seed lets them happen."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from random import Random

import psycopg

from faults.cluster import Server
from faults.database import Database, PostgreSQL
from faults.proxy import Proxy, Wire

# A paused server holds the log for ten seconds at most: see server.storage.engine.
_LONG_SECONDS = (11.0, 14.0)
_SHORT_SECONDS = (0.2, 3.0)
_LONG_SHARE = 0.15
_TOGETHER = 0.25
_READY_SECONDS = 60.0


@dataclass(frozen=True)
class Fault:
    """One that is to happen: `after_seconds` after the one before began, or ended unless `together`."""

    kind: str
    server: int
    seconds: float
    after_seconds: float
    together: bool


_SERVER_KINDS = ("kill a server", "stop a server in order", "pause a server")
_FRONT_KINDS = ("cut clients off", "reset clients", "silence clients", "slow clients down")
_DATABASE_KINDS = ("stop the database at once", "kill a backend")
_BACK_KINDS = ("cut the database off", "reset the database", "silence the database", "slow the database down")


def kinds(database: Database) -> tuple[str, ...]:
    """What can happen with such a database."""
    return _SERVER_KINDS + _FRONT_KINDS + (_DATABASE_KINDS + _BACK_KINDS if database.port else ())


def plan(random: Random, possible: Sequence[str], servers: int, count: int, *, brief: bool) -> list[Fault]:
    """So many faults, each kind about as often as the others. With `brief` none is longer than a second."""
    order: list[str] = []
    while len(order) < count:
        order += random.sample(possible, len(possible))
    faults = []
    for kind in order[:count]:
        span = _LONG_SECONDS if random.random() < _LONG_SHARE else _SHORT_SECONDS
        seconds = random.uniform(0.1, 1.0) if brief else random.uniform(*span)
        after_seconds = random.uniform(0.0, 0.5 if brief else 2.0)
        faults.append(Fault(kind, random.randrange(servers), seconds, after_seconds, random.random() < _TOGETHER))
    return faults


@dataclass
class Injector:
    """Makes the faults happen. `done` counts those that did; one without a target (a server that is just starting,
    a database that is down) is tried again until it has one.
    """

    servers: Sequence[Server]
    database: Database
    random: Random
    say: Callable[[str], object]
    done: Counter[str] = field(default_factory=Counter)
    _database_down: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def run(self, faults: Sequence[Fault]) -> None:
        """All of them; returns when all are over and the wires are whole."""
        tasks: list[asyncio.Task[None]] = []
        for number, fault in enumerate(faults, 1):
            await asyncio.sleep(fault.after_seconds)
            self.say(f"{number}/{len(faults)} {fault.kind} {self._target(fault).spec.name} {fault.seconds:.1f} s")
            task = asyncio.create_task(self._inject(fault))
            tasks.append(task)
            if not fault.together:
                await task
        await asyncio.gather(*tasks)
        self.mend()

    def mend(self) -> None:
        """Ends whatever would not end by itself."""
        for server in self.servers:
            server.resume()
            for wire in (server.front, server.back):
                if wire is not None:
                    wire.become(Wire.WHOLE)

    def _target(self, fault: Fault) -> Server:
        """Whose process or wire it is. Of a server that only learns clients have no wire."""
        possible = [each for each in self.servers if each.spec.answers or fault.kind not in _FRONT_KINDS]
        return possible[fault.server % len(possible)]

    async def _inject(self, fault: Fault) -> None:
        server = self._target(fault)
        if fault.kind in _SERVER_KINDS:
            await self._server_fault(fault, server)
        elif fault.kind in _FRONT_KINDS:
            await self._wire_fault(fault, server.front, _FRONT_KINDS.index(fault.kind))
        elif fault.kind in _BACK_KINDS:
            assert server.back is not None
            await self._wire_fault(fault, server.back, _BACK_KINDS.index(fault.kind))
        elif fault.kind == "kill a backend":
            await self._kill_backend()
        else:
            await self._stop_database(fault)
        self.done[fault.kind] += 1

    async def _server_fault(self, fault: Fault, server: Server) -> None:
        await self._until(lambda: _true(server.listens), f"{server.spec.name} to listen")
        if fault.kind == "kill a server":
            server.send(signal.SIGKILL)
        elif fault.kind == "stop a server in order":
            server.send(signal.SIGTERM)
        else:
            server.send(signal.SIGSTOP)
            await asyncio.sleep(fault.seconds)
            server.resume()

    async def _wire_fault(self, fault: Fault, wire: Proxy, how: int) -> None:
        """Cuts the wire, resets its connections, lets nothing through it, or slows it down."""
        if how == 1:
            await self._until(lambda: _true(wire.reset() > 0), "a connection to reset")
            return
        wire.become((Wire.REFUSING, Wire.WHOLE, Wire.SILENT, Wire.SLOW)[how], self.random.uniform(0.02, 0.3))
        if how == 0:
            wire.reset()
        await asyncio.sleep(fault.seconds)
        wire.become(Wire.WHOLE)

    async def _kill_backend(self) -> None:
        async def killed() -> bool:
            try:
                found = await asyncio.to_thread(self._postgresql.backends)
                os.kill(self.random.choice(found), signal.SIGKILL)
            except (psycopg.Error, IndexError, ProcessLookupError):
                return False
            return True

        await self._until(killed, "a connection to kill")

    async def _stop_database(self, fault: Fault) -> None:
        async with self._database_down:
            await asyncio.to_thread(self._postgresql.stop_at_once)
            await asyncio.sleep(fault.seconds)
            await asyncio.to_thread(self._postgresql.start)

    @property
    def _postgresql(self) -> PostgreSQL:
        assert isinstance(self.database, PostgreSQL)
        return self.database

    async def _until(self, ask: Callable[[], Awaitable[bool]], what: str) -> None:
        """Raises TimeoutError, with a word of what was waited for."""
        try:
            async with asyncio.timeout(_READY_SECONDS):
                while not await ask():
                    await asyncio.sleep(0.05)
        except TimeoutError as error:
            raise TimeoutError(f"waited {_READY_SECONDS:.0f} s for {what}") from error


async def _true(value: bool) -> bool:
    return value
