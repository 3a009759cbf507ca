"""The console's files over HTTP: nothing else is served, and they run nothing but this server's scripts."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator

import pytest
from http_calls import fetch, post, serving_models

from policy.features import Featuriser


@pytest.fixture
async def port(url: str, featuriser: Featuriser) -> AsyncIterator[int]:
    async with serving_models(url, featuriser) as found:
        yield found


async def test_the_console_is_files_that_run_nothing_but_this_servers_scripts(port: int) -> None:
    page = await fetch(port, "/")
    assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert page.headers["x-content-type-options"] == "nosniff"
    for path in re.findall(r'(?:src|href)="(/[^"#]+)"', page.body):
        found = await fetch(port, path)
        assert (found.status, found.headers["x-content-type-options"]) == (200, "nosniff"), path


async def test_a_file_that_the_browser_has_is_not_sent_again(port: int) -> None:
    first = await fetch(port, "/app.js")
    again = await fetch(port, "/app.js", if_none_match=first.headers["etag"])
    head = await fetch(port, "/app.js", "HEAD")
    assert (again.status, again.body) == (304, "")
    assert (head.status, head.body, head.headers["content-length"]) == (
        200,
        "",
        str(len(first.body.encode())),
    )


async def test_nothing_but_the_consoles_files_is_served(port: int) -> None:
    for path in (
        "/../files.py",
        "/%2e%2e/files.py",
        "/vendor/../../app.py",
        "/app.js/",
        "//app.js",
        "/.",
        "/vendor",
    ):
        answer = await fetch(port, path)
        assert (answer.status, json.loads(answer.body)["code"]) == (404, "unimplemented"), path
    written = await post(port, "/")
    assert (written.status, written.headers["allow"]) == (405, "GET, HEAD")
