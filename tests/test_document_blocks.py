"""Every fenced block of the documents is run, read by what reads it for users, or left out for a reason."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import pytest
from blocks import ROOT, Block, blocks, documents
from locks import Authority
from sessions import BIN, Shell
from test_clients import LANGUAGES
from test_examples import ELSEWHERE, SCENES

from policy.domain import InvalidFieldError
from server.config_file import read_config
from server.evaluate.candidates_file import read_candidates
from server.gateway.settings import read_gateway_config
from server.replay.file import read_replay
from server.rows.file import RowFile

Check = Callable[[Block, Path], None]
"""Raises for a block that is wrong; it gets a folder of its own."""


@dataclass(frozen=True)
class Elsewhere:
    """Other tests run it; `words` are in the block and in their file."""

    test: str
    words: tuple[str, ...]

    def __call__(self, block: Block, folder: Path) -> None:
        source = (ROOT / self.test).read_text()
        assert [each for each in self.words if each not in block.text or each not in source] == []


@dataclass(frozen=True)
class LeftOut:
    """Nothing here can run or read it, and why."""

    why: str

    def __call__(self, block: Block, folder: Path) -> None:
        pytest.skip(self.why)


@dataclass(frozen=True)
class PartOf:
    """It is in a file that is run elsewhere, however that is indented."""

    path: str

    def __call__(self, block: Block, folder: Path) -> None:
        assert plain(block.text) in plain((ROOT / self.path).read_text())


def plain(text: str) -> str:
    return " ".join(text.split())


@dataclass(frozen=True)
class BuiltBy:
    """Each word of its commands is in what tests/test_clients.py builds and runs that client with.

    `verbs` are those with which a reader gets what lies in a file there already.
    """

    language: str
    verbs: frozenset[str] = frozenset()

    def __call__(self, block: Block, folder: Path) -> None:
        place = ROOT / "tests/clients" / self.language
        files = [each for each in (*place.iterdir(), ROOT / ".ci/run") if each.is_file()]
        texts = [each.read_text() for each in files] + [" ".join(LANGUAGES[self.language].command)]
        known = as_documented(" ".join(texts))
        words = [word for command in block.commands for word in shlex.split(as_documented(command))]
        assert [word for word in words if word not in known and word not in self.verbs] == []


def as_documented(text: str) -> str:
    """As the documents name what the builds are given in variables."""
    for mine, theirs in {'"': "", "$PROTOC": "protoc", "$PROTOS": "proto", "$PWD/": ""}.items():
        text = text.replace(mine, theirs)
    return text


def commands_exist(block: Block, folder: Path) -> None:
    """Each command up to an empty line is there, and has the options it is given."""
    for command in takewhile(bool, block.commands):
        program, *arguments = shlex.split(command)
        options = {word.partition("=")[0] for word in arguments if word.startswith("--")}
        told = help_of(program, arguments) if options else ""
        assert [each for each in options if each not in told] == [], f"{command}\n{told}"


def help_of(program: str, arguments: list[str]) -> str:
    """What the program says with --help: a subcommand of pointsman's, or what a script runs.

    A script itself would first set up the environment that these tests are in.
    """
    if program == "pointsman":
        command = [str(BIN / program), next(word for word in arguments if word.isalpha())]
    else:
        found = re.search(r"^exec python (?:-P )?(-m \S+)", (ROOT / program).read_text(), re.MULTILINE)
        assert found, program
        command = [sys.executable, "-P", *found[1].split()]
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "tests")))
    environment = {**os.environ, "PYTHONPATH": paths, "COLUMNS": "200"}
    return subprocess.run([*command, "--help"], capture_output=True, text=True, check=True, env=environment).stdout


def replay_rows(block: Block, folder: Path) -> None:
    """It is what `pointsman replay` reads."""
    file = folder / "rows.jsonl"
    file.write_text(block.text * 2)  # One alone is refused.
    rows = read_replay(file).rows
    assert rows[0].prompt == "..."
    assert set(rows[0].outcomes) == {"model-a", "model-b"}


@dataclass(frozen=True)
class DecisionRows:
    """It is what `pointsman evaluate` and `pointsman import` read; a part of a row has the rest in `around`."""

    around: str = "{}"

    def __call__(self, block: Block, folder: Path) -> None:
        file = folder / "rows.jsonl"
        rows = list(json_values(self.around.replace("{}", block.text)))
        file.write_text("".join(json.dumps(each) + "\n" for each in rows))
        read = RowFile(file)
        found = [row for _, row in read]
        assert len(found) == len(rows) > 0
        assert [each for each in found if isinstance(each, InvalidFieldError)] == []
        assert read.ignored == set()


def json_values(text: str) -> Iterator[object]:
    """The values that stand one after the other in it, over as many lines as they take."""
    decoder = json.JSONDecoder()
    rest = text.strip()
    while rest:
        value, end = decoder.raw_decode(rest)
        yield value
        rest = rest[end:].strip()


def candidates_file(block: Block, folder: Path) -> None:
    """It is what `--candidates` reads."""
    file = folder / "candidates.yaml"
    file.write_text(block.text)
    assert len(read_candidates(file)) > 1


def routers_file(block: Block, folder: Path) -> None:
    """It is what `pointsman serve --config` reads."""
    file = folder / "routers.yaml"
    file.write_text(block.text)
    (router,) = read_config(file)
    assert router.models


def gateway_file(block: Block, folder: Path) -> None:
    """It is what `pointsman gateway --config` reads, beside the example's models."""
    example = (ROOT / "examples/gateway.yaml").read_text()
    file = folder / "gateway.yaml"
    file.write_text(example.partition("\nrouters:")[0] + "\n" + block.text)
    assert read_gateway_config(file).routers["default"].judge


def scripts_run(block: Block, folder: Path) -> None:
    """The first serves. The second is what runs this."""
    serve, test = block.commands
    assert os.access(ROOT / test, os.X_OK)
    stamp = ROOT / ".venv/pointsman-installed"
    pins = "".join((ROOT / name).read_text() for name in ("pyproject.toml", "constraints.txt"))
    if not (stamp.is_file() and stamp.read_text() == f"{ROOT} {pins}".rstrip("\n")):
        pytest.skip(f"{serve} would install itself into the environment of these tests: run it once before them")
    shell = Shell(folder, known={serve: str(ROOT / serve)})
    try:
        status, output = shell.run(serve)
        assert status == 0, output
    finally:
        shell.stop()


def over_tls_with_a_key(block: Block, folder: Path) -> None:
    """Its channel reaches a server with TLS and keys."""
    authority = Authority(folder)
    certificate, key = authority.issue()
    assert authority.ca == folder / "ca.pem"
    tls = {"POINTSMAN_TLS_CERTIFICATE": str(certificate), "POINTSMAN_TLS_KEY": str(key)}
    shell = Shell(folder, environment=tls, learned={"KEY": r"(pmk_\w+)"})
    rest = (
        "    from pointsman.v1 import registry_service_pb2 as pb, registry_service_pb2_grpc as services\n"
        "    found = services.RegistryServiceStub(channel).ListRouters(pb.ListRoutersRequest(), timeout=30)\n"
        "    print(found.routers[0].name)\n"
    )
    try:
        shell.run("pointsman keys create --scope administer")
        shell.run("pointsman serve")
        address = shell.target.replace("127.0.0.1", "localhost")
        program = f"import os\nimport grpc\n{block.text}{rest}".replace("pointsman.example.com:50051", address)
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=folder,
            env={**os.environ, "POINTSMAN_API_KEY": shell.known["KEY"]},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stdout == "routers/default\n", done.stderr
    finally:
        shell.stop()


def installs(block: Block, folder: Path) -> None:
    """Its requirement is there: a folder of ours, or an extra that the package has. Nothing is fetched here."""
    command, *others = block.commands
    requirement = shlex.split(command)[-1]
    if requirement.startswith("./"):
        assert (ROOT / requirement / "pyproject.toml").is_file()
    else:
        extra = requirement.partition("[")[2].rstrip("]")
        assert f"\n{extra} = [" in (ROOT / "pyproject.toml").read_text()
    for other in others:
        commands_exist(Block(block.document, block.line, "", other), folder)
        assert [word for word in shlex.split(other) if "/" in word and not (ROOT / word).exists()] == []


PICTURE = LeftOut("a picture for people, drawn by who shows the document; no parser of it is among the tools")
MEASURED = LeftOut("what a benchmark of minutes printed on one machine; the document says which command prints it")
SDKS = "tests/test_document_sdks.py"
CHECKS: dict[str, dict[str, Check]] = {
    "README.md": {
        "scripts/serve ": scripts_run,
        '"""Both calls': PartOf("examples/quickstart.py"),
        '{"prompt"': replay_rows,
        "credentials = ": over_tls_with_a_key,
    },
    "CONTRIBUTING.md": {"scripts/test ": commands_exist},
    "docs/clients.md": {
        "POINTSMAN_TARGET=": Elsewhere(
            "tests/test_clients.py", ("POINTSMAN_TARGET", "POINTSMAN_CA", "POINTSMAN_API_KEY", "./client")
        ),
        "go get ": BuiltBy("go", frozenset({"get", "-tool"})),
        "for _, detail": PartOf("tests/clients/go/main.go"),
        "npm install ": BuiltBy("typescript", frozenset({"--save-dev"})),
        "reason: refusal": PartOf("tests/clients/typescript/client.ts"),
        "let compiled": PartOf("tests/clients/rust/build.rs"),
        "let info": PartOf("tests/clients/rust/src/main.rs"),
        "mvn ": BuiltBy("java"),
        "for (var detail": PartOf("tests/clients/java/src/main/java/example/Client.java"),
        "apt-get ": BuiltBy("cpp"),
        "google::rpc::Status": PartOf("tests/clients/cpp/client.cpp"),
    },
    "docs/concepts.md": {"sequenceDiagram": PICTURE, "flowchart": PICTURE, "stateDiagram": PICTURE},
    "docs/decisions.md": {"scripts/benchmark_": commands_exist},
    "docs/evaluation.md": {
        '{"request_id"': DecisionRows(),
        '"candidates"': DecisionRows('{"model": "a", {}}'),
        "candidates:": candidates_file,
    },
    "docs/faults.md": {"scripts/check_faults": commands_exist},
    "docs/from-shadow-to-live.md": {"# shadow.yaml": routers_file},
    "docs/gateway.md": {
        "pip install ": installs,
        "client = ": Elsewhere(SDKS, ("anthropic.Anthropic(",)),
        '{"error"': Elsewhere(SDKS, ("x-pointsman-max-latency",)),
        "judge_books_file": gateway_file,
        "scripts/benchmark_": commands_exist,
    },
    "docs/litellm.md": {"import litellm": Elsewhere(SDKS, ("import litellm",))},
    "docs/monitoring.md": {
        "trace ": Elsewhere(
            "tests/test_server_tracing.py",
            ("featurise", "session", "decide", "store", "pointsman.decision_id", "pointsman.probability"),
        )
    },
    "docs/operating.md": {
        "machine 1": LeftOut("three machines; tests/test_several_servers.py has as many servers on one"),
        "docker compose ": LeftOut("takes Docker; tests/test_container_files.py reads the files"),
        "pg_dump ": Elsewhere("tests/test_backup_postgresql.py", ("pg_dump", "pg_restore")),
    },
    "docs/python-client.md": {
        "pip install ": installs,
        # All Python blocks are run one after the other, as one program.
        "import openai": Elsewhere("tests/test_client_sdks.py", ()),
        "def complete": Elsewhere("tests/test_client_sdks.py", ()),
        "with client.route": Elsewhere("tests/test_client_sdks.py", ()),
        "decision.report": Elsewhere("tests/test_client_sdks.py", ()),
        "import asyncio": Elsewhere("tests/test_client_sdks.py", ()),
    },
    "docs/rewards.md": {"scripts/benchmark_": commands_exist},
    "docs/shadow.md": {'{"request_id"': DecisionRows()},
    "docs/speed.md": {
        "scripts/benchmark_": commands_exist,
        "Route, echo": MEASURED,
        "2,000,000 decisions": MEASURED,
        "minute ": MEASURED,
    },
}
"""What holds each block that is no session, by its document and how it begins."""


def checks_of(block: Block) -> list[str]:
    """How the checks are named that hold it: it must be one."""
    return [begins for begins in CHECKS.get(block.document, {}) if block.text.startswith(begins)]


FOUND = [block for document in documents() for block in blocks(document)]
PLAIN = [block for block in FOUND if not block.is_session]


def test_every_block_is_held_by_one_check_and_every_check_holds_one() -> None:
    assert {f"{each.document}:{each.line}": each.text for each in PLAIN if len(checks_of(each)) != 1} == {}
    used = {(each.document, name) for each in PLAIN for name in checks_of(each)}
    assert used == {(document, begins) for document, checks in CHECKS.items() for begins in checks}
    assert {each.document for each in FOUND if each.is_session} == {*SCENES, *ELSEWHERE}


@pytest.mark.parametrize("block", PLAIN, ids=lambda each: f"{each.document}:{each.line}")
def test_a_block_is_right(block: Block, tmp_path: Path) -> None:
    (begins,) = checks_of(block)
    CHECKS[block.document][begins](block, tmp_path)
