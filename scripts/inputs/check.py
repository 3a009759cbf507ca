"""Sends a server everything, several calls at a time, and looks whether it bears it."""

from __future__ import annotations

import math
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeAlias

import grpc
import hypothesis
from hypothesis import HealthCheck, Phase
from hypothesis import strategies as st
from hypothesis.errors import Flaky

from scripts.inputs.calls import Answer, Method, called, methods
from scripts.inputs.messages import Requests
from scripts.inputs.target import Target
from scripts.inputs.wire import KINDS, strike

IN_FLIGHT = 8
_EACH = 2
_FLIGHTS_MAX = 50
_MESSAGES_MAX = 4
_WIRE_SHARE = 0.05
_LOOK_EVERY = 200
_TOLD_BYTES_MAX = 300

Flight: TypeAlias = "list[tuple[Method, list[bytes]]]"
"""Calls that are made at the same time, each with the messages that are sent."""


class FaultError(AssertionError):
    """The server did not bear an input."""


@dataclass
class Found:
    """What was sent and answered: by method and code, and by kind of bytes on the port."""

    codes: Counter[tuple[str, str]] = field(default_factory=Counter)
    struck: Counter[str] = field(default_factory=Counter)
    first_bytes: int = 0
    last_bytes: int = 0

    @property
    def inputs(self) -> int:
        """How many there were."""
        return self.codes.total() + self.struck.total()


def check(target: Target, inputs: int, seed: int, on_inputs: Callable[[int], None] = lambda _: None) -> Found:
    """Sends at least so many. Raises FaultError for the first that the server does not bear, and for a method that
    is never answered OK.
    """
    found = Found()
    struck = round(inputs * _WIRE_SHARE)
    source = random.Random(seed)  # noqa: S311
    flights, crews = _crews(math.ceil((inputs - struck) / len(methods())), source)
    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        for number, crew in enumerate(crews):
            _play(_Crew(target, pool, found, on_inputs), crew, flights, seed + number)
            _look(target, ", ".join(each.path for each in crew))
            found.first_bytes = found.first_bytes or target.resident_bytes()
    kinds = list(KINDS)
    for number in range(struck):
        kind = kinds[number % len(kinds)]
        strike(target.port, kind, source)
        found.struck[kind] += 1
        on_inputs(1)
        if number % _LOOK_EVERY == 0:
            _look(target, kind)
    _look(target, "bytes that are no requests")
    found.last_bytes = target.resident_bytes()
    _verify(target)
    never = [each.path for each in methods() if not found.codes[each.path, "OK"]]
    if never:
        codes = {code: count for (path, code), count in found.codes.items() if path in never}
        raise FaultError(f"nothing that was sent to {', '.join(never)} was answered OK, but {codes}")
    return found


def _crews(inputs: int, source: random.Random) -> tuple[int, list[list[Method]]]:
    """How often each crew flies, and the methods of each, so that every method gets `inputs` at least."""
    flights = min(max(math.ceil(inputs / _EACH / 2), 1), _FLIGHTS_MAX)
    order: list[Method] = []
    for _ in range(math.ceil(inputs / _EACH / flights)):
        order += source.sample(methods(), len(methods()))
    size = IN_FLIGHT // _EACH
    return flights, [order[start : start + size] for start in range(0, len(order), size)]


@dataclass
class _Crew:
    target: Target
    pool: ThreadPoolExecutor
    found: Found
    on_inputs: Callable[[int], None]

    def fly(self, flight: Flight) -> None:
        """Makes the calls. Raises FaultError."""

        def call(each: tuple[Method, list[bytes]]) -> Answer:
            return called(self.target.channel, *each)

        faults = []
        for (method, sent), answer in zip(flight, self.pool.map(call, flight), strict=True):
            self.found.codes[method.path, answer.code] += 1
            if answer.fault:
                faults.append(f"{_told(method, sent)}: {answer.fault}")
        self.on_inputs(len(flight))
        if faults:
            together = "\n".join(_told(*each) for each in flight)
            raise FaultError(f"{'; '.join(faults)}\nwhere these were sent together:\n{together}")


def _told(method: Method, sent: Sequence[bytes]) -> str:
    shown = [
        f"{each[:_TOLD_BYTES_MAX]!r}" + (f" and so on, {len(each):,} bytes" if len(each) > _TOLD_BYTES_MAX else "")
        for each in sent
    ]
    return f"{method.path} of [{', '.join(shown)}]"


def _play(crew: _Crew, mates: Sequence[Method], flights: int, seed: int) -> None:
    """Lets a crew fly so often, first with requests that are right; a fault is narrowed down to small ones."""
    try:
        requests = Requests(crew.target.filling.renew())
    except (grpc.RpcError, TimeoutError) as error:
        raise FaultError(f"what is right is refused: {error}\n{crew.target.traceback()}".rstrip()) from error
    flown = 0

    @hypothesis.settings(
        max_examples=flights,
        deadline=None,
        database=None,
        phases=(Phase.explicit, Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @hypothesis.given(st.tuples(*(_sent(requests, each) for each in mates for _ in range(_EACH))))
    @hypothesis.example(tuple([each] for mate in mates for each in requests.right(mate.request)))
    def play(sent: tuple[list[bytes], ...]) -> None:
        nonlocal flown
        flown += 1
        crew.fly(list(zip([mate for mate in mates for _ in range(_EACH)], sent, strict=True)))

    try:
        # hypothesis gives fewer where it finds no more that are new, or small enough.
        while flown < flights:
            hypothesis.seed(seed + flown)(play)()
    except (FaultError, Flaky) as error:
        often = "not every time: " if isinstance(error, Flaky) else ""
        raise FaultError(f"{often}{_first(error)}\n{crew.target.traceback()}".rstrip()) from error


def _sent(requests: Requests, method: Method) -> st.SearchStrategy[list[bytes]]:
    one = requests.of(method.request)
    alone = one.map(lambda each: [each])
    return st.one_of(alone, st.lists(one, max_size=_MESSAGES_MAX)) if method.takes_stream else alone


def _first(error: BaseException) -> BaseException:
    return _first(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error


def _look(target: Target, after: str) -> None:
    faults = target.faults()
    if faults:
        raise FaultError(f"after {after}: {'; '.join(faults)}")


def _verify(target: Target) -> None:
    command = [sys.executable, "-m", "server.cli.main", "verify", "--json", "--database-url", target.url]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise FaultError(f"what was logged does not verify: {done.stdout}{done.stderr}")
