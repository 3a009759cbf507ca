"""The command line of the check of inputs."""

from __future__ import annotations

import random
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import hypothesis
from hypothesis import HealthCheck, Phase
from hypothesis import strategies as st
from rich.console import Console
from rich.progress import Progress

from scripts.inputs.calls import Method, called, methods
from scripts.inputs.messages import Requests
from scripts.inputs.target import Target, running
from scripts.inputs.wire import KINDS, strike

_MESSAGES_MAX = 4
_WIRE_SHARE = 0.05
_LOOK_EVERY = 200


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


@click.command()
@click.option("--inputs", type=click.IntRange(200), default=100_000, show_default=True, help="How many, about.")
@click.option("--seed", type=int, default=0, show_default=True)
def main(inputs: int, seed: int) -> None:
    """Send a server of its own INPUTS bad requests, of every RPC, and bytes that are none.

    Requests are made by hypothesis from the contract: values at the edges, names that the server knows beside
    others, whole or damaged. Exits with 1, and the smallest request that does it, if the server crashes, hangs,
    answers with a code that is not documented or without its details, writes a traceback, is no longer healthy,
    or has logged what does not verify.
    """
    console = Console(stderr=True)
    with (
        TemporaryDirectory(prefix="pointsman-inputs-") as folder,
        running(Path(folder)) as target,
        Progress(console=console, transient=True, disable=not console.is_terminal) as progress,
    ):
        task = progress.add_task("sending", total=inputs)
        try:
            found = check(target, inputs, seed, lambda: progress.advance(task))
        except FaultError as fault:
            click.echo(f"seed {seed}: {fault}", err=True)
            sys.exit(1)
    click.echo(table(found))


def check(target: Target, inputs: int, seed: int, on_input: Any = lambda: None) -> Found:
    """Sends them all. Raises FaultError for the first that the server does not bear."""
    found = Found()
    struck = round(inputs * _WIRE_SHARE)
    every = methods()
    requests = Requests(target.known)
    source = random.Random(seed)  # noqa: S311
    for method in every:
        _play(target, method, requests, (inputs - struck) // len(every), seed, found, on_input)
        _look(target, method.path)
        found.first_bytes = found.first_bytes or target.resident_bytes()
    kinds = list(KINDS)
    for number in range(struck):
        kind = kinds[number % len(kinds)]
        strike(target.port, kind, source)
        found.struck[kind] += 1
        on_input()
        if number % _LOOK_EVERY == 0:
            _look(target, kind)
    _look(target, "bytes that are no requests")
    found.last_bytes = target.resident_bytes()
    _verify(target)
    return found


def _play(
    target: Target, method: Method, requests: Requests, count: int, seed: int, found: Found, on_input: Any
) -> None:
    """Sends one method `count` requests; a fault is narrowed down to a small one."""
    one = requests.of(method.request)
    sent = st.lists(one, max_size=_MESSAGES_MAX) if method.takes_stream else one.map(lambda each: [each])

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @hypothesis.given(sent)
    def play(messages: list[bytes]) -> None:
        answer = called(target.channel, method, messages)
        found.codes[method.path, answer.code] += 1
        on_input()
        if answer.fault:
            raise FaultError(f"{method.path} of {messages}: {answer.fault}")
        if "Delete" in method.path and answer.code == "OK":
            target.restore()

    play()


def _look(target: Target, after: str) -> None:
    faults = target.faults()
    if faults:
        raise FaultError(f"after {after}: {'; '.join(faults)}")


def _verify(target: Target) -> None:
    command = [sys.executable, "-m", "server.cli.main", "verify", "--json", "--database-url", target.url]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise FaultError(f"what was logged does not verify: {done.stdout}{done.stderr}")


def table(found: Found) -> str:
    """What was answered, as Markdown."""
    lines = ["| sent to | inputs | answered |", "|---|---:|---|"]
    for path in dict.fromkeys(path for path, _ in found.codes):
        codes = {code: count for (of, code), count in found.codes.items() if of == path}
        told = ", ".join(f"{code} {count:,}" for code, count in sorted(codes.items(), key=lambda each: -each[1]))
        lines.append(f"| {path.removeprefix('/')} | {sum(codes.values()):,} | {told} |")
    lines += [f"| the port: {kind} | {count:,} | |" for kind, count in found.struck.items()]
    grown = (found.last_bytes - found.first_bytes) / 2**20
    lines.append(f"| all | {found.inputs:,} | borne; {grown:+.0f} MiB of memory since the first method |")
    return "\n".join(lines)
