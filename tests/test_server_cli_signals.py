"""`pointsman signals` on a real log."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from servers import POINTSMAN, Running


def run(running: Running, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(POINTSMAN), "signals", "--database-url", running.url, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


async def test_each_signal_is_compared_with_the_rewards_of_the_same_answers(server: Running) -> None:
    await server.create_models(small={}, large={})
    for number in range(20):
        decision = await server.route(prompt="Is all well?")
        thumb = float(number % 2)
        if number < 16:
            await server.report(decision, reward=thumb, signals={"feedback": thumb})
        await server.report(decision, signals={"judge": 0.2 + 0.5 * thumb, "check_non_empty": 1.0})
        # About an answer of another model, of which no user has said anything.
        other = "large" if decision.model == "small" else "small"
        await server.report(decision, signals={"judge": 1.0 - thumb}, served_model=other)

    done = run(server, "--json")
    found: dict[str, Any] = json.loads(done.stdout)
    assert list(found) == ["check_non_empty", "judge"]
    judge = found["judge"]
    assert judge["pairs"] == 16
    assert (round(judge["signal_mean"], 9), judge["reward_mean"]) == (0.45, 0.5)
    assert abs(judge["difference"]["value"] + 0.05) < 1e-12
    assert judge["difference"]["low"] < -0.05 < judge["difference"]["high"]
    assert abs(judge["correlation"]["value"] - 1.0) < 1e-12
    assert found["check_non_empty"]["correlation"] == {"value": None, "low": None, "high": None}
    shown = run(server).stdout
    assert "judge" in shown
    assert "-0.050 (" in shown


async def test_without_any_it_says_so_and_an_unknown_router_has_none(server: Running) -> None:
    await server.create_models(small={})
    decision = await server.route(prompt="Is all well?")
    await server.report(decision, signals={"judge": 1.0})
    for router in ("default", "nothing"):
        done = run(server, "--router", router)
        assert done.stdout == f"no answer of routers/{router} has both a signal and a reward\n"
