"""Sessions of a shell as the documents show them, and a folder to run them in."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

BIN = Path(sys.executable).parent
ADDRESS = "127.0.0.1:50051"
HTTP_ADDRESS = "127.0.0.1:50080"


@dataclass(frozen=True)
class Step:
    """A command behind a $, and what the document shows of its output."""

    line: int
    command: str
    output: str

    @property
    def refusal(self) -> str:
        """What the command refuses with, if it does."""
        return next((line for line in self.output.splitlines() if line.startswith("pointsman: ")), "")


def steps(document: Path) -> list[Step]:
    """The steps of all sessions of the document, in order: a session is a block that begins with a $."""
    found: list[Step] = []
    block: list[str] | None = None
    for number, line in enumerate(document.read_text().splitlines(), 1):
        if line.startswith("```"):
            block = None if block is not None else []
        elif block is not None:
            block.append(line)
            if line.startswith("$ "):
                found.append(Step(number, line[2:], ""))
            elif block[0].startswith("$ "):
                found[-1] = replace(found[-1], output=f"{found[-1].output}{line}\n")
    return found


def headers(output: str) -> list[list[str]]:
    """The heads of the tables in it."""
    rows = ([cell.strip() for cell in line.strip("┃").split("┃")] for line in output.splitlines() if "┃" in line)
    return [row for row in rows if len(row) > 1]


def masked(text: str) -> str:
    """Without what differs from run to run: numbers, ids, addresses."""
    return re.sub(r"[0-9a-f]{8,}|[-+]?\d[\d.,:e-]*", "#", text)


@dataclass
class Shell:
    """Runs commands in a folder, beside one server at most: the next one that is started stops it.

    `known` is what stands for something in the documents, and what it is here; `learned` finds such a thing in
    outputs. What else has to end with it is in `beside`.
    """

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    known: dict[str, str] = field(default_factory=dict)
    learned: Mapping[str, str] = field(default_factory=dict)
    server: subprocess.Popen[str] | None = None
    target: str = ""
    beside: ExitStack = field(default_factory=ExitStack)

    def run(self, command: str) -> tuple[int, str]:
        """The exit status and the output. A server goes on in the background, with the status 0."""
        for name, value in self.known.items():
            command = command.replace(name, value)
        command = command.replace(ADDRESS, self.target)
        serves = "pointsman serve" in command or command.split()[0].endswith("scripts/serve")
        if serves:
            self.stop()
        process = subprocess.Popen(
            ["bash", "-c", command],
            cwd=self.folder,
            env={
                **os.environ,
                "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
                "COLUMNS": "200",
                "POINTSMAN_PORT": "0",
                "POINTSMAN_HTTP_PORT": "off",
                "POINTSMAN_LOG_LEVEL": "ERROR",
                "POINTSMAN_STORAGE_WAIT_SECONDS": "30",
                "POINTSMAN_DURABILITY": "process_crash",
                "POINTSMAN_EVALUATION_SECONDS": "0.5",
                "POINTSMAN_SNAPSHOT_SECONDS": "0.5",
                "POINTSMAN_TARGET": self.target,
                **self.environment,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        if serves:
            return self._served(process)
        output, _ = process.communicate()
        for name, pattern in self.learned.items():
            found = re.search(pattern, output)
            if found and name not in self.known:
                self.known[name] = found[1]
        return process.returncode, output

    def _served(self, process: subprocess.Popen[str]) -> tuple[int, str]:
        """Once the server listens, or has refused to."""
        assert process.stdout is not None
        output = ""
        for line in process.stdout:
            output += line
            page = re.search(r"on http://(127.0.0.1:\d+)$", line)
            if page:
                self.known[HTTP_ADDRESS] = page[1]
            found = re.search(r"listens on .*:(\d+)$", line)
            if found:
                self.server, self.target = process, f"127.0.0.1:{found[1]}"
                return 0, output
        process.stdout.close()
        return process.wait(), output

    def stop(self) -> None:
        """Stops the server, if one runs."""
        if self.server is not None:
            os.killpg(self.server.pid, signal.SIGTERM)
            self.server.communicate()
            self.server = None
