"""Keys on the command line: shown once, listed without their text, revoked for good; and commands that use one."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from locks import Authority
from servers import POINTSMAN, serving_process

KEY = re.compile(r"pmk_([0-9a-f]{12})_[0-9a-f]{64}\Z")


class Shell:
    """The command line with a database and an environment."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.environment: dict[str, str] = {}

    def run(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(POINTSMAN), *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env={**os.environ, "POINTSMAN_DATABASE_URL": self.url, **self.environment},
        )

    def says(self, *arguments: object) -> str:
        done = self.run(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def refuses(self, *arguments: object) -> str:
        done = self.run(*arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.count("\n") == 1
        return done.stderr


@pytest.fixture
def shell(url: str) -> Shell:
    return Shell(url)


def test_a_key_is_shown_once_then_listed_by_its_id_and_revoked(shell: Shell, tmp_path: Path) -> None:
    made = shell.run("keys", "create", "--scope", "route", "--router", "support", "--rate", "5", "--days", "30")
    text = made.stdout.strip()
    found = KEY.match(text)
    assert found, made
    assert made.stderr == "This is shown once. Servers take it within a second.\n"
    key_id, secret = found[1], text.rpartition("_")[2]
    listed = shell.says("keys", "list") + shell.says("keys", "list", "--json")
    assert key_id in listed
    assert secret not in listed
    assert all(secret.encode() not in each.read_bytes() for each in tmp_path.iterdir())
    (values,) = json.loads(shell.says("keys", "list", "--json"))
    lifetime = values.pop("expire_time") - values.pop("create_time")
    assert lifetime == pytest.approx(30 * 86_400)
    assert values == {
        "id": key_id,
        "name": "",
        "scopes": ["route"],
        "routers": ["support"],
        "requests_per_second": 5.0,
        "burst": None,
        "concurrent_max": None,
        "revoke_time": None,
    }
    assert shell.says("keys", "revoke", key_id) == f"{key_id} is revoked\n"
    assert "revoked" in shell.says("keys", "list")
    assert "could be revoked" in shell.refuses("keys", "revoke", key_id)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "--scope"),
        (("--scope", "everything"), "--scope"),
        (("--scope", "route", "--router", "a/b"), "--router"),
        (("--scope", "route", "--days", "0"), "--days"),
        (("--scope", "route", "--rate", "nan"), "--rate"),
        (("--scope", "route", "--burst", "3"), "--burst"),
        (("--scope", "route", "--rate", "1", "--burst", "0"), "--burst"),
        (("--scope", "route", "--concurrent", "-1"), "--concurrent"),
        (("--scope", "route", "--name", "x" * 129), "--name"),
    ],
    ids=str,
)
def test_what_no_key_can_have_is_named_and_nothing_is_created(
    shell: Shell, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    assert said in shell.refuses("keys", "create", *arguments)
    assert list(tmp_path.iterdir()) == []


def test_there_are_no_keys_to_list_where_there_is_no_database(shell: Shell) -> None:
    assert "there is no such database" in shell.refuses("keys", "list")


@pytest.fixture
def locked(shell: Shell, tmp_path: Path) -> Iterator[tuple[Shell, str, Authority, str]]:
    """A server with keys and mutual TLS: what asks it, its target, its authority, and a key."""
    authority = Authority(tmp_path / "ca")
    certificate, key_file = authority.issue()
    key = shell.says("keys", "create", "--scope", "administer").strip()
    environment = {
        "POINTSMAN_TLS_CERTIFICATE": str(certificate),
        "POINTSMAN_TLS_KEY": str(key_file),
        "POINTSMAN_TLS_CLIENT_CA": str(authority.ca),
    }
    with serving_process("--database-url", shell.url, **environment) as (_, port):
        yield shell, f"127.0.0.1:{port}", authority, key


def test_the_commands_show_key_and_certificate_by_options_or_the_environment(
    locked: tuple[Shell, str, Authority, str],
) -> None:
    shell, target, authority, key = locked
    certificate, key_file = authority.issue("client", "me")
    tls = ("--ca", authority.ca, "--client-certificate", certificate, "--client-key", key_file)
    listing = ("models", "--target", target, *tls, "list", "--json")
    assert "UNAUTHENTICATED: this server asks for a key" in shell.refuses(*listing)
    wrong = key[:-1] + ("0" if key[-1] != "0" else "1")
    shell.environment["POINTSMAN_API_KEY"] = wrong
    assert "UNAUTHENTICATED: there is no such key" in (said := shell.refuses(*listing))
    assert wrong.rpartition("_")[2] not in said
    shell.environment["POINTSMAN_API_KEY"] = key
    assert json.loads(shell.says(*listing)) == []
    assert "UNAVAILABLE" in shell.refuses("models", "--target", target, "list")
    assert "cannot be read" in shell.refuses("models", "--target", target, "--ca", "no.pem", "list")
    shell.environment |= {
        "POINTSMAN_CA": str(authority.ca),
        "POINTSMAN_CLIENT_CERTIFICATE": str(certificate),
        "POINTSMAN_CLIENT_KEY": str(key_file),
    }
    assert shell.says("shadow", "--target", target)
    assert "NOT_FOUND" in shell.refuses("explain", "0" * 32, "--target", target)
    assert "PERMISSION_DENIED" not in shell.refuses("evaluate", "--server", target, "--router", "none")


def test_a_key_is_not_sent_in_the_clear_to_another_machine(shell: Shell) -> None:
    shell.environment["POINTSMAN_API_KEY"] = "pmk_secret"
    for target in ("10.1.2.3:50051", "example.com:50051"):
        said = shell.refuses("models", "--target", target, "list")
        assert "POINTSMAN_API_KEY is set, and without TLS" in said
        assert "pmk_secret" not in said


def test_serve_says_that_it_serves_this_machine_only_and_refuses_others(shell: Shell) -> None:
    said = shell.refuses("serve", "--host", "0.0.0.0", "--port", "0")
    assert said.startswith("pointsman: POINTSMAN_HOST: 0.0.0.0 is not loopback, and there are no keys: create one")
