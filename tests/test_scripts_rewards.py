"""The benchmark of rewards: its world tells what it says it tells, and its table has a row for each case."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from builders import model, router, vector
from click.testing import CliRunner

from policy.simulation import Arrival, Outcome, Round
from scripts.rewards.command import main
from scripts.rewards.world import JUDGE, THUMBS, Feedback, SignalWorld

ROUNDS = 4000


def world(feedback: Feedback, quality: float = 0.75, seed: int = 1) -> SignalWorld:
    outcomes = {name: Outcome(quality, 0.001) for name in "ab"}
    return SignalWorld(
        router([model("a", 1), model("b", 2)]), [Round(vector(), 9.0, outcomes)] * ROUNDS, feedback, seed
    )


def told(of: SignalWorld, signal: str, name: str = "a") -> list[Arrival]:
    """What one signal says of one model over all rounds."""
    return [each for row in range(ROUNDS) for each in of.arrivals(row, name) if signal in each.signals]


@pytest.mark.parametrize("quality", [0.0, 0.125, 0.75, 1.0])
def test_a_judge_sees_its_share_at_once_and_is_right_in_the_mean(quality: float) -> None:
    """A share of 4,000 has a standard error of 0.008, and a mean of 2,000 scores one of 0.004: chance passes
    five of them less than once in 1,000,000 seeds.
    """
    found = told(world(Feedback(0.5), quality), JUDGE)
    scores = [each.signals[JUDGE] for each in found]
    assert {each.delay for each in found} == {0}
    assert len(found) / ROUNDS == pytest.approx(0.5, abs=0.04)
    assert np.mean(scores) == pytest.approx(quality, abs=0.02)
    assert all(0.0 <= score <= 1.0 for score in scores)


def test_a_judge_that_leans_scores_so_much_lower() -> None:
    scores = [each.signals[JUDGE] for each in told(world(Feedback(0.5, judge_lean=-0.25)), JUDGE)]
    assert np.mean(scores) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(("up_share", "ups"), [(1.0, 0.75), (1 / 3, 0.5), (0.0, 0.0)])
def test_thumbs_are_later_and_fewer_on_good_answers_by_the_share(up_share: float, ups: float) -> None:
    """Of at least 500 thumbs the share that is up has a standard error of at most 0.022."""
    found = told(world(Feedback(0.5, up_share=up_share)), THUMBS)
    assert len(found) / ROUNDS == pytest.approx(0.5 * (0.25 + 0.75 * up_share), abs=0.04)
    assert np.mean([each.signals[THUMBS] for each in found]) == pytest.approx(ups, abs=0.11)
    assert min(each.delay for each in found) >= 1
    assert np.mean([each.delay for each in found]) == pytest.approx(200.0, abs=50.0)


def test_usage_comes_at_once_whatever_else_is_missing() -> None:
    of = world(Feedback(0.9, judged=0.0))
    assert all(of.arrivals(row, "a")[0].usage is not None for row in range(50))


def test_what_is_told_follows_from_the_seed_and_differs_between_models() -> None:
    once, again, other = (world(Feedback(0.5), seed=seed) for seed in (3, 3, 4))
    assert told(once, THUMBS) == told(again, THUMBS)
    assert told(once, THUMBS) != told(other, THUMBS)
    assert told(once, THUMBS) != told(once, THUMBS, "b")


def test_the_table_has_a_row_for_the_yardstick_and_for_each_rule(tmp_path: Path) -> None:
    path = tmp_path / "small.jsonl.gz"
    outcomes = {"cheap": {"quality": 0.5, "cost_usd": 0.001}, "org/dear": {"quality": 1.0, "cost_usd": 0.004}}
    rows = [json.dumps({"prompt": f"question {row}", "outcomes": outcomes}) for row in range(60)]
    path.write_bytes(gzip.compress("\n".join(rows).encode()))
    done = CliRunner().invoke(main, [str(path), "--seeds", "1", "--missing", "0.5"])
    assert done.exit_code == 0, done.output
    head, _, *body = done.stdout.splitlines()
    assert "bias of dear" in head
    names = [line.split("|")[2].strip() for line in body]
    assert names == ["the quality itself", "first", "last", "mean", "weighted", "first, if missing 0.5"]


def test_a_file_that_is_no_replay_file_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text("{}\n{}\n")
    done = CliRunner().invoke(main, [str(path)])
    assert (done.exit_code, done.stdout) == (2, "")
    assert f"{path}:1: prompt" in done.stderr
