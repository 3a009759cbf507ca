"""Clients in other languages, generated and built by the language's own tools, against a real server."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from builds import ROOT, built, run_checked
from callers import REFUSALS, refuse_at_first
from imports import counts
from locks import Authority, add_key
from servers import running_app

from policy.domain import ModelSpec, RouterSpec
from policy.features import Featuriser
from server.config_file import DeclaredRouter
from server.keys import Scope
from server.storage.writes import DecisionWrite, ReportWrite

MODELS = {"small", "large"}


@dataclass(frozen=True)
class Language:
    """The tools that a build needs, and the command that runs what it made."""

    tools: tuple[str, ...]
    command: tuple[str, ...]


LANGUAGES = {
    "go": Language(("go",), ("./client",)),
    "typescript": Language(("node", "npm"), ("node", "dist/client.js")),
    "rust": Language(("cargo",), ("./target/debug/pointsman-client",)),
    "java": Language(("javac", "mvn"), ("java", "-cp", "target/*:target/dependency/*", "example.Client")),
    "cpp": Language(("c++", "cmake", "pkg-config", "protoc", "grpc_cpp_plugin"), ("out/client",)),
}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("language", LANGUAGES)
async def test_a_client_routes_reports_tries_again_and_reads_refusals(
    language: str, url: str, featuriser: Featuriser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over TLS, with a key, while the server refuses the first two attempts of each call for want of storage."""
    folder = await asyncio.to_thread(made, language)
    authority = Authority(tmp_path / "ca")
    certificate, private = authority.issue()
    key = add_key(url, Scope.ROUTE, Scope.REPORT)
    declared = [DeclaredRouter("default", RouterSpec(), dict.fromkeys(MODELS, ModelSpec()))]
    async with running_app(url, featuriser, declared, tls_certificate=certificate, tls_key=private) as running:
        refused = refuse_at_first(running, monkeypatch)
        said = await asyncio.to_thread(
            run,
            folder,
            LANGUAGES[language].command,
            POINTSMAN_TARGET=running.target.replace("127.0.0.1", "localhost"),
            POINTSMAN_CA=str(authority.ca),
            POINTSMAN_API_KEY=key,
        )
    assert {said["model"], *said["fallbacks"]} == MODELS
    assert len(said["decision_id"]) == 32
    assert said["same_decision"] is True
    assert said["dispositions"] == ["DISPOSITION_RECORDED", "DISPOSITION_DUPLICATE"]
    assert plain(said["refusal"].pop("code")) == "invalidargument"
    assert said["refusal"] == {"reason": "INVALID_FIELD", "field": "reward"}
    assert plain(said["deadline"]) == "deadlineexceeded"
    assert refused == {DecisionWrite: REFUSALS, ReportWrite: REFUSALS}
    assert counts(url)[1] == 1


def plain(code: str) -> str:
    """A status code as all languages spell it."""
    return code.replace("_", "").lower()


def made(language: str) -> Path:
    """The folder where the client was built."""
    return built(
        language,
        LANGUAGES[language].tools,
        PROTOS=str(ROOT / "proto"),
        PROTOC=f"{sys.executable} -m grpc_tools.protoc",
        GOOGLEAPIS=str(googleapis()),
    )


def googleapis() -> Path:
    """The folder that has google/rpc/error_details.proto."""
    found = importlib.util.find_spec("google.rpc")
    assert found is not None
    (folder,) = found.submodule_search_locations or ()
    return Path(folder).parents[1]


def run(folder: Path, command: tuple[str, ...], **environment: str) -> Any:
    """What the client says, in JSON on its last line."""
    return json.loads(run_checked(list(command), folder, **environment).splitlines()[-1])
