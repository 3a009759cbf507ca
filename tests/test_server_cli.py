"""The command line as a person or a program meets it: help, bad input in one line, and what commands print."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from servers import POINTSMAN, seeded, serving_process

from server.cli.main import cli

COMMANDS = (
    *((), ("serve",), ("replay",), ("evaluate",), ("bench",), ("verify",), ("models",), ("explain",)),
    *(("shadow",), ("import",), ("keys",), ("completion",), ("backup",), ("gateway",), ("health",)),
    *(("keys", each) for each in ("create", "list", "revoke")),
    *(("models", each) for each in ("list", "add", "update", "remove")),
)
REPLAY_KEYS = {
    *("n", "quality", "cost_usd", "utilization", "hull_quality", "lift", "oracle_quality", "share", "seconds"),
}


def pointsman(*arguments: object, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(POINTSMAN), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=cwd,
        env={**os.environ, "PYTHONWARNINGS": "default", **environment},
    )


def answered(*arguments: object) -> str:
    done = pointsman(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_command_that_only_connects_does_not_load_what_a_server_needs() -> None:
    """A container asks for its health every few seconds, and pays for it each time."""
    program = (
        "import click, sys; from server.cli.main import cli; cli.get_command(click.Context(cli), 'health');"
        "print(sorted({'sqlalchemy', 'pydantic', 'vowpalwabbit'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_every_command_is_called_what_it_is_asked_for_by() -> None:
    context = click.Context(cli)
    found = {name: cli.get_command(context, name) for name in cli.list_commands(context)}
    assert {name: command and command.name for name, command in found.items()} == {name: name for name in found}
    assert cli.get_command(context, "conduct") is None


@pytest.fixture(scope="module")
def replay_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty queries: one model is good and dear, the other cheap."""
    random = seeded("replay file")
    path = tmp_path_factory.mktemp("replay") / "small.jsonl"
    rows = [
        {
            "prompt": f"question {i} about {random.choice(['sums', 'poems'])}",
            "outcomes": {
                "dear": {"quality": random.uniform(0.7, 1.0), "cost_usd": 0.01, "output_tokens": 100},
                "cheap": {"quality": random.uniform(0.0, 0.8), "cost_usd": 0.001},
            },
        }
        for i in range(60)
    ]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """A running server: its address and its database."""
    url = f"sqlite:///{tmp_path_factory.mktemp('server') / 'p.db'}"
    with serving_process("--database-url", url) as (_, port):
        yield f"127.0.0.1:{port}", url


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_explains_itself(command: tuple[str, ...]) -> None:
    told = CliRunner().invoke(cli, [*command, "--help"], catch_exceptions=False)
    assert (told.exit_code, told.stdout.startswith("Usage: "), told.stderr) == (0, True, "")


def test_a_process_explains_itself() -> None:
    assert answered("--help").startswith("Usage: ")


def test_the_version_is_said() -> None:
    assert answered("--version").strip().endswith("0.1.0")


def test_a_command_that_goes_well_says_nothing_beside_its_answer() -> None:
    assert pointsman("--version").stderr == ""


def bad_inputs() -> dict[str, tuple[tuple[object, ...], str]]:
    return {
        "no such command": (("nonsense",), "nonsense"),
        "no such option": (("serve", "--nonsense"), "--nonsense"),
        "missing replay file": (("replay", "none.jsonl"), "none.jsonl"),
        "a folder for a replay file": (("replay", "."), "."),
        "malformed line": (("replay", "bad.jsonl"), "bad.jsonl:2: "),
        "wrong field": (("replay", "wrong.jsonl"), "wrong.jsonl:1: outcomes[a].quality"),
        "missing log": (("evaluate", "none.jsonl"), "none.jsonl"),
        "a line that is no decision": (("evaluate", "good.jsonl"), "good.jsonl:1: model"),
        "candidate": (("evaluate", "good.jsonl", "--candidate", "x=best"), "--candidate x=best: policy"),
        "missing candidates": (("evaluate", "good.jsonl", "--candidates", "none.yaml"), "none.yaml"),
        "policy": (("replay", "good.jsonl", "--policy", "best"), "policy"),
        "budget": (("replay", "good.jsonl", "--budget-usd-per-request", "-1"), "budget_usd_per_request"),
        "not a number": (("replay", "good.jsonl", "--quality-value-usd", "much"), "--quality-value-usd"),
        "router without a server": (("replay", "good.jsonl", "--router", "default"), "--target"),
        "router of a frontier": (
            ("replay", "good.jsonl", "--target", "x:1", "--router", "r", "--frontier"),
            "--router",
        ),
        "seed": (("replay", "good.jsonl", "--seed", "-1"), "--seed"),
        "missing config": (("serve", "--config", "none.yaml"), "none.yaml"),
        "bad config": (("serve", "--port", "0", "--config", "bad.yaml"), "bad.yaml:1: routers.default.colour"),
        "a learner of who never learns": (
            ("serve", "--role", "router", "--learner-process"),
            "POINTSMAN_LEARNER_PROCESS",
        ),
        "bad port": (("serve", "--port", "99999"), "POINTSMAN_PORT"),
        "bad address": (("serve", "--port", "0", "--host", "256.1.1.1"), "256.1.1.1"),
        "bad database url": (("serve", "--port", "0", "--database-url", "nonsense"), "nonsense"),
        "a database in memory": (("serve", "--database-url", "sqlite:///:memory:"), "must name a file"),
        "a database by a URI": (("serve", "--database-url", "sqlite:///file:p.db?uri=true"), "sqlite:///p.db"),
        "a database without a name": (("serve", "--database-url", "sqlite://"), "must name a file"),
        "database that is none": (("serve", "--port", "0", "--database-url", "sqlite:///bad.yaml"), "bad.yaml"),
        "missing database": (("verify", "--database-url", "sqlite:///none.db"), "none.db"),
        "verify of no database": (("verify", "--database-url", "sqlite:///bad.yaml"), "bad.yaml"),
        "verify of a bad url": (("verify", "--database-url", "nonsense"), "nonsense"),
        "unreachable target": (("models", "--target", "127.0.0.1:1", "list"), "127.0.0.1:1"),
        "unreachable server": (("explain", "d", "--target", "127.0.0.1:1"), "127.0.0.1:1"),
        "no decision": (("explain",), "DECISION_ID"),
        "nothing to update": (("models", "update", "a"), "nothing to change"),
        "bench": (("bench", "--seconds", "0"), "--seconds"),
    }


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is absent")
def test_a_shell_completes_the_commands() -> None:
    script = pointsman("completion", "bash").stdout + "\nCOMP_WORDS=(pointsman rep) COMP_CWORD=1\n"
    script += f'_pointsman_completion "{POINTSMAN}" && echo "${{COMPREPLY[@]}}"'
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["replay"]


@pytest.mark.parametrize("what", bad_inputs())
def test_bad_input_exits_with_2_and_one_line_that_names_it(what: str, tmp_path: Path) -> None:
    good = json.dumps({"prompt": "p", "outcomes": {"a": {"quality": 1, "cost_usd": 0.1}}})
    (tmp_path / "good.jsonl").write_text(f"{good}\n{good}\n")
    (tmp_path / "bad.jsonl").write_text(f"{good}\n{good[:-5]}\n")
    (tmp_path / "wrong.jsonl").write_text(good.replace('"quality": 1', '"quality": 2') + "\n")
    (tmp_path / "bad.yaml").write_text("routers: {default: {colour: red}}\n")
    arguments, named = bad_inputs()[what]
    refused(pointsman(*arguments, cwd=tmp_path), named)


def refused(done: subprocess.CompletedProcess[str], named: str) -> None:
    assert "Traceback" not in done.stderr, done.stderr[-1500:]
    assert (done.returncode, len(done.stderr.strip().splitlines())) == (2, 1), done.stderr[-1500:]
    assert done.stderr.strip().startswith("pointsman: ")
    assert named in done.stderr
    assert done.stdout == ""


def test_not_even_an_empty_line_stands_beside_the_error(tmp_path: Path) -> None:
    assert pointsman("replay", "none.jsonl", cwd=tmp_path).stderr.startswith("pointsman: ")


def test_a_bad_setting_in_the_environment_is_named(tmp_path: Path) -> None:
    refused(pointsman("serve", cwd=tmp_path, POINTSMAN_DURABILITY="none"), "POINTSMAN_DURABILITY")


def test_a_port_already_in_use_is_one_line(server: tuple[str, str], tmp_path: Path) -> None:
    port = server[0].rpartition(":")[2]
    done = pointsman(
        "serve", "--port", port, "--database-url", f"sqlite:///{tmp_path / 'x.db'}", POINTSMAN_LOG_LEVEL="ERROR"
    )
    refused(done, port)


def test_serve_stops_in_peace_when_it_is_asked_to(tmp_path: Path) -> None:
    with serving_process("--database-url", f"sqlite:///{tmp_path / 'x.db'}") as (process, _):
        process.terminate()
        assert process.wait(30) == 0


def test_replay_says_what_routing_would_have_earned(replay_file: Path) -> None:
    values = json.loads(answered("replay", replay_file, "--json", "--budget-usd-per-request", "0.005"))
    assert set(values) == REPLAY_KEYS
    assert values["n"] == 30
    assert set(values["share"]) == {"dear", "cheap"}
    assert sum(values["share"].values()) == pytest.approx(1.0)
    assert 0 <= values["quality"] <= values["oracle_quality"] <= 1
    assert values["lift"] == pytest.approx(values["quality"] - values["hull_quality"])
    assert values["utilization"] == pytest.approx(values["cost_usd"] / 0.005)


def test_replay_is_the_same_for_the_same_seed(replay_file: Path) -> None:
    first, again, other = (
        json.loads(answered("replay", replay_file, "--json", "--quality-value-usd", "0.05", "--seed", seed))
        for seed in (5, 5, 6)
    )
    for values in (first, again, other):
        del values["seconds"]
    assert first == again
    assert first != other
    assert first["utilization"] is None


def test_replay_of_a_fixed_model_is_that_models_numbers(replay_file: Path) -> None:
    values = json.loads(answered("replay", replay_file, "--json", "--policy", "fixed:dear"))
    assert values["share"]["dear"] == 1.0
    assert values["cost_usd"] == pytest.approx(0.01)


def test_replay_shows_a_person_the_baselines(replay_file: Path) -> None:
    shown = answered("replay", replay_file)
    for word in ("Pointsman", "hull", "random", "oracle", "always dear", "always cheap", "lift"):
        assert word in shown


def test_replay_draws_its_frontier(replay_file: Path, tmp_path: Path) -> None:
    picture = tmp_path / "frontier.png"
    shown = answered("replay", replay_file, "--json", "--budgets", 2, "--seeds", 1, "--plot", picture)
    values = json.loads(shown)
    assert len(values["points"]) == 2
    assert {"mean_lift", "worst_lift", "fixed", "oracle_quality"} <= set(values)
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_replay_plays_through_a_running_server(replay_file: Path, server: tuple[str, str]) -> None:
    values = json.loads(answered("replay", replay_file, "--json", "--target", server[0]))
    assert set(values) == REPLAY_KEYS
    assert values["n"] == 30


def test_models_are_listed_added_changed_and_removed(server: tuple[str, str]) -> None:
    def models(*arguments: object) -> str:
        return answered("models", "--target", server[0], *arguments)

    added = ("--input-price", "1.5", "--output-price", "2", "--capability", "tools", "--capability", "json")
    assert models("add", "openai/gpt", *added).strip() == "routers/default/models/openai/gpt"
    models("update", "openai/gpt", "--input-price", "0", "--state", "disabled")
    (listed,) = json.loads(models("list", "--json"))
    assert listed["prices"] == {"output_usd_per_million_tokens": 2.0}
    assert (listed["state"], listed["capabilities"]) == ("MODEL_STATE_DISABLED", ["tools", "json"])
    assert "openai/gpt" in models("list")
    refused(pointsman("models", "--target", server[0], "add", "openai/gpt"), "ALREADY_EXISTS")
    models("remove", "openai/gpt")
    assert json.loads(models("list", "--json")) == []
    refused(pointsman("models", "--target", server[0], "remove", "openai/gpt"), "NOT_FOUND")


def test_verify_passes_on_the_log_of_a_server_that_runs(replay_file: Path, server: tuple[str, str]) -> None:
    answered("replay", replay_file, "--json", "--target", server[0])
    values = json.loads(answered("verify", "--json", "--database-url", server[1]))
    assert values["decisions"] >= 60
    assert (values["draws_wrong"], values["snapshots_wrong"]) == (0, 0)


def test_only_commands_that_learn_or_decide_load_what_compiles() -> None:
    """It takes more than a second of the processor."""
    code = (
        "import sys, click; from server.cli.main import cli; context = click.Context(cli);"
        "loading = {'calibrate', 'replay', 'serve', 'verify'};"
        "assert all(cli.get_command(context, each) for each in {*cli.list_commands(context)} - loading);"
        "print({'numba', 'vowpalwabbit', 'wordllama'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == "set()\n"
