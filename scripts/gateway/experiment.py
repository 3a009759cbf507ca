"""One pass of a replay file through the whole way, and the same on the code alone."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import yaml

from policy.domain import Objective, RewardRule, RouterSpec
from policy.simulation import Measured, measure
from scripts.gateway.processes import create_router, pointsman, serving_environment, started
from scripts.gateway.providers import JUDGE, JUDGE_USD_PER_MILLION, Providers, serving
from server.replay.file import ReplayFile
from server.replay.run import featurised, plan_of, play_here, table

_ROUTER = "played"
# A machine with other work may make a server wait for its disk.
_RETRIES = 5


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
            started(
                *pointsman("serve", "--port", "0", "--database-url", f"sqlite:///{folder / 'p.db'}"),
                environment=serving_environment(),
            ) as server,
        ):
            target = f"127.0.0.1:{server.port}"
            await create_router(target, _ROUTER, spec_of(budget_usd), file.models)
            config = _gateway_file(file, folder, url, feeding)
            gateway = pointsman("gateway", "--port", "0", "--config", str(config), "--target", target)
            async with started(*gateway) as gate:
                base = f"http://127.0.0.1:{gate.port}/v1"
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


def mean(values: Sequence[float]) -> float:
    """The mean."""
    return sum(values) / len(values)
