"""The benchmark of the gateway beside LiteLLM's proxy, in its shortest form."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from scripts.gateway.overhead import main
from scripts.gateway.rivals import BARE, GATEWAY, PROXY

SHORT = ("--requests", "6", "--turns", "2", "--connections", "2")


def proxy() -> Path:
    """LiteLLM's command in the environment that scripts/benchmark_overhead makes, or where the variable says."""
    made = Path(__file__).parents[1] / ".venv/litellm-proxy/bin/litellm"
    found = Path(os.environ.get("POINTSMAN_TEST_LITELLM_PROXY") or made)
    if not found.exists():
        pytest.skip(f"needs litellm[proxy]: there is no {found}, which scripts/benchmark_overhead installs")
    return found


def run(tmp_path: Path, *given: str) -> tuple[str, list[dict[str, Any]]]:
    path = tmp_path / "figures.json"
    done = CliRunner().invoke(main, [*SHORT, "--json", str(path), *given], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output, json.loads(path.read_text())


def test_without_the_proxy_the_provider_and_the_gateway_are_measured_whole_and_streaming(tmp_path: Path) -> None:
    shown, figures = run(tmp_path)
    assert [(each["rival"], each["stream"]) for each in figures] == [
        (BARE, False),
        (GATEWAY, False),
        (BARE, True),
        (GATEWAY, True),
    ]
    for each in figures:
        assert each["requests"] == 12
        assert 0 < each["p50_ms"] <= each["p99_ms"]
        assert each["requests_per_second"] > 0
    assert shown.count(f"| {GATEWAY} |") == 2
    assert PROXY not in shown


@pytest.mark.slow
def test_with_the_proxy_the_gateway_is_shown_beside_it(tmp_path: Path) -> None:
    shown, figures = run(tmp_path, "--proxy", str(proxy()))
    assert {each["rival"] for each in figures} == {BARE, PROXY, GATEWAY}
    assert f"| {GATEWAY} of {PROXY} | connections | p50 | p99 | requests/s | processor |" in shown
    assert shown.splitlines()[-1].startswith("| streams | 2 | ")
