"""The benchmark of the core: both contestants play the same rounds, and learn from them."""

from __future__ import annotations

import numpy as np
import pytest
from click.testing import CliRunner

from scripts.core.command import main
from scripts.core.contestants import Rounds, played, pointsman
from scripts.decisions.pareto import why_missing


def test_the_same_seed_gives_the_same_rounds() -> None:
    first, again = (Rounds.drawn(50, 26, 3, seed=7) for _ in range(2))
    assert np.array_equal(first.contexts, again.contexts)
    assert np.array_equal(first.rewards, again.rewards)
    assert not np.array_equal(first.rewards, Rounds.drawn(50, 26, 3, seed=8).rewards)


def test_what_is_timed_learns() -> None:
    rounds = Rounds.drawn(1500, 26, 3, seed=1)
    play = pointsman(rounds, page=16)
    early = played(play, range(300))
    played(play, range(300, 1200))
    assert played(play, range(1200, 1500)) > early
    assert played(pointsman(rounds, page=16), range(300)) == early, "the same rounds give the same rewards"


@pytest.mark.parametrize("features", [26, 64])
def test_every_contestant_has_a_line_for_each_size(features: int) -> None:
    done = CliRunner().invoke(main, ["--rounds", "1000", "--features", str(features)])
    assert done.exit_code == 0, done.output
    lines = [line for line in done.output.splitlines() if "rounds/s" in line]
    names = ["Pointsman"] if why_missing() else ["Pointsman", "ParetoBandit"]
    assert [line.split()[0] for line in lines] == names
    assert all(f" {features} features" in line for line in lines)
