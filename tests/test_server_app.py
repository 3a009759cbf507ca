"""The server as a whole: starting where it cannot, and more load than it takes."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest
from servers import Running, running_app

from policy.features import Featuriser


async def test_a_port_that_is_taken_is_an_os_error(
    server: Running, tmp_path: Path, featuriser: Featuriser
) -> None:
    port = int(server.target.rpartition(":")[2])
    with pytest.raises(OSError, match="another server"):
        async with running_app(f"sqlite:///{tmp_path}/other.db", featuriser, port=port):
            pass


async def test_a_full_write_queue_is_said_as_resource_exhausted(url: str, featuriser: Featuriser) -> None:
    async with running_app(url, featuriser, write_queue_max=1) as server:
        await server.create_models(a={})
        calls = [server.route(prompt="hello") for _ in range(300)]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        refused = [each for each in answers if isinstance(each, grpc.aio.AioRpcError)]
        assert {each.code() for each in refused} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        stored = (await server.settled()).statistics.decision_count
        assert stored == 300 - len(refused)
        assert (await server.route(prompt="hello")).model == "a"


async def test_two_servers_that_begin_an_empty_database_at_once_both_start(
    url: str, featuriser: Featuriser, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_app(url, featuriser) as first:
        await first.create_models(a={})
    monkeypatch.setattr("server.app.registry_store.load_entries", lambda _: [])  # The other had not written yet.
    async with running_app(url, featuriser) as second:
        assert (await second.route(prompt="question")).model == "a"
