"""Settings come from POINTSMAN_..., have safe defaults, and a bad one is named."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, get_args

import click
import pytest
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from server.cli.loading import load_settings
from server.logs import LogFormat
from server.settings import Role, Settings
from server.storage.engine import Durability

INT32_MAX = 2**31 - 1

READ: dict[str, tuple[str, Any]] = {
    "host": ("0.0.0.0", "0.0.0.0"),
    "port": ("1234", 1234),
    "database_url": ("sqlite:///other.db", "sqlite:///other.db"),
    "durability": ("process_crash", Durability.PROCESS_CRASH),
    "role": ("learner", Role.LEARNER),
    "learner_process": ("true", True),
    "share_port": ("true", True),
    "config": ("some/models.yaml", Path("some/models.yaml")),
    "write_queue_max": ("7", 7),
    "storage_wait_seconds": ("0.25", 0.25),
    "snapshot_seconds": ("0.25", 0.25),
    "evaluation_seconds": ("0.25", 0.25),
    "metrics_host": ("0.0.0.0", "0.0.0.0"),
    "metrics_port": ("9464", 9464),
    "learner_metrics_port": ("9465", 9465),
    "retention_days": ("1.5", 1.5),
    "http_host": ("0.0.0.0", "0.0.0.0"),
    "http_port": ("off", None),
    "tls_certificate": ("some/chain.pem", Path("some/chain.pem")),
    "tls_key": ("some/key.pem", Path("some/key.pem")),
    "tls_client_ca": ("some/ca.pem", Path("some/ca.pem")),
    "tls_ends_elsewhere": ("true", True),
    "insecure": ("true", True),
    "message_bytes_max": ("70000", 70_000),
    "grace_seconds": ("1.5", 1.5),
    "log_level": ("DEBUG", "DEBUG"),
    "log_format": ("json", LogFormat.JSON),
}
BAD = [
    *(("port", each) for each in ("-1", "65536", "1.5", "http", "")),
    *(("durability", each) for each in ("none", "POWER_LOSS", "")),
    *(("role", each) for each in ("both", "ROUTER", "")),
    *(("write_queue_max", each) for each in ("0", "-1", "many", "1e3")),
    *(("storage_wait_seconds", each) for each in ("0", "-1", "61", "nan", "soon", "")),
    *(("snapshot_seconds", each) for each in ("0", "-1", "nan", "soon", "")),
    *(("evaluation_seconds", each) for each in ("0", "-1", "nan", "soon", "")),
    *((name, each) for name in ("metrics_port", "learner_metrics_port") for each in ("-1", "65536", "on", "")),
    *(("http_port", each) for each in ("-1", "65536", "on", "none", "")),
    *(("retention_days", each) for each in ("0", "-1", "nan", "36501", "ever", "")),
    *(
        (each, text)
        for each in ("tls_ends_elsewhere", "insecure", "share_port", "learner_process")
        for text in ("perhaps", "2", "")
    ),
    *(("message_bytes_max", each) for each in ("65535", "-1", "4MB")),
    *(("grace_seconds", each) for each in ("-0.1", "nan", "-inf", "long")),
    *(("log_level", each) for each in ("info", "TRACE", "INFO\n", "XINFO", "")),
    *(("log_format", each) for each in ("JSON", "logfmt", "")),
]
EDGES = [
    ("port", "0", 0),
    ("port", "65535", 65_535),
    ("http_port", "0", 0),
    ("write_queue_max", "1", 1),
    ("message_bytes_max", "65536", 65_536),
    ("grace_seconds", "0", 0.0),
    *(("log_level", each, each) for each in ("DEBUG", "INFO", "WARNING", "ERROR")),
    *(("durability", each.value, each) for each in Durability),
    *(("role", each.value, each) for each in Role),
]


def _takes_fractions(field: FieldInfo) -> bool:
    return field.annotation is float or float in get_args(field.annotation)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of whoever runs the tests."""
    for name in [each for each in os.environ if each.upper().startswith("POINTSMAN_")]:
        monkeypatch.delenv(name)


def variable(field: str) -> str:
    """The name of a setting in the environment."""
    return f"POINTSMAN_{field.upper()}"


def refused(**given: Any) -> str:
    """What is said of settings that cannot be taken."""
    with pytest.raises(click.UsageError) as caught:
        load_settings(given)
    return caught.value.format_message()


def test_the_defaults_are_safe_on_one_machine() -> None:
    assert Settings().model_dump() == {
        "host": "127.0.0.1",
        "port": 50051,
        "database_url": "sqlite:///pointsman.db",
        "durability": Durability.POWER_LOSS,
        "role": Role.ALL,
        "learner_process": False,
        "share_port": False,
        "config": None,
        "write_queue_max": 4096,
        "storage_wait_seconds": 1.0,
        "snapshot_seconds": 5.0,
        "evaluation_seconds": 30.0,
        "metrics_host": "127.0.0.1",
        "metrics_port": None,
        "learner_metrics_port": None,
        "retention_days": None,
        "http_host": "127.0.0.1",
        "http_port": 50080,
        "tls_certificate": None,
        "tls_key": None,
        "tls_client_ca": None,
        "tls_ends_elsewhere": False,
        "insecure": False,
        "message_bytes_max": 16_777_216,
        "grace_seconds": 10.0,
        "log_level": "INFO",
        "log_format": LogFormat.TEXT,
    }


@pytest.mark.parametrize("field", READ)
def test_a_setting_is_read_from_the_environment_and_changes_no_other(
    field: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, expected = READ[field]
    defaults = Settings().model_dump()
    assert defaults[field] != expected
    monkeypatch.setenv(variable(field), text)
    assert Settings().model_dump() == {**defaults, field: expected}


def test_these_are_all_the_settings_and_each_says_what_it_is() -> None:
    assert set(READ) == set(Settings.model_fields)
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


@pytest.mark.parametrize("field", READ)
def test_a_variable_without_the_prefix_is_not_ours(field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    defaults = Settings()
    monkeypatch.setenv(field.upper(), READ[field][0])
    assert Settings() == defaults


def test_what_the_command_line_gives_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POINTSMAN_PORT", "1000")
    monkeypatch.setenv("POINTSMAN_HOST", "0.0.0.0")
    settings = load_settings({"port": 2000})
    assert (settings.port, settings.host) == (2000, "0.0.0.0")


@pytest.mark.parametrize(("field", "text", "expected"), EDGES)
def test_the_last_good_values_are_taken(
    field: str, text: str, expected: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable(field), text)
    assert getattr(Settings(), field) == expected


@pytest.mark.parametrize(("field", "text"), BAD)
def test_a_bad_value_in_the_environment_is_named(field: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable(field), text)
    with pytest.raises(ValidationError) as caught:
        Settings()
    assert [each["loc"] for each in caught.value.errors()] == [(field,)]
    assert refused().startswith(f"setting {field} ({variable(field)}): ")


def test_a_bad_value_on_the_command_line_is_named_and_told_what_would_be_right() -> None:
    assert refused(port=99_999) == "setting port (POINTSMAN_PORT): Input should be less than or equal to 65535"
    assert "'power_loss' or 'process_crash'" in refused(durability="none")


def test_of_two_bad_values_one_is_named_and_then_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POINTSMAN_PORT", "x")
    monkeypatch.setenv("POINTSMAN_LOG_LEVEL", "x")
    assert "POINTSMAN_PORT" in refused()
    assert "POINTSMAN_LOG_LEVEL" in refused(port=1)


def test_a_setting_that_does_not_exist_is_refused() -> None:
    assert refused(colour="red").startswith("setting colour ")


def test_settings_do_not_change_once_they_are_read() -> None:
    settings = Settings()
    with pytest.raises(ValidationError, match="frozen"):
        settings.port = 1  # type: ignore[misc]
    assert settings.port == 50051


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("grace_seconds", "86401"),
        ("grace_seconds", "1e300"),
        ("message_bytes_max", str(INT32_MAX + 1)),
        ("message_bytes_max", str(sys.maxsize)),
    ],
)
def test_a_value_too_large_to_serve_with_is_named(field: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable(field), text)
    assert variable(field) in refused()


@pytest.mark.parametrize("text", ["inf", "-inf", "nan"])
@pytest.mark.parametrize("field", [name for name, each in Settings.model_fields.items() if _takes_fractions(each)])
def test_what_is_no_finite_number_is_named(field: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable(field), text)
    assert refused() == f"setting {field} ({variable(field)}): Input should be a finite number"


@pytest.mark.parametrize("text", ["", " "])
@pytest.mark.parametrize("field", READ)
def test_a_variable_that_expands_to_nothing_is_named(
    field: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable(field), text)
    assert refused() == f"setting {field} ({variable(field)}): must not be empty; leave it out to have its default"


@pytest.mark.parametrize("given", [{"config": Path()}, {"host": ""}])
def test_nor_is_nothing_taken_from_the_command_line(given: dict[str, Any]) -> None:
    assert refused(**given).endswith("must not be empty; leave it out to have its default")


@pytest.mark.parametrize(
    ("port", "other", "right"), [("9464", "9464", False), ("9464", "9465", True), ("0", "0", True)]
)
def test_two_processes_have_their_metrics_on_two_ports(
    monkeypatch: pytest.MonkeyPatch, port: str, other: str, right: bool
) -> None:
    for name, value in (("METRICS_PORT", port), ("LEARNER_METRICS_PORT", other), ("LEARNER_PROCESS", "true")):
        monkeypatch.setenv(f"POINTSMAN_{name}", value)
    if right:
        assert Settings().learner_metrics_port == int(other)
    else:
        with pytest.raises(ValidationError, match="another than metrics_port"):
            Settings()
