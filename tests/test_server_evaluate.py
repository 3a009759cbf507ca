"""pointsman evaluate: reading logs, saying what is wrong with them, and showing what they tell."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from servers import seeded

from policy.candidates import CandidateSpec, Rule, Threshold
from policy.domain import LearnerKind, ModelError, Router, RouterSpec
from policy.features import Featuriser
from policy.log import DecisionRecord
from server.cli.evaluate import evaluate
from server.cli.replay import replay
from server.config_file import ConfigError
from server.evaluate.candidates_file import read_candidates
from server.evaluate.log_file import LogFile, LogFileError
from server.evaluate.source import Logged
from server.json_lines import UnreadableFileError
from server.rows.file import RowFile


def line(**changes: Any) -> dict[str, Any]:
    made = {
        "prompt": "how many?",
        "model": "a",
        "candidates": {"a": 0.75, "b": 0.25},
        "reward": 1.0,
        "cost_usd": 0.001,
    }
    return {name: value for name, value in {**made, **changes}.items() if value is not None}


def lines(count: int) -> list[dict[str, Any]]:
    """Model b is better and dearer."""
    random = seeded("log")
    found = []
    for number in range(count):
        model = "a" if random.random() < 0.75 else "b"
        good = random.random() < (0.5 if model == "a" else 0.9)
        cost = 0.001 if model == "a" else 0.002
        topic = "math" if number % 2 else "poems"
        found.append(
            line(
                model=model,
                reward=float(good),
                cost_usd=cost,
                categorical={"topic": topic},
                numeric={"length": number % 7},
                incumbent_model="a",
            )
        )
    return found


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    text = "\n".join(map(json.dumps, rows)) + "\n"
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return path


def read(path: Path, name: str | None = None, featuriser: Featuriser | None = None) -> list[Logged]:
    return list(LogFile(RowFile(path), Router("log", RouterSpec()), name, featuriser))


def decisions(path: Path) -> list[DecisionRecord]:
    return [each.decision for each in read(path)]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(evaluate, [str(each) for each in arguments])


def test_a_line_becomes_a_decision_and_its_report(tmp_path: Path) -> None:
    row = line(
        request_id="d-1",
        categorical={"topic": "math"},
        numeric={"length": 3},
        incumbent_model="b",
        latency_seconds=0.5,
        sticky=True,
        served_model="b",
        error="timeout",
    )
    (logged,) = read(written(tmp_path / "log.jsonl.gz", [row]))
    decision, (report,) = logged.decision, logged.reports
    assert [(each.model, each.probability) for each in decision.choice.candidates] == [("a", 0.75), ("b", 0.25)]
    assert (decision.decision_id, decision.choice.model, decision.choice.sticky) == ("d-1", "a", True)
    assert (dict(decision.categorical), dict(decision.numeric)) == ({"topic": "math"}, {"length": 3.0})
    assert decision.incumbent_model == "b"
    assert (report.learned_reward, report.charged_usd, report.latency_seconds) == (1.0, 0.001, 0.5)
    assert (report.subject, report.error) == ("b", ModelError.TIMEOUT)
    assert report.seq > decision.seq


def test_what_was_not_predicted_is_the_mean_of_what_came_before(tmp_path: Path) -> None:
    rows = [line(reward=0.2, cost_usd=0.002), line(reward=0.4, cost_usd=0.004), line()]
    first, second, third = decisions(written(tmp_path / "log.jsonl", rows))
    of_a = [each.choice.candidates[0] for each in (first, second, third)]
    assert [each.quality for each in of_a] == pytest.approx([0.5, 0.2, 0.3])
    assert [each.cost_usd for each in of_a] == pytest.approx([math.nan, 0.002, 0.003], nan_ok=True)


def test_what_was_predicted_and_excluded_is_taken_from_the_line(tmp_path: Path) -> None:
    said = {
        "a": {"propensity": 1.0, "quality": 0.7, "cost_usd": 0.01, "latency_seconds": 2.0, "score": 0.6},
        "b": {"excluded": True},
    }
    (decision,) = decisions(written(tmp_path / "log.jsonl", [line(candidates=said)]))
    a, b = decision.choice.candidates
    assert (a.quality, a.cost_usd, a.latency_seconds, a.score) == (0.7, 0.01, 2.0, 0.6)
    assert b.exclusion is not None
    assert (b.probability, decision.choice.probability) == (0.0, 1.0)


def test_models_are_added_as_the_lines_name_them(tmp_path: Path) -> None:
    rows = [line(candidates=None, propensity=0.5), line(model="b", candidates=None, propensity=0.5)]
    first, second = read(written(tmp_path / "log.jsonl", rows))
    assert [each.id for each in first.router.models] == ["a"]
    assert [each.id for each in second.router.models] == ["a", "b"]
    known = [each.probability for each in second.decision.choice.candidates]
    assert known[0] != known[0]  # Not known.
    assert known[1] == 0.5


def test_only_the_routers_decisions_are_read_and_several_have_to_be_told_apart(tmp_path: Path) -> None:
    path = written(tmp_path / "log.jsonl", [line(router="x"), line(router="y"), line(router="x")])
    assert len(read(path, "x")) == 2
    with pytest.raises(LogFileError, match=r":2: router: is 'y' and was 'x'"):
        read(path)
    with pytest.raises(LogFileError, match="no decisions of 'z'"):
        read(path, "z")


def test_features_are_made_only_for_those_who_learn(tmp_path: Path, featuriser: Featuriser) -> None:
    path = written(tmp_path / "log.jsonl", [line(embedding=[1.0, 0.0, 0.0]), line(embedding=[0.0, 1.0, 0.0])])
    assert all(len(each.features) == 0 for each in decisions(path))
    featured = read(path, None, featuriser)
    assert featured[0].router.spec.embedding_dimensions == 3
    whole = featured[1].decision.features.tolist()
    assert whole[:3] == [0.0, 1.0, 0.0]
    as_they_are = read(written(tmp_path / "whole.jsonl", [line(prompt=None, features=whole)]), None, featuriser)
    assert as_they_are[0].decision.features.tolist() == whole
    assert as_they_are[0].router.spec.embedding_dimensions == 3


@pytest.mark.parametrize(
    ("row", "named"),
    [
        ("{", "line: is not JSON"),
        ('{"reward": ' + "1" * 5000 + "}", "line: is not JSON"),
        ("{" * 100_000, "line: is not JSON"),
        ([], "line: must be an object, not a list"),
        (line(model=None), "model: must be there"),
        (line(model=""), "candidates: must have the chosen model ''"),
        (line(model=" x", candidates=None), "model: must be 1 to 127"),
        (line(model=3), "model: must be a text, not a whole number"),
        (line(reward=2), "reward: must be a number <= 1.0"),
        (line(reward="good"), "reward: must be a number, not a text"),
        (line(reward=True), "reward: must be a number, not true or false"),
        (line(cost_usd=-1), "cost_usd: must be a number >= 0.0"),
        (line(input_tokens=1.5), "input_tokens: must be a number that's a multiple of 1.0"),
        (line(candidates={"a": 0.7, "b": 0.7}), "candidates: must have propensities with a sum of 1"),
        (
            line(candidates={"a": 0.0, "b": 1.0}),
            "candidates: must have propensities with a sum of 1, and one above",
        ),
        (line(candidates={"a": 0.5, " ": 0.5}), "candidates: must be 1 to 127"),
        (line(candidates=None, propensity=5e-324), "propensity: must be 1e-12 or more"),
        (line(candidates={"a": {"excluded": True}}), "candidates: must have one that"),
        (line(candidates={"a": 2}), "candidates[a]: must be a number <= 1.0"),
        (line(candidates=["a", "a"]), "candidates: must name each model once"),
        (line(candidates=["a", {"propensity": 0.5}]), "candidates[1].model: must be there"),
        (line(candidates=[{"model": "a", "odds": 1}]), "candidates[0].odds: is no field of a candidate"),
        (line(candidates={"a": {"model": "b"}}), "candidates[a].model: must be 'a' or not there"),
        (line(propensity=0.5), "propensity: must be the candidate's 0.75, not 0.5"),
        (line(propensity=1.5), "propensity: must be a number <= 1.0"),
        (line(candidates={"b": {}}), "candidates: must have the chosen model 'a'"),
        (line(candidates={"b": 0.5, "a": "x"}), "candidates[a]: must be a number or an object, not a text"),
        (line(candidates={"a": {"quality": "x"}}), "candidates[a].quality: must be a number, not a text"),
        (line(categorical={"topic": [1]}), "categorical[topic]: must be a whole number or a text, not a list"),
        (line(numeric={"length": 10**400}), "numeric[length]: is refused: number out of range"),
        (line(numeric={"size": 1, "length": "long"}), "numeric[length]: must be a number, not a text"),
        (line(embedding=[]), "embedding: must be a list of length >= 1"),
        (line(embedding=[0.5, None]), "embedding[1]: must be a number, not null"),
        (line(embedding=[1.0]), "embedding: must have 2 numbers"),
        (line(sticky=1), "sticky: must be true or false, not a whole number"),
        (line(categorical=[]), "categorical: must be an object, not a list"),
        (line(error="boom"), "error: must be one of unavailable, timeout"),
        (line(time="yesterday"), "time: must be a time with its zone, as 2026-01-31T12:00:00Z"),
        (line(time="2026-01-02T03:04:05"), "time: must be a time with its zone"),
        (line(time=-1), "time: must be a number >= 0.0"),
    ],
)
def test_a_bad_line_is_named_with_its_field(row: Any, named: str, tmp_path: Path) -> None:
    text = row if isinstance(row, str) else json.dumps(row)
    path = tmp_path / "log.jsonl"
    path.write_text(json.dumps(line(embedding=[1.0, 0.0])) + "\n" + text + "\n")
    with pytest.raises(LogFileError) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}:2: {named}"), caught.value
    done = run(path)
    assert done.exit_code != 0
    assert named in done.output


def test_a_file_that_is_none_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "bytes.jsonl").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(json.dumps(line()).encode() * 9)[:-9])
    (tmp_path / "empty.jsonl").write_text("")
    for name, message in {
        "none.jsonl": "cannot be read",
        "bytes.jsonl": "is not UTF-8",
        "cut.jsonl.gz": "cannot be read",
        "empty.jsonl": "has no decisions",
    }.items():
        with pytest.raises(UnreadableFileError, match=message):
            read(tmp_path / name)


def test_an_incumbent_that_was_excluded_and_obeyed_keeps_its_propensity(tmp_path: Path) -> None:
    obeyed = {"a": {"excluded": True, "propensity": 0.9}, "b": {"propensity": 0.1}}
    path = written(tmp_path / "log.jsonl", [line(candidates=obeyed, proposed_model="b")])
    (decision,) = decisions(path)
    assert decision.choice.probability == 0.9
    assert run(path).exit_code == 0


def test_with_a_budget_alone_the_price_of_money_has_to_be_in_the_log(tmp_path: Path) -> None:
    path = written(tmp_path / "log.jsonl", [line()])
    assert "price_of_money" in run(path, "--budget-usd-per-request", "0.001").output
    priced = written(tmp_path / "priced.jsonl", [line(price_of_money=20.0)])
    assert run(priced, "--budget-usd-per-request", "0.001").exit_code == 0


def test_a_log_without_costs_says_nothing_of_cost_and_utility(tmp_path: Path) -> None:
    free = [line(cost_usd=None, model=model) for model in "abab"]
    found = json.loads(run(written(tmp_path / "log.jsonl", free), "--json").output)
    (fixed,) = [each for each in found["candidates"] if each["id"] == "fixed:a"]
    assert fixed["estimates"]["quality"]["events"] == 4
    assert fixed["estimates"]["cost_usd"]["missing"] == fixed["estimates"]["utility"]["missing"] == 4
    assert fixed["estimates"]["cost_usd"]["dr"]["candidate"]["value"] is None


def test_a_log_is_not_written_over_the_file_that_is_played(tmp_path: Path) -> None:
    path = tmp_path / "world.jsonl"
    path.write_text("{}")
    done = CliRunner().invoke(replay, [str(path), "--log", str(path)])
    assert "--log: is FILE itself" in done.output
    assert path.read_text() == "{}"


def test_candidates_are_read_from_yaml(tmp_path: Path) -> None:
    path = tmp_path / "candidates.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "candidates": {
                    "short": "threshold:b:a:0.1",
                    "math": {
                        "policy": "fixed:a",
                        "rules": [{"feature": "topic", "equals": "math", "model": "b"}],
                    },
                    "vw": {"learner": "vowpal_wabbit", "exploration": {"strength": 2.0}},
                }
            }
        )
    )
    math, short, vw = read_candidates(path)  # In the order of the file, which is sorted.
    assert short == CandidateSpec("short", threshold=Threshold("b", "a", 0.1))
    assert math == CandidateSpec("math", policy="fixed:a", rules=(Rule("topic", "b", equals="math"),))
    assert vw.learner is LearnerKind.VOWPAL_WABBIT


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("routers: {}", "candidates: must be the one key"),
        ("candidates: []", "candidates: must be a mapping"),
        ("candidates: {x: best}", "candidates.x.policy"),
        ("candidates: {x: 3}", "candidates.x: must be a short form"),
        ("candidates: {x: {colour: red}}", "candidates.x.colour"),
        ("candidates: {x: {rules: [{feature: f, model: a}]}}", "candidates.x.rule"),
    ],
)
def test_a_bad_candidates_file_is_named_with_the_field(text: str, named: str, tmp_path: Path) -> None:
    path = tmp_path / "candidates.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_candidates(path)
    assert str(caught.value).startswith(f"{path}:1: {named}"), caught.value


def test_the_league_says_which_candidate_is_better_and_draws_it(tmp_path: Path) -> None:
    path = written(tmp_path / "log.jsonl", lines(1500))
    picture = tmp_path / "league.png"
    done = run(path, "--candidate", "b=fixed:b", "--candidate", "b=x", "--json")
    assert "--candidate b=x" in done.output
    done = run(path, "--candidate", "always-b=fixed:b", "--candidate", "uniform", "--json", "--plot", picture)
    assert done.exit_code == 0, done.output
    found = json.loads(done.output)
    by_id = {each["id"]: each for each in found["candidates"]}
    assert (found["settled"], found["level"]) == (1500, 0.95)
    assert by_id["always-b"]["verdict"]["outcome"] == "passed"
    assert by_id["fixed:a"]["verdict"]["outcome"] == "failed"
    low, high = by_id["always-b"]["estimates"]["quality"]["dr"]["candidate"]["interval"]
    # 2.6 margins of 95 % are five standard errors: a false alarm in a million.
    assert abs((low + high) / 2.0 - 0.9) < 2.6 * (high - low) / 2.0
    assert not by_id["uniform"]["comparator"]
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_the_table_is_for_a_person(tmp_path: Path) -> None:
    rows = [*lines(300), line(sticky=True), line(cost_usd=9.0)]
    path = written(tmp_path / "log.jsonl", rows)
    config = tmp_path / "candidates.yaml"
    config.write_text("candidates: {gap: 'threshold:b:a:0.1'}")
    done = run(path, "--candidates", config, "--quality-value-usd", "0.1")
    assert done.exit_code == 0, done.output
    assert "301 of 302 decisions settled" in done.output
    assert "Left out: 1 sticky." in done.output
    assert "Clipped: " in done.output
    assert "gap: " in done.output


def test_a_picture_of_no_known_kind_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "log.jsonl", lines(20))
    assert "--plot" in run(path, "--plot", tmp_path / "league.nonsense").output


def test_what_replay_logs_can_be_evaluated(tmp_path: Path) -> None:
    random = seeded("replay")
    rows = [
        {
            "prompt": f"question {number}",
            "outcomes": {
                "a": {"quality": random.random() * 0.5, "cost_usd": 0.001},
                "b": {"quality": 0.5 + random.random() * 0.5, "cost_usd": 0.002},
            },
        }
        for number in range(200)
    ]
    file = written(tmp_path / "replay.jsonl", rows)
    for name in ("log.jsonl", "log.jsonl.gz"):
        log = tmp_path / name
        done = CliRunner().invoke(replay, [str(file), "--policy", "uniform", "--log", str(log), "--json"])
        assert done.exit_code == 0, done.output
        logged = decisions(log)
        assert len(logged) == 200
        assert {each.choice.probability for each in logged} == {0.5}
        chosen = logged[-1].choice.model
        assert json.loads(_text(log).splitlines()[-1])["model"] == chosen
    done = run(log, "--candidate", "learned", "--json")
    assert done.exit_code == 0, done.output
    assert "learned" in {each["id"] for each in json.loads(done.output)["candidates"]}
    refused = CliRunner().invoke(replay, [str(file), "--log", str(log), "--frontier"])
    assert "--log" in refused.output


def _text(path: Path) -> str:
    return gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text()
