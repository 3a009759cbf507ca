"""The Dockerfile and compose.yaml, as far as they can be read without Docker: what they name is there."""

from __future__ import annotations

import json
import re
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from server.cli.main import cli
from server.settings import Settings

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
SETTINGS = {f"POINTSMAN_{name.upper()}" for name in Settings.model_fields}


def instructions(name: str) -> list[str]:
    """What stands after each instruction of the Dockerfile with this name."""
    return re.findall(rf"^{name} +(.*)$", DOCKERFILE, re.MULTILINE)


def image_environment() -> dict[str, str]:
    return dict(each.split("=", 1) for line in instructions("ENV") for each in line.split())


def environment(service: str) -> dict[str, str]:
    """The variables of a service, those of its image among them if that is ours."""
    own = {name: str(value) for name, value in SERVICES[service].get("environment", {}).items()}
    return {**image_environment(), **own} if SERVICES[service].get("build") else own


def test_what_is_copied_is_there_and_not_ignored() -> None:
    rules = (ROOT / ".dockerignore").read_text().split()
    assert rules[1] == "*" or "*" in rules
    allowed = {each.removeprefix("!") for each in rules if each.startswith("!")}
    sources = [
        source for line in instructions("COPY") if not line.startswith("--from") for source in line.split()[:-1]
    ]
    assert len(sources) > 5
    for source in sources:
        assert (ROOT / source).exists(), source
        assert Path(source).parts[0] in allowed, source


def test_what_is_installed_are_extras_of_the_package() -> None:
    (extras,) = re.findall(r'"\.\[([^]]+)\]"', DOCKERFILE)
    project = (ROOT / "pyproject.toml").read_text()
    for extra in extras.split(","):
        assert re.search(rf"^{extra} = \[$", project, re.MULTILINE), extra


def test_the_image_serves_as_nobody_in_particular_and_is_probed() -> None:
    assert instructions("USER") == ["10001:10001"]
    assert json.loads(instructions("ENTRYPOINT")[0]) == ["pointsman"]
    (probe,) = instructions("HEALTHCHECK")
    program, command = json.loads(probe.partition("CMD ")[2])
    assert program == "pointsman"
    assert cli.get_command(click.Context(cli), command) is not None


@pytest.mark.parametrize("service", [None, *SERVICES])
def test_every_variable_of_ours_is_a_setting_that_takes_its_value(
    service: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = environment(service) if service else image_environment()
    ours = {name: value for name, value in given.items() if name.startswith("POINTSMAN_")}
    assert set(ours) <= SETTINGS
    for name, value in ours.items():
        monkeypatch.setenv(name, value)
    assert Settings().model_fields_set == {name.removeprefix("POINTSMAN_").lower() for name in ours}


def test_prometheus_asks_the_server_where_it_answers() -> None:
    configuration = yaml.safe_load((ROOT / "deploy/monitoring/prometheus.yml").read_text())
    (job,) = configuration["scrape_configs"]
    name, port = job["static_configs"][0]["targets"][0].split(":")
    assert environment(name)["POINTSMAN_METRICS_PORT"] == port
    assert environment(name)["POINTSMAN_METRICS_HOST"] == "0.0.0.0"


def test_grafana_is_given_the_data_source_and_the_dashboard() -> None:
    (source,) = yaml.safe_load((ROOT / "deploy/monitoring/grafana/datasource.yaml").read_text())["datasources"]
    host = source["url"].removeprefix("http://").partition(":")[0]
    assert host in SERVICES
    (provider,) = yaml.safe_load((ROOT / "deploy/monitoring/grafana/dashboards.yaml").read_text())["providers"]
    inside = [each.split(":")[1] for each in SERVICES["grafana"]["volumes"]]
    assert f"{provider['options']['path']}/grafana-dashboard.json" in inside
    assert environment("grafana")["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] in inside


def test_what_is_mounted_is_there_and_every_port_is_open_to_this_machine_only() -> None:
    for name, service in SERVICES.items():
        for volume in service.get("volumes", []):
            outside = volume.split(":")[0]
            assert (ROOT / outside).exists() if outside.startswith(".") else outside in COMPOSE["volumes"], volume
        assert all(each.startswith("127.0.0.1:") for each in service.get("ports", [])), name
        for other in service.get("depends_on", []):
            assert other in SERVICES
        assert fnmatch(service["image"], "*:[v0-9]*") or service.get("build")
