"""pointsman health: what a probe is told, by its exit code and in one line."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys

from locks import add_key
from servers import POINTSMAN, running_app

from policy.features import Featuriser

COMMAND = (str(POINTSMAN), "health")


async def probed(target: str, *arguments: str, command: tuple[str, ...] = COMMAND) -> tuple[int, str]:
    """The exit code, and all that was said."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("POINTSMAN_")}
    done = await asyncio.to_thread(
        subprocess.run,
        [*command, *arguments],
        env={**environment, "POINTSMAN_TARGET": target},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done.returncode, done.stdout + done.stderr


async def test_a_server_that_serves_says_so_even_to_who_has_no_key(url: str, featuriser: Featuriser) -> None:
    add_key(url)
    async with running_app(url, featuriser) as running:
        await running.health_is(1)
        assert await probed(running.target) == (0, "SERVING\n")


async def test_one_of_its_services_may_not_serve_and_one_that_there_is_not_is_no_success(
    url: str, featuriser: Featuriser
) -> None:
    async with running_app(url, featuriser) as running:
        assert running.app is not None
        await running.health_is(1)
        await running.app._health.tell({"of.one": False})  # As of one of its own, which it would tell anew.
        assert await probed(running.target, "--service", "of.one") == (1, "NOT_SERVING\n")
        assert (await probed(running.target))[0] == 0
        code, said = await probed(running.target, "--service", "nothing")
        assert (code, said.partition(":")[0].rpartition(" ")[2]) == (1, "127.0.0.1")
        assert "NOT_FOUND" in said
        target = running.target
    code, said = await probed(target, "--deadline", "1")
    assert code == 1
    assert said.startswith(f"{target} answers UNAVAILABLE")
    assert len(said.splitlines()) == 1


async def test_a_probe_loads_nothing_of_what_serves() -> None:
    code = (
        "import sys, click; from server.cli.main import cli;"
        "assert cli.get_command(click.Context(cli), 'health');"
        "print({'sqlalchemy', 'pydantic', 'wordllama', 'vowpalwabbit', 'numba'} & {*sys.modules})"
    )
    assert await probed("", command=(sys.executable, "-c", code)) == (0, "set()\n")
