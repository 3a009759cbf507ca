"""Candidates on the command line: pointsman policies, and pointsman evaluate of a running server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import serving_process
from test_server_cli import answered, pointsman


@pytest.fixture
def target(tmp_path: Path) -> Iterator[str]:
    with serving_process("--database-url", f"sqlite:///{tmp_path / 'p.db'}") as (_, port):
        yield f"127.0.0.1:{port}"


@pytest.mark.parametrize("command", ["create", "list", "get", "retire", "promote", "history"])
def test_every_command_explains_itself(command: str) -> None:
    assert answered("policies", command, "--help").startswith("Usage: ")


def test_a_candidate_is_created_shown_and_retired(target: str, tmp_path: Path) -> None:
    answered("models", "--target", target, "add", "small")
    said = answered("policies", "--target", target, "create", "cheap", "cheapest")
    assert said.strip() == "routers/default/policies/cheap"
    listed = tmp_path / "candidates.yaml"
    listed.write_text("candidates: {cut: 'threshold:small:other:0.1', mine: {learner: vowpal_wabbit}}")
    for name in ("cut", "mine"):
        answered("policies", "--target", target, "create", name, "--file", listed)
    answered("policies", "--target", target, "retire", "cheap", "--reason", "too cheap")
    rows = json.loads(answered("policies", "--target", target, "list", "--json"))
    states = {each["name"].rpartition("/")[2]: each["state"].removeprefix("POLICY_STATE_") for each in rows}
    assert states == {"cheap": "RETIRED", "cut": "SHADOW", "mine": "SHADOW"}
    assert "threshold:small:other:0.1" in answered("policies", "--target", target, "list")
    mine = json.loads(answered("policies", "--target", target, "get", "mine"))
    assert mine["learner"] == "LEARNER_VOWPAL_WABBIT"
    refused = pointsman("policies", "--target", target, "promote", "mine", "--to", "canary", "--share", 0.1)
    assert (refused.returncode, "NOT_PROMOTABLE" in refused.stderr, "refused" in refused.stderr) == (
        2,
        False,
        True,
    )
    forced = ("promote", "mine", "--to", "canary", "--share", 0.1, "--force", "--reason", "a try")
    assert answered("policies", "--target", target, *forced) == "routers/default/policies/mine is canary\n"
    history = json.loads(answered("policies", "--target", target, "history", "--json"))
    assert (history[-1]["to_state"], history[-1]["forced"]) == ("POLICY_STATE_CANARY", True)
    assert "a try" in answered("policies", "--target", target, "history")
    found = json.loads(answered("evaluate", "--server", target, "--json"))
    assert {"cut", "mine", "uniform", "fixed:small"} <= {each["id"] for each in found["candidates"]}
    table = answered("evaluate", "--server", target)
    assert "refused: no_events" in table
    assert "mine: refused." in table


def test_bad_input_is_one_line_and_exit_code_2(target: str) -> None:
    for arguments in (
        ("policies", "--target", target, "create", "x"),
        ("policies", "--target", target, "create", "x", "clever"),
        ("policies", "--target", target, "create", "uniform", "uniform"),
        ("policies", "--target", target, "get", "none"),
        ("evaluate",),
        ("evaluate", "file.jsonl", "--server", target),
        ("evaluate", "--server", target, "--router", "none"),
    ):
        done = pointsman(*arguments)
        assert (done.returncode, done.stdout) == (2, ""), arguments
        assert done.stderr.startswith("pointsman: ")
        assert done.stderr.count("\n") == 1
