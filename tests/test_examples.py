"""The sessions of the documents run, command by command: what succeeds there succeeds, with those tables; what is
refused is refused with those words.
"""

from __future__ import annotations

import gzip
import json
import random
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import grpc
import httpx
import pytest
from engines import PostgreSQL
from locks import Authority
from pointsman.v1 import router_service_pb2 as pb
from pointsman.v1 import router_service_pb2_grpc as router_grpc
from sessions import ADDRESS, BIN, Shell, Step, headers, masked, steps
from standins import standin_aside
from test_server_cli_gateway import gateway_file, gateway_process

T = TypeVar("T")
ROOT = Path(__file__).parent.parent
SEED = 20261125
PATIENCE_SECONDS = 60.0
MODELS = {"small", "medium", "large"}
REPLAYED = {
    "meta-llama/llama-3.1-8b-instruct": (0.55, 3e-5),
    "mistralai/mistral-large-2512": (0.85, 5e-4),
    "google/gemini-2.5-pro": (0.87, 1.5e-2),
}
TWO = """
routers:
  default:
    policy: uniform
    objective: {quality_value_usd: 0.05}
    reward_rule: {join_window_seconds: 2}
    models:
      small: {prices: {usd_per_request: 0.00001}}
      large: {prices: {usd_per_request: 0.0002}}
"""


def write_replay(path: Path, prompts: int, models: dict[str, tuple[float, float]]) -> None:
    """A file for `pointsman replay`: each model has its quality and cost, give or take."""
    drawn = random.Random(SEED)
    with gzip.open(path, "wt") as file:
        for number in range(prompts):
            outcomes = {
                name: {"quality": float(drawn.random() < quality), "cost_usd": cost * drawn.uniform(0.5, 1.5)}
                for name, (quality, cost) in models.items()
            }
            print(
                json.dumps({"prompt": f"question {number} of {drawn.random()}", "outcomes": outcomes}), file=file
            )


def play(shell: Shell, queries: int, **request: str) -> str:
    """Traffic for the server of TWO: half of the questions are hard for the small model. Gives a decision's id."""
    drawn = random.Random(SEED)
    luck = [drawn.random() for _ in range(queries)]
    with grpc.insecure_channel(shell.target) as channel:
        stub = router_grpc.RouterServiceStub(channel)

        def ask(number: int) -> str:
            kind = ("an easy", "a hard")[number % 2]
            decision = stub.Route(pb.RouteRequest(prompt=f"{kind} question, {number}", **request), timeout=60)
            quality = {"large": 0.9, "small": 0.9 - 0.6 * (number % 2)}
            for model, second in ((decision.model, False), (decision.second_model, True)):
                if model:
                    reward = float(luck[number] < quality[model])
                    report = pb.ReportRewardRequest(decision_id=decision.decision_id, reward=reward, second=second)
                    stub.ReportReward(report, timeout=60)
            return str(decision.decision_id)

        with ThreadPoolExecutor(8) as threads:
            decisions = list(threads.map(ask, range(queries)))
    return decisions[0]


def serve(shell: Shell, config: str) -> None:
    (shell.folder / "models.yaml").write_text(config)
    status, output = shell.run("pointsman serve --config models.yaml")
    assert status == 0, output


def prepare_readme(shell: Shell) -> None:
    shell.environment["POINTSMAN_HTTP_PORT"] = "0"
    serve(shell, (ROOT / "examples/models.yaml").read_text())
    (shell.folder / "examples").mkdir()
    program = (ROOT / "examples/quickstart.py").read_text()
    (shell.folder / "examples/quickstart.py").write_text(program.replace(ADDRESS, shell.target))
    (shell.folder / ".venv").symlink_to(BIN.parent)
    write_replay(shell.folder / "benchmarks3.jsonl.gz", 60, REPLAYED)
    write_replay(shell.folder / "mmlu2.jsonl.gz", 60, {"weak": (0.6, 3e-5), "strong": (0.8, 3e-3)})
    (shell.folder / "rules.yaml").write_text("candidates:\n  bold:\n    exploration: {strength: 3}\n")
    certificate, key = Authority(shell.folder).issue()
    shutil.copy(certificate, shell.folder / "chain.pem")
    shutil.copy(key, shell.folder / "key.pem")
    shell.known |= {"STRONG": "google/gemini-2.5-pro", "WEAK": "meta-llama/llama-3.1-8b-instruct"}


def prepare_two(shell: Shell) -> None:
    serve(shell, TWO)
    decision = play(shell, 300)
    shell.known["01a20dffe70b26e3fde8677eadbb1dda"] = decision


def prepare_calibration(shell: Shell) -> None:
    prepare_two(shell)
    shell.known |= {"mistral-large-2512": "large", "llama-3.1-8b-instruct": "small"}


def prepare_shadow(shell: Shell) -> None:
    serve(shell, TWO.replace("policy: uniform", "mode: shadow\n    shadow_explore_share: 0.1"))
    play(shell, 100, incumbent_model="large")
    rows = [
        {"request_id": f"2025-{number}", "prompt": "a question", "model": "large", "propensity": 0.8, "reward": 1}
        for number in range(20)
    ]
    wrong = [{**rows[0], "request_id": "w", "reward": 7}, {**rows[0], "request_id": "x", "model": "gpt-3"}]
    with gzip.open(shell.folder / "history.jsonl.gz", "wt") as file:
        for row in rows + wrong:
            print(json.dumps(row), file=file)


def prepare_way(shell: Shell) -> None:
    guide = (ROOT / "docs/from-shadow-to-live.md").read_text()
    text = guide.split("```yaml\n", 1)[1].split("```", 1)[0]
    (shell.folder / "shadow.yaml").write_text(text)
    live = text.replace("mode: shadow", "mode: live").replace(
        "shadow_explore_share: 0.1", "policy: fixed:google/gemini-2.5-pro"
    )
    (shell.folder / "live.yaml").write_text(live)
    write_replay(shell.folder / "benchmarks3.jsonl.gz", 300, REPLAYED)


def prepare_storage(shell: Shell) -> None:
    router = "routers:\n  slow:\n    reward_rule:\n      join_window_seconds: 172801\n"
    (shell.folder / "routers.yaml").write_text(router)
    prepare_two(shell)


def prepare_gateway(shell: Shell) -> None:
    """A gateway with checks before a stand-in, and an answer of which a user has said something."""
    serve(shell, "routers: {played: {models: {small: {}}}}")
    provider = shell.beside.enter_context(standin_aside())
    checks = {"routers": {"played": {"checks": {"non_empty": True}}}}
    file = gateway_file(shell.folder, provider, default_router="played", **checks)
    started = gateway_process("--config", str(file), "--target", shell.target)
    _, port = shell.beside.enter_context(started)
    shell.known["127.0.0.1:8080"] = f"127.0.0.1:{port}"
    with httpx.Client(base_url=f"http://127.0.0.1:{port}/v1") as client:
        question = {"model": "pointsman", "messages": [{"role": "user", "content": "Is all well?"}]}
        answer = client.post("/chat/completions", json=question).raise_for_status()
        thumb = {"decision_id": answer.headers["x-pointsman-decision-id"], "thumb": "up"}
        client.post("/feedback", json=thumb).raise_for_status()


@dataclass(frozen=True)
class Scene:
    """What a reader has who comes to the sessions of a document: `prepare` makes it.

    By the beginning of a command: `before` is done before it, `shorter` is run instead, `statuses` are not 0.
    Those `by_chance` depend on the traffic, and may be refused by the gate. Those `left_out` are
    benchmarks of minutes.
    """

    prepare: Callable[[Shell], object]
    learned: dict[str, str] = field(default_factory=dict)
    before: dict[str, Callable[[Shell], object]] = field(default_factory=dict)
    shorter: dict[str, str] = field(default_factory=dict)
    statuses: dict[str, int] = field(default_factory=dict)
    by_chance: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


def prepare_console(shell: Shell) -> None:
    shell.environment["POINTSMAN_HTTP_PORT"] = "0"


SCENES = {
    "README.md": Scene(
        prepare_readme,
        learned={
            "pmk_459f...": r"(pmk_\w+)",
            "459fef4bc986": r"pmk_([0-9a-f]+)_",
            "01a22aa517f51c522440e6abe22fb0ab": r'"decisionId":"(\w+)"',
        },
        shorter={"pointsman bench": "pointsman bench --seconds 0.5"},
    ),
    "docs/from-shadow-to-live.md": Scene(
        prepare_way,
        statuses={"diff": 1},
        by_chance=("pointsman policies promote",),
    ),
    "docs/console.md": Scene(prepare_console, learned={"pmk_459f...": r"(pmk_\w+)"}),
    "docs/evaluation.md": Scene(prepare_calibration),
    "docs/gateway.md": Scene(prepare_gateway),
    "docs/operating.md": Scene(prepare_two, left_out=("scripts/benchmark_roles",)),
    "docs/promotion.md": Scene(
        prepare_two, learned={"505": r"│ (\d+) +│ \d{4}-"}, by_chance=("pointsman policies promote",)
    ),
    "docs/shadow.md": Scene(
        prepare_shadow,
        before={"pointsman paid-shadow": lambda shell: play(shell, 100, incumbent_model="large")},
        statuses={"pointsman import": 2},
    ),
    "docs/storage.md": Scene(prepare_storage),
    "docs/why-this-model.md": Scene(prepare_two),
}
ELSEWHERE = {
    "docs/faults.md": "tests/test_faults.py runs a shorter one",
    "docs/http.md": "tests/test_server_http.py runs them",
    "docs/inputs.md": "tests/test_scripts_inputs.py runs a shorter one",
    "docs/monitoring.md": "tests/test_server_logs.py reads such a log",
}


def of(command: str, table: dict[str, T]) -> T | None:
    """What the table has for a command."""
    return next((value for name, value in table.items() if command.startswith(name)), None)


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    shell = Shell(tmp_path)
    with shell.beside:
        yield shell
    shell.stop()


def run(shell: Shell, step: Step, scene: Scene) -> tuple[int, str, list[list[str]]]:
    """The exit status, the output, and the heads of tables that the document shows and the output has not.

    The evaluation comes to what was just reported, or asked for, a moment later, and servers look for revoked keys
    twice a second.
    """
    command = of(step.command, scene.shorter) or step.command
    due = time.monotonic() + PATIENCE_SECONDS
    while True:
        status, output = shell.run(command)
        shown = [set(head) for head in headers(output)]
        missing = [head for head in headers(step.output) if not any(set(head) - MODELS <= each for each in shown)]
        late = (missing or "nothing is known of" in output) and "evaluate" in command
        late = late or ("is revoked" in step.refusal and "is revoked" not in output)
        if not late or time.monotonic() > due:
            return status, output, missing


@pytest.mark.parametrize("name", SCENES)
def test_the_sessions_of_a_document_run(name: str, shell: Shell, request: pytest.FixtureRequest) -> None:
    scene = SCENES[name]
    sessions = steps(ROOT / name)
    if any("postgresql://" in step.command for step in sessions):
        server: PostgreSQL = request.getfixturevalue("postgresql")
        shell.known["postgresql://pointsman@db.internal/pointsman"] = f"'{server.new_database(empty=True)}'"
    scene.prepare(shell)
    shell.learned = scene.learned
    for step in sessions:
        if step.command.startswith(scene.left_out):
            continue
        before = of(step.command, scene.before)
        if before is not None:
            before(shell)
        status, output, missing = run(shell, step, scene)
        told = f"{name}:{step.line}: {step.command}\n{output}"
        if any(step.command.startswith(each) for each in scene.by_chance) and "FAILED_PRECONDITION" in output:
            continue
        if step.refusal:
            assert masked(step.refusal) in masked(output), told
            continue
        assert status == (of(step.command, scene.statuses) or 0), told
        assert missing == [], told
        # What curl is refused comes with the status 0.
        assert '{"code":' not in output, told


def test_every_document_with_a_session_is_run() -> None:
    documents = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]
    assert {str(path.relative_to(ROOT)) for path in documents if steps(path)} == {*SCENES, *ELSEWHERE}


def test_the_program_in_the_readme_is_the_example() -> None:
    assert (ROOT / "examples/quickstart.py").read_text() in (ROOT / "README.md").read_text()
