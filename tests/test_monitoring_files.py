"""The dashboard and the alert rules ask for what is there: a real Prometheus answers them from a real server."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
import yaml
from http_calls import free_port
from prometheus_client.parser import text_string_to_metric_families
from servers import Running, eventually, refusal, running_app, seeded
from test_server_evaluation_loop import create, evaluated, traffic
from test_server_metrics import page

from policy.features import Featuriser

ROOT = Path(__file__).parents[1]
FILES = ROOT / "deploy" / "monitoring"
DASHBOARD = json.loads((FILES / "grafana-dashboard.json").read_text())
RULES = [
    rule for group in yaml.safe_load((FILES / "alerts.yaml").read_text())["groups"] for rule in group["rules"]
]
# Of Prometheus itself, and of what a traffic of seconds does not bring about.
NOT_OURS = {"up", "ALERTS"}
NOT_YET = ("pointsman_canary_share", "pointsman_period_", "pointsman_views_lag_records")

needs_promtool = pytest.mark.skipif(not shutil.which("promtool"), reason="needs promtool, of Debian's prometheus")
needs_prometheus = pytest.mark.skipif(not shutil.which("prometheus"), reason="needs Debian's prometheus")


def panels() -> list[dict[str, Any]]:
    """All that show something."""
    return [each for each in DASHBOARD["panels"] if each["type"] != "row"]


def queries() -> dict[str, str]:
    """What the panels ask for, by their titles, with the dashboard's variables filled in."""
    filled = {"$__rate_interval": "1m", "$router": ".*", "$instance": ".*"}
    return {
        f"{panel['title']} {target['refId']}": re.sub(
            r"\$\w+", lambda found: filled[found.group()], target["expr"]
        )
        for panel in panels()
        for target in panel["targets"]
    }


def expressions() -> list[str]:
    return [*queries().values(), *(rule["expr"] for rule in RULES)]


def names_and_labels(expression: str) -> tuple[set[str], set[str]]:
    """The metrics that an expression asks for, and the labels that it selects or groups by."""
    bare = re.sub(r'"[^"]*"', '""', expression)
    selectors = re.findall(r"\{([^}]*)\}", bare)
    groups = re.findall(r"(?:by|on|without|group_left|group_right) ?\(([^)]*)\)", bare)
    matched = {label for each in selectors for label in re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", each)}
    grouped = {label.strip() for each in groups for label in each.split(",") if label.strip()}
    return set(re.findall(r"\b(?:pointsman|process|python)_\w+|\bup\b", bare)), matched | grouped


@needs_promtool
def test_promtool_takes_the_rules_and_every_test_of_them_passes() -> None:
    for arguments in (("check", "rules", "alerts.yaml"), ("test", "rules", "alerts_test.yaml")):
        done = subprocess.run(
            ["promtool", *arguments], cwd=FILES, capture_output=True, text=True, check=False, timeout=120
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_tested_to_fire_and_told_in_the_documents() -> None:
    alerts = {rule["alert"] for rule in RULES}
    tests = yaml.safe_load((FILES / "alerts_test.yaml").read_text())["tests"]
    fired = {each["alertname"] for test in tests for each in test["alert_rule_test"] if each["exp_alerts"]}
    assert fired == alerts
    told = re.findall(r"^\| `(Pointsman\w+)` \|", (ROOT / "docs" / "monitoring.md").read_text(), re.MULTILINE)
    assert set(told) == alerts


def test_every_panel_says_what_it_shows_and_in_which_unit_and_none_is_upon_another() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert taken.isdisjoint(cells), panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
    assert len({each["id"] for each in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    for panel in panels():
        assert panel["description"], panel["title"]
        assert panel["type"] == "state-timeline" or panel["fieldConfig"]["defaults"]["unit"]
        assert all(each["datasource"]["uid"] == "${datasource}" for each in panel["targets"])


async def test_every_metric_and_label_that_is_asked_for_is_one_of_a_server_with_traffic(
    url: str, featuriser: Featuriser
) -> None:
    async with busy_server(url, featuriser) as server:
        families = list(text_string_to_metric_families(await asyncio.to_thread(page, server)))
    samples = {sample.name for family in families for sample in family.samples}
    # A family without a sample yet has its name all the same, as a counter's without its end.
    known = samples | {each.name for each in families} | {f"{each.name}_total" for each in families}
    labels = {label for family in families for sample in family.samples for label in sample.labels}
    asked = [names_and_labels(each) for each in expressions()]
    assert len({name for names, _ in asked for name in names}) > 30
    for names, used in asked:
        assert names
        assert names - NOT_OURS <= known
        assert used <= labels | {"instance", "job", "policy"}


@needs_prometheus
async def test_prometheus_answers_every_panel_from_a_server_with_traffic(
    url: str, featuriser: Featuriser, tmp_path: Path
) -> None:
    random = seeded("panels")
    async with busy_server(url, featuriser) as server, running_prometheus(server, tmp_path) as ask:
        missing = {
            title: query for title, query in queries().items() if not any(each in query for each in NOT_YET)
        }

        async def answered() -> bool:
            """Until there are two scrapes, a rate has no answer."""
            await traffic(server, random, 2)
            await refusal(server.route(router="routers/nowhere"))
            for title, query in list(missing.items()):
                if (await ask("query", query=query))["result"]:
                    del missing[title]
            return not missing

        try:
            await eventually(answered, 30)
        except TimeoutError:
            assert list(missing) == []
        for query in queries().values():
            await ask("query", query=query)
        rules = [each for group in (await ask("rules"))["groups"] for each in group["rules"]]
        assert {each["name"] for each in rules} == {rule["alert"] for rule in RULES}
        assert {each["health"] for each in rules} <= {"ok", "unknown"}
        assert [
            each["labels"]["alertname"] for each in (await ask("alerts"))["alerts"] if each["state"] == "firing"
        ] == []


@asynccontextmanager
async def busy_server(url: str, featuriser: Featuriser) -> AsyncIterator[Running]:
    """A server that has decided, learned and evaluated, with something of each kind that a panel shows."""
    async with running_app(url, featuriser, metrics_port=0, snapshot_seconds=0.1) as server:
        await server.create_models(a={}, b={})
        await server.update_router(policy="uniform", objective={"budget_usd_per_request": 0.01})
        await create(server, "always-b", policy="fixed:b")
        await traffic(server, seeded("dashboard"), 60, a=0.2, b=0.9)
        for each in "ab":
            made = await server.route(constraints={"allowed_models": [each]})
            await server.report(made, latency={"nanos": 500_000_000}, reward=1.0)
        await server.settled()
        await evaluated(server)
        yield server


@asynccontextmanager
async def running_prometheus(server: Running, folder: Path) -> AsyncIterator[Any]:
    """Prometheus with the configuration that is shipped, pointed at the server; gives what asks it."""
    assert server.app is not None
    configuration = yaml.safe_load((FILES / "prometheus.yml").read_text())
    configuration["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    configuration["rule_files"] = [str(FILES / each) for each in configuration["rule_files"]]
    (job,) = configuration["scrape_configs"]
    job["static_configs"][0]["targets"] = [f"127.0.0.1:{server.app.metrics_port}"]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    address = f"127.0.0.1:{free_port()}"
    process = await asyncio.create_subprocess_exec(
        "prometheus",
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def get(path: str, given: dict[str, str]) -> Any:
        with urlopen(f"http://{address}/api/v1/{path}?{urlencode(given)}", timeout=30) as answer:
            found = json.load(answer)
            assert found["status"] == "success", found
            return found["data"]

    async def ask(path: str, **given: str) -> Any:
        return await asyncio.to_thread(get, path, given)

    async def up() -> bool:
        try:
            return bool((await ask("query", query="up == 1"))["result"])
        except (URLError, ConnectionError):
            return False

    try:
        await eventually(up)
        yield ask
    finally:
        process.kill()
        await process.wait()
