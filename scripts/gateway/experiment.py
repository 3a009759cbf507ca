"""One pass of a replay file through the whole way, and the same on the code alone."""

from __future__ import annotations

import asyncio
import os
import re
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import openai
import yaml
from pointsman.v1 import registry_service_pb2 as registry_pb
from pointsman.v1 import registry_service_pb2_grpc as registry_grpc

from policy.domain import Objective, RewardRule, RouterSpec
from policy.simulation import Measured, measure
from scripts.gateway.providers import JUDGE, JUDGE_USD_PER_MILLION, Providers, serving
from server.replay.file import ReplayFile
from server.replay.run import featurised, plan_of, play_here, table
from server.services.specs import router_spec_to_proto

_START_SECONDS = 60.0
_ROUTER = "played"
# A machine with other work may make a server wait for its disk.
_RETRIES = 5


class ProcessError(Exception):
    """A process did not start."""


@dataclass(frozen=True)
class Feeding:
    """How answers are rewarded: by feedback on each, or by a judge on a share."""

    judge_share: float = 0.0
    judge_noise: float = 0.2
    judge_usd_per_day_max: float = 1.0


@dataclass(frozen=True)
class Played:
    """What came of one pass; `judges` is what the gateway says of its judge at the end."""

    measured: Measured
    judge: dict[str, Any]


def spec_of(budget_usd: float) -> RouterSpec:
    """The router that is played: a budget, and a judge's score for a reward where there is no other."""
    return RouterSpec(
        objective=Objective(budget_usd_per_request=budget_usd),
        reward_rule=RewardRule(signal_weights={"judge": 1.0}),
    )


def replayed(file: ReplayFile, budget_usd: float, seed: int, draws: int) -> list[Measured]:
    """The same order of the same rows on the code alone, drawn so many times."""
    plan = plan_of(file, seed)
    rounds = featurised(file, lambda: None)
    play = play_here(file, rounds)
    found = []
    for draw in range(draws):
        chosen = list(play(spec_of(budget_usd), plan.order.tolist(), draw))
        found.append(measure(table(file, plan), chosen[plan.measured_from :]))
    return found


async def played(
    file: ReplayFile, budget_usd: float, seed: int, feeding: Feeding, on_round: Callable[[], object]
) -> Played:
    """Through the SDK, one request after the other, each with its feedback if any. Raises ProcessError."""
    plan = plan_of(file, seed)
    providers = Providers(file, feeding.judge_noise, seed)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        async with (
            serving(providers.app()) as url,
            _process("serve", "--port", "0", "--database-url", f"sqlite:///{folder / 'p.db'}") as port,
        ):
            await _create_router(file, f"127.0.0.1:{port}", spec_of(budget_usd))
            config = _gateway_file(file, folder, url, feeding)
            target = ("--config", str(config), "--target", f"127.0.0.1:{port}")
            async with _process("gateway", "--port", "0", *target) as gate:
                base = f"http://127.0.0.1:{gate}/v1"
                async with openai.AsyncOpenAI(base_url=base, api_key="unused", max_retries=_RETRIES) as client:
                    chosen = [await _ask(client, file, row, feeding, on_round) for row in plan.order.tolist()]
                    shown: Any = await client.get("/judges", cast_to=object)
    found = measure(table(file, plan), chosen[plan.measured_from :])
    return Played(found, shown["routers"].get(_ROUTER, {}))


async def _ask(
    client: openai.AsyncOpenAI, file: ReplayFile, row: int, feeding: Feeding, on_round: Callable[[], object]
) -> str:
    """The model that answered."""
    raw = await client.chat.completions.with_raw_response.create(
        model=f"pointsman/{_ROUTER}", messages=[{"role": "user", "content": file.rows[row].prompt}]
    )
    model = raw.headers["x-pointsman-model"]
    if not feeding.judge_share:
        given = {
            "decision_id": raw.headers["x-pointsman-decision-id"],
            "feedback_id": "1",
            "score": file.rows[row].outcomes[model].quality,
        }
        await client.post("/feedback", body=given, cast_to=object)
    on_round()
    return str(model)


def _gateway_file(file: ReplayFile, folder: Path, url: str, feeding: Feeding) -> Path:
    (folder / "key").write_text("sk-of-nobody")
    model = {"api_base": f"{url}/v1", "api_key_file": str(folder / "key")}
    content: dict[str, Any] = {
        "route_seconds": 10.0,
        "models": {name: {**model, "litellm_model": f"openai/{name}"} for name in (*file.models, JUDGE)},
    }
    if feeding.judge_share:
        judge = {"model": JUDGE, "share": feeding.judge_share, **JUDGE_USD_PER_MILLION}
        judge["cost_usd_per_day_max"] = feeding.judge_usd_per_day_max
        content["routers"] = {_ROUTER: {"judge": judge}}
        content["judge_books_file"] = str(folder / "books.json")
    path = folder / "gateway.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


async def _create_router(file: ReplayFile, target: str, spec: RouterSpec) -> None:
    async with grpc.aio.insecure_channel(target) as channel:
        registry = registry_grpc.RegistryServiceStub(channel)
        await registry.CreateRouter(
            registry_pb.CreateRouterRequest(router_id=_ROUTER, router=router_spec_to_proto(spec))
        )
        for model in file.models:
            await registry.CreateModel(registry_pb.CreateModelRequest(parent=f"routers/{_ROUTER}", model_id=model))


@asynccontextmanager
async def _process(*command: str) -> AsyncIterator[int]:
    """A command of Pointsman's, and the port that it says it listens on; ended at the end."""
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).parent / "pointsman"),
        *command,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "POINTSMAN_HTTP_PORT": "off", "POINTSMAN_STORAGE_WAIT_SECONDS": "30"},
    )
    said = process.stderr or asyncio.StreamReader()
    try:
        async with asyncio.timeout(_START_SECONDS):
            port = await _port(said)
        drained = asyncio.create_task(said.read())
        yield port
        process.terminate()
        await process.wait()
        await drained
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _port(said: asyncio.StreamReader) -> int:
    lines: list[str] = []
    async for line in said:
        lines.append(line.decode(errors="replace"))
        found = re.search(r"listens on [^ ]*:(\d+)\s*$", lines[-1])
        if found:
            return int(found.group(1))
    raise ProcessError("".join(lines))


def mean(values: Sequence[float]) -> float:
    """The mean."""
    return sum(values) / len(values)
