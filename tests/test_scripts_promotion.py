"""The benchmark of promotions: a policy that turns bad is left soon, a good one is not, and the table says so."""

from __future__ import annotations

from click.testing import CliRunner

from scripts.promotion.command import main
from scripts.promotion.world import GOOD_DECISIONS, Outcomes, Promotion


def test_a_policy_that_turns_bad_is_left_within_300_decisions() -> None:
    for seed in range(3):
        played = Promotion(seed, 0.1, sequences=False)
        assert played.until_left(Outcomes(), GOOD_DECISIONS) is None
        left = played.until_left(Outcomes(quality=0.5), 300)
        assert left is not None
        assert left.by_guard


def test_the_sequences_may_end_a_run_as_well() -> None:
    played = Promotion(1, 0.5, sequences=True)
    left = played.until_left(Outcomes(quality=0.0, cost_usd=0.05), 300)
    assert left is not None


def test_the_table_has_a_row_for_each_change() -> None:
    done = CliRunner().invoke(
        main, ["--runs", "1", "--quiet-runs", "1", "--quiet-decisions", "50", "--guard-alone"]
    )
    assert done.exit_code == 0, done.output
    rows = [line for line in done.output.splitlines() if line.startswith("| ")]
    assert len(rows) == 2 + 10 + 2
    assert "left in 0 of 1 runs of 50" in done.output
